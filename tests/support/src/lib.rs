//! What several test suites need: bounded waits, temporary folders, and an HTTPS server whose responses a test writes
//! byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod directory;
pub mod https;
mod wait;

pub use directory::Directory;
pub use wait::{LONGEST_WAIT, wait_for, wait_until};
