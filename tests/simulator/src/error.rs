//! Why a simulator could not start.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a simulator could not start, or could not issue what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address of a listener cannot be bound.
    #[error("the simulator's {listener} listener cannot use {address}: {source}")]
    Bind {
        /// `apns`, `google` or `control`.
        listener: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory of the credentials or a file in it cannot be read or written.
    #[error("the simulator's credentials cannot be kept at {}: {source}", path.display())]
    Files {
        /// The file or directory concerned.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key or certificate could not be made.
    #[error("the simulator's credentials cannot be made: {0}")]
    Make(String),
    /// The runtime was shut down during the start.
    #[error("the simulator's start was interrupted")]
    Interrupted,
}
