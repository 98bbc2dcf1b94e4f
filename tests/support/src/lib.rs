//! What several test suites need: bounded waits, temporary folders, an HTTP client, an HTTPS server whose
//! responses a test writes byte by byte, and real NATS servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod directory;
pub mod https;
mod nats;
mod wait;

pub use client::http_client;
pub use directory::Directory;
pub use nats::Nats;
pub use wait::{LONGEST_WAIT, wait_for, wait_until};
