//! Who may call, and as whom: HTTP Basic authentication (RFC 7617) and bearer keys (RFC 6750).

use std::net::IpAddr;
use std::sync::Arc;

use crate::response::ErrorResponse;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::admission::{Place, UnderWay};
use super::held::until_written;
use super::peer::Peer;
use super::watch::Watch;
use super::wrong_credentials::WrongCredentials;
use super::{admission, response};
use pushlet_gateway::tenants::{Permission, Tenant, Tenants, looks_like_a_key};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_settings::{CallerConfig, LimitsConfig, Login};

/// Whom to let in.
///
/// Without a login and an operator's key everybody is the default tenant, and may still show a tenant's key;
/// with either of them nobody is let in who shows nothing.
pub struct Access {
    tenants: Arc<Tenants>,
    login: Option<Expected>,
    admin: Option<[u8; 32]>,
    under_way: UnderWay,
    wrong: WrongCredentials,
    watch: Watch,
}

/// Who calls.
#[derive(Clone)]
pub enum Caller {
    /// Who has the operator's key. It is no tenant.
    Operator,
    Tenant(Permission),
}

/// What is known of a request that was let in.
#[derive(Clone)]
struct Admitted {
    caller: Caller,
    place: Place,
    has_operator: bool,
}

/// The tenant that calls. The operator, who has no applications, is answered 403.
pub struct ByTenant(pub TenantId);

/// The same with what it was let in by, for a request that goes on for long.
pub struct Allowed(pub Permission);

/// Lets the request through if it is the operator's.
pub struct Operator;

/// Is there an operator? Else what only the operator may do can not be done at all.
pub struct HasOperator(pub bool);

/// Digests have one length, so that comparing them tells nothing about the length of what they are of.
struct Expected {
    username: [u8; 32],
    password: [u8; 32],
}

/// What a request shows.
enum Shown {
    /// `username:password`
    Basic(Zeroizing<Vec<u8>>),
    Bearer(Zeroizing<String>),
    /// No such header, more than one, or one that can not be read.
    Nothing,
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Access {
    pub fn new(
        tenants: Arc<Tenants>,
        callers: &CallerConfig,
        limits: &LimitsConfig,
        under_way: &UnderWay,
        watch: &Watch,
    ) -> Self {
        let expected = |login: &Login| Expected {
            username: sha256(login.username.as_bytes()),
            password: sha256(login.password.reveal().as_bytes()),
        };
        Self {
            tenants,
            login: callers.login.as_ref().map(expected),
            admin: callers.admin.as_ref().map(|key| sha256(key.reveal().as_bytes())),
            under_way: under_way.clone(),
            wrong: WrongCredentials::new(limits.wrong_credentials),
            watch: watch.clone(),
        }
    }

    /// The caller's place among the requests under way, or what the limits say.
    fn place(&self, caller: &Caller, request: &Request) -> Result<Place, Error> {
        if admission::is_kept_free_for(request.uri().path()) {
            return self.under_way.begin_kept_free();
        }
        let own = match caller {
            Caller::Operator => None,
            Caller::Tenant(permission) => Some(self.tenants.acquire_request_permit(permission.tenant())?),
        };
        self.under_way.begin(own)
    }

    fn caller(&self, shown: &Shown) -> Option<Caller> {
        let known = match shown {
            Shown::Bearer(key) => self.bearer(key),
            Shown::Basic(pair) => self.pair(pair),
            Shown::Nothing => None,
        };
        let is_open = self.login.is_none() && self.admin.is_none();
        // A key that is not good any more must not open another door.
        known.or_else(|| (is_open && !shown.holds_key()).then(|| self.default_tenant()).flatten())
    }

    /// What somebody is answered who shows nothing that is right: 401, or 429 if there was too much of it.
    /// `guessing`: the address of one who showed something.
    async fn refuse(&self, guessing: Option<IpAddr>) -> Response {
        let denied =
            || response::error(Error::new(Kind::AccessDenied, "access_denied", "invalid credentials"));
        let Some(address) = guessing else { return denied() };
        let retry_after = self.wrong.count(address).await;
        self.watch.meters().wrong_credentials(retry_after.is_some());
        let Some(retry_after) = retry_after else { return denied() };
        let message = "too many wrong credentials from this address, the right ones still work";
        response::error(Error::new(Kind::Throttled, "too_many_wrong_credentials", message).after(retry_after))
    }

    fn bearer(&self, key: &str) -> Option<Caller> {
        if let Some(admin) = &self.admin
            && bool::from(sha256(key.as_bytes()).ct_eq(admin))
        {
            return Some(Caller::Operator);
        }
        self.tenants.by_key(key).map(Caller::Tenant)
    }

    /// The configured name and password, or a tenant's id and key.
    fn pair(&self, pair: &[u8]) -> Option<Caller> {
        let (username, password) = split(pair)?;
        if self.login.as_ref().is_some_and(|login| login.matches(username, password)) {
            return self.default_tenant();
        }
        let permission = self.tenants.by_key(std::str::from_utf8(password).ok()?)?;
        let is_its_own = permission.tenant().id.as_str().as_bytes() == username;
        is_its_own.then_some(Caller::Tenant(permission))
    }

    fn default_tenant(&self) -> Option<Caller> {
        let tenant = self.tenants.get(&TenantId::default_tenant()).ok()?;
        Some(Caller::Tenant(Permission::without_key(tenant)))
    }
}

impl Expected {
    fn matches(&self, username: &[u8], password: &[u8]) -> bool {
        let username = sha256(username).ct_eq(&self.username);
        let password = sha256(password).ct_eq(&self.password);
        (username & password).into()
    }
}

impl Shown {
    fn by(headers: &HeaderMap) -> Self {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(header), None) = (all.next(), all.next()) else { return Self::Nothing };
        let Some((scheme, token)) = header.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return Self::Nothing;
        };
        let token = token.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(Zeroizing::new(token.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::Nothing;
        }
        BASE64.decode(token).map_or(Self::Nothing, |pair| Self::Basic(Zeroizing::new(pair)))
    }

