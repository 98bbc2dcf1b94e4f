//! What several test suites need: bounded waits, temporary folders, an HTTP client, and an HTTPS server whose
//! responses a test writes byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod directory;
pub mod https;
mod wait;

pub use client::http_client;
pub use directory::Directory;
pub use wait::{LONGEST_WAIT, wait_for, wait_until};
