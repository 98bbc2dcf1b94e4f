//! The response of a peer, and the connection that it came over.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::http2::pool::StreamOrigin;
use pushlet_quota::account::MemoryReservation;

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What the body takes on the account, if it is large.
    pub reserved: Option<MemoryReservation>,
    /// How long the request waited for its place on a connection.
    pub waited: Duration,
    pub connection: ConnectionHandle,
}

/// The connection that a response came over.
pub struct ConnectionHandle(pub(super) Option<StreamOrigin>);

impl ConnectionHandle {
    /// Opens no further stream on this connection and closes it when its streams have ended.
    /// For [`Protocol::Https`] this does nothing: no peer there ties its state to a connection.
    pub fn close_after_use(self) {
        if let Some(origin) = self.0 {
            origin.retire();
        }
    }
}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionHandle")
    }
}