    fn holds_key(&self) -> bool {
        match self {
            Self::Bearer(key) => looks_like_a_key(key.as_bytes()),
            Self::Basic(pair) => split(pair).is_some_and(|(_, password)| looks_like_a_key(password)),
            Self::Nothing => false,
        }
    }
}

/// Lets the request through with its [`Caller`] and its [`Place`], or answers 401, or what the limits say.
pub async fn check(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let shown = Shown::by(request.headers());
    let peer = request.extensions().get::<Arc<Peer>>();
    let Some(caller) = access.caller(&shown) else {
        let peer = peer.filter(|_| !matches!(shown, Shown::Nothing));
        return access.refuse(peer.map(|peer| peer.client(request.headers()))).await;
    };
    drop(shown);
    if let Some(peer) = peer {
        peer.authenticate();
    }
    let tenant = caller.tenant().map(|tenant| tenant.id.clone());
    let mut response = match access.place(&caller, &request) {
        Ok(place) => {
            let has_operator = access.admin.is_some();
            request.extensions_mut().insert(Admitted { caller, place: place.clone(), has_operator });
            let response = next.run(request).await;
            // An answer that nobody reads is a request that has not ended.
            until_written(response, place)
        }
        Err(error) => response::error(error),
    };
    if let Some(tenant) = tenant {
        // For the log.
        response.extensions_mut().insert(tenant);
    }
    response
}

/// The place of a request that was let in.
pub fn place_of(extensions: &Extensions) -> Option<&Place> {
    extensions.get::<Admitted>().map(|admitted| &admitted.place)
}

impl Caller {
    fn tenant(&self) -> Option<&Tenant> {
        self.permission().map(|permission| &**permission.tenant())
    }

    fn permission(&self) -> Option<&Permission> {
        match self {
            Self::Operator => None,
            Self::Tenant(permission) => Some(permission),
        }
    }
}

impl Admitted {
    fn of(parts: &Parts) -> Result<&Self, Error> {
        parts.extensions.get().ok_or_else(|| Error::internal("a route that asks who calls is not guarded"))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        Ok(Admitted::of(parts)?.caller.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for Place {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        Ok(Admitted::of(parts)?.place.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for HasOperator {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        Ok(Self(Admitted::of(parts)?.has_operator))
    }
}

impl<S: Sync> FromRequestParts<S> for ByTenant {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        let tenant = Admitted::of(parts)?.caller.tenant().ok_or_else(tenant_required)?;
        Ok(Self(tenant.id.clone()))
    }
}

impl<S: Sync> FromRequestParts<S> for Allowed {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        Admitted::of(parts)?.caller.permission().cloned().map(Self).ok_or_else(|| tenant_required().into())
    }
}

fn tenant_required() -> Error {
    let message = "the operator's key is for /v1/tenants and /metrics; everything else needs a tenant's key";
    Error::new(Kind::Forbidden, "tenant_required", message)
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        let (code, message) = match Admitted::of(parts)? {
            Admitted { caller: Caller::Operator, .. } => return Ok(Self),
            Admitted { has_operator: true, .. } => ("admin_required", "this needs the operator's key"),
            _ => ("admin_disabled", "this needs the operator's key, and this server has none: set admin.key"),
        };
        Err(Error::new(Kind::Forbidden, code, message).into())
    }
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some((pair.get(..colon)?, pair.get(colon + 1..)?))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut output = [0; 32];
    output.copy_from_slice(digest(&SHA256, bytes).as_ref());
    output
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
