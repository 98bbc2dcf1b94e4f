//! Who calls: the peer of a connection, and the tenant or operator of a request.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName};

use crate::in_flight::InFlightPermit;
use crate::response::ErrorResponse;
use pushlet_gateway::tenants::{KeyId, Permission, Tenant};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_settings::IpNetworks;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of a connection. The listener puts it into the extensions of each of the connection's requests.
pub struct Peer {
    address: IpAddr,
    /// The trusted proxies, if the peer is one of them.
    proxies: Option<Arc<IpNetworks>>,
    /// Whether a request with valid credentials came over this connection.
    authenticated: AtomicBool,
}

impl Peer {
    pub fn new(address: IpAddr, proxies: &Arc<IpNetworks>) -> Self {
        let address = address.to_canonical();
        let proxies = proxies.contains(address).then(|| proxies.clone());
        Self { address, proxies, authenticated: AtomicBool::new(false) }
    }

    /// Returns the address that the peer's connections are counted by; None: their number is not limited.
    pub fn counted_as(&self) -> Option<IpAddr> {
        let is_shared = self.address.is_loopback() || self.proxies.is_some();
        (!is_shared).then(|| counted_as(self.address))
    }

    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    pub fn authenticate(&self) {
        // Nearly always it is set already, and a store would take the cache line from other threads.
        if !self.is_authenticated() {
            self.authenticated.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the caller's address. Behind proxies this is the last address in `X-Forwarded-For` that is not a
    /// proxy's.
    pub(super) fn client(&self, headers: &HeaderMap) -> IpAddr {
        let Some(proxies) = &self.proxies else { return self.address };
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        // From the last entry on: the caller may have written any entry before those that our proxies appended.
        let entries = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        let mut last = self.address;
        for entry in entries {
            let Ok(address) = entry.trim().parse::<IpAddr>() else { return last };
            last = address.to_canonical();
            if !proxies.contains(last) {
                return last;
            }
        }
        last
    }
}

/// Returns an address as limits count it: one caller may have all of an IPv6 network of 64 bits.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Whom a request's credentials stand for.
#[derive(Clone)]
pub enum Caller {
    /// The operator, who is not a tenant.
    Operator,
    Tenant(Permission),
}

impl Caller {
    pub fn tenant(&self) -> Option<&Tenant> {
        self.permission().map(|permission| &**permission.tenant())
    }

    /// Returns the id of the tenant's API key that the request came with.
    pub fn key(&self) -> Option<KeyId> {
        self.permission()?.key()
    }

    fn permission(&self) -> Option<&Permission> {
        match self {
            Self::Operator => None,
            Self::Tenant(permission) => Some(permission),
        }
    }
}

/// What authentication found out about a request; it is kept in the request's extensions.
#[derive(Clone)]
pub struct AuthenticatedRequest {
    pub caller: Caller,
    pub permit: InFlightPermit,
    pub has_operator: bool,
}

/// Returns the permit of an authenticated request.
pub fn permit_of(extensions: &Extensions) -> Option<&InFlightPermit> {
    extensions.get::<AuthenticatedRequest>().map(|request| &request.permit)
}

/// Extracts the tenant that calls. The operator, who has no applications, gets 403.
pub struct ByTenant(pub TenantId);

/// Extracts the tenant's permission, which a long request checks again while it runs.
pub struct ByPermission(pub Permission);

/// Rejects all callers but the operator.
pub struct Operator;

/// Extracts whether this server has an operator. Without one, operations of the operator are disabled.
pub struct HasOperator(pub bool);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        Ok(authenticated(parts)?.caller.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for InFlightPermit {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        Ok(authenticated(parts)?.permit.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for HasOperator {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        Ok(Self(authenticated(parts)?.has_operator))
    }
}

impl<S: Sync> FromRequestParts<S> for ByTenant {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        let tenant = authenticated(parts)?.caller.tenant().ok_or_else(tenant_required)?;
        Ok(Self(tenant.id.clone()))
    }
}

impl<S: Sync> FromRequestParts<S> for ByPermission {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        authenticated(parts)?.caller.permission().cloned().map(Self).ok_or_else(|| tenant_required().into())
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        let (code, message) = match authenticated(parts)? {
            AuthenticatedRequest { caller: Caller::Operator, .. } => return Ok(Self),
            AuthenticatedRequest { has_operator: true, .. } => {
                ("admin_required", "this needs the operator's key")
            }
            _ => ("admin_disabled", "this needs the operator's key, and this server has none: set admin.key"),
        };
        Err(Error::new(Kind::Forbidden, code, message).into())
    }
}

fn authenticated(parts: &Parts) -> Result<&AuthenticatedRequest, Error> {
    let missing = || Error::internal("a route that needs the caller is outside of authentication");
    parts.extensions.get().ok_or_else(missing)
}

fn tenant_required() -> Error {
    let message = "the operator's key is for /v1/tenants, /v1/overview, /v1/nodes and /metrics; everything else needs a tenant's key";
    Error::new(Kind::Forbidden, "tenant_required", message)
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
