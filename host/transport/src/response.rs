//! The response of a peer: the connection that it came over, and its body as it arrives, no longer than allowed and
//! charged to the account that the request is for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::error::FailureCause;
use super::http2::pool::StreamOrigin;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};

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

/// Bytes of an answer that are not counted: more than nearly all answers have, and as many as one that is awaited may
/// cost.
const SMALL: usize = 4 << 10;

/// The part of it that has arrived.
pub(super) struct AnswerBody<'a> {
    bytes: BytesMut,
    most: usize,
    payer: Option<&'a Arc<Account>>,
    reserved: Option<MemoryReservation>,
}

impl<'a> AnswerBody<'a> {
    pub fn new(most: usize, payer: Option<&'a Arc<Account>>) -> Self {
        Self { bytes: BytesMut::new(), most, payer, reserved: None }
    }

    pub fn push(&mut self, piece: &[u8]) -> Result<(), FailureCause> {
        let length = self.bytes.len() + piece.len();
        if length > self.most {
            return Err(FailureCause::TooLarge);
        }
        if let Some(payer) = self.payer.filter(|_| length > SMALL) {
            let reserved = self.reserved.get_or_insert_with(|| payer.reserve_nothing(MemoryUse::Answers));
            // The buffer grows by doubling.
            let all = length.max(self.bytes.capacity());
            let more = all.saturating_sub(reserved.bytes());
            reserved.grow(more).map_err(|_| FailureCause::OutOfMemory)?;
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Returns the whole body, and the memory that it has reserved.
    pub fn finish(self) -> (Bytes, Option<MemoryReservation>) {
        (self.bytes.freeze(), self.reserved)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pushlet_model::tenant::TenantId;
    use pushlet_quota::account::{AccountSettings, Accounts};

    #[test]
    fn it_is_counted_until_it_is_read() {
        let settings = AccountSettings { tenant_memory: 100 << 10, ..AccountSettings::default() };
        let account = Accounts::new(settings).unwrap().of(&TenantId::new("a"));
        let mut small = AnswerBody::new(1 << 20, Some(&account));
        small.push(&[0; SMALL]).unwrap();
        assert_eq!(account.memory_used(), 0);
        let mut large = AnswerBody::new(1 << 20, Some(&account));
        let mut pushed = 0;
        let cause = loop {
            match large.push(&[0; 1000]) {
                Ok(()) => pushed += 1,
                Err(cause) => break cause,
            }
        };
        assert!(cause == FailureCause::OutOfMemory && (50..=102).contains(&pushed), "{cause} after {pushed}");
        assert!(account.memory_used_for(MemoryUse::Answers) >= pushed * 1000);
        let (body, reserved) = large.finish();
        assert_eq!(body.len(), pushed * 1000);
        drop(reserved);
        assert_eq!(account.memory_used(), 0);
        assert_eq!(AnswerBody::new(10, None).push(&[0; 11]), Err(FailureCause::TooLarge));
    }
}
