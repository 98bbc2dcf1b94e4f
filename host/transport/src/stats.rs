//! What is measured of the connections to one peer.

use super::breaker::BreakerState;
use super::message::{PeerKey, Protocol};
use super::origin::Origin;
use pushlet_model::tenant::TenantId;

/// Figures of one origin and identity, for metrics.
#[derive(Debug, Clone)]
pub struct ConnectionStats {
    /// Of those that use it, the tenant that used it first.
    pub tenant: TenantId,
    pub origin: Origin,
    /// `anonymous`, or `certificate:` or `token:` and the beginning of the digest.
    pub identity: String,
    pub protocol: Protocol,
    /// Open connections; not known, and 0, for [`Protocol::Https`].
    pub connections: usize,
    /// Requests in flight.
    pub streams: usize,
    /// Requests that wait.
    pub queued: usize,
    pub breaker: BreakerState,
}

/// The load of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerLoad {
    pub connections: usize,
    pub streams: usize,
    pub waiting: usize,
    pub breaker: BreakerState,
}

impl ConnectionStats {
    pub(super) fn new(tenant: &TenantId, key: &PeerKey, protocol: Protocol, load: PeerLoad) -> Self {
        ConnectionStats {
            tenant: tenant.clone(),
            origin: key.origin.clone(),
            identity: key.identity.to_string(),
            protocol,
            connections: load.connections,
            streams: load.streams,
            queued: load.waiting,
            breaker: load.breaker,
        }
    }
}
