//! Authentication: HTTP Basic (RFC 7617) and bearer keys (RFC 6750), and the delay for wrong credentials.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tower::Service;
use zeroize::Zeroizing;

use crate::access_log::RequestLog;
use crate::caller::{AuthenticatedRequest, Caller, Peer, counted_as};
use crate::in_flight::{self, InFlightPermit, InFlightRequests, until_written};
use crate::observability::Observability;
use crate::reload::LiveConfig;
use crate::response;
use pushlet_gateway::tenants::{Permission, Tenants, looks_like_a_key};
use pushlet_model::digest::sha256;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{Scope, TenantId};
use pushlet_settings::LimitsConfig;

/// Checks credentials.
///
/// Without a login and an operator's key, a caller without credentials is the default tenant. With either of them,
/// every caller needs credentials. Tenants' keys are accepted in both cases.
pub struct Authenticator {
    tenants: Arc<Tenants>,
    live: LiveConfig,
    in_flight: InFlightRequests,
    wrong: WrongCredentials,
    observability: Observability,
}

/// The credentials of a request.
enum Credentials {
    /// `username:password`
    Basic(Zeroizing<Vec<u8>>),
    Bearer(Zeroizing<String>),
    /// There is no `Authorization` header, more than one, or one that cannot be read.
    Missing,
}

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A route that needs credentials: passes the request on with its [`AuthenticatedRequest`], or responds 401, or that a
/// limit is reached. No function in axum's layer, which costs every request several allocations.
#[derive(Clone)]
pub struct Authenticated<S> {
    pub authenticator: Arc<Authenticator>,
    pub route: S,
}

/// The response to a request that was let in, or was not.
pub enum AuthResponse<F> {
    Admitted(F, Option<InFlightPermit>),
    Turned(BoxFuture<'static, Response>),
}

impl<S> Service<Request> for Authenticated<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = AuthResponse<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> AuthResponse<S::Future> {
        match self.authenticator.admit(request) {
            Admission::Admitted(request, permit) => {
                AuthResponse::Admitted(self.route.call(request), Some(permit))
            }
            Admission::Refused(error) => AuthResponse::Turned(ready(response::error(error)).boxed()),
            Admission::Denied(guessing) => {
                let authenticator = self.authenticator.clone();
                AuthResponse::Turned(async move { authenticator.deny(guessing).await }.boxed())
            }
        }
    }
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for AuthResponse<F> {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Admitted(route, permit) => {
                let Ok(response) = std::task::ready!(route.poll_unpin(context));
                // A caller that does not read its response keeps its permit, or it could pile up responses in memory.
                Poll::Ready(Ok(match permit.take() {
                    Some(permit) => until_written(response, permit),
                    None => response,
                }))
            }
            Self::Turned(response) => response.poll_unpin(context).map(Ok),
        }
    }
}

/// What authentication decided about a request.
enum Admission {
    Admitted(Request, InFlightPermit),
    Refused(Error),
    /// Its credentials are wrong or missing; with the address of a caller that may be guessing.
    Denied(Option<IpAddr>),
}

/// Returns the scopes that a request needs one of. What is not known to need less needs `manage`.
fn scopes(method: &Method, path: &str) -> &'static [Scope] {
    let is_feedback = || {
        let rest = path.strip_prefix("/v1/applications/").and_then(|rest| rest.strip_suffix("/feedback"));
        path == "/application_feedback" || rest.is_some_and(|id| !id.is_empty() && !id.contains('/'))
    };
    let is_delivery = || path == "/v1/deliveries" || path.starts_with("/v1/deliveries/");
    let is_look = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/send_notification" | "/v1/notifications" | "/v1/notifications:stream" => &[Scope::Send],
        _ if is_feedback() || is_delivery() => {
            if is_look {
                &[Scope::Send, Scope::Read]
            } else {
                &[Scope::Send]
            }
        }
        // Records of sends have texts and tokens in them.
        _ if is_look && !path.ends_with("/capture") => &[Scope::Read],
        _ => &[Scope::Manage],
    }
}

impl Authenticator {
    pub fn new(
        tenants: Arc<Tenants>,
        live: &LiveConfig,
        limits: &LimitsConfig,
        in_flight: &InFlightRequests,
        observability: &Observability,
    ) -> Self {
        Self {
            tenants,
            live: live.clone(),
            in_flight: in_flight.clone(),
            wrong: WrongCredentials::new(limits.wrong_credentials),
            observability: observability.clone(),
        }
    }

    fn admit(&self, mut request: Request) -> Admission {
        let credentials = Credentials::of(request.headers());
        let peer = request.extensions().get::<Arc<Peer>>();
        let Some(caller) = self.caller(&credentials) else {
            let peer = peer.filter(|_| !matches!(credentials, Credentials::Missing));
            return Admission::Denied(peer.map(|peer| peer.client(request.headers())));
        };
        // The secrets are wiped now, and not after a stream that runs for hours.
        drop(credentials);
        if let Some(peer) = peer {
            peer.authenticate();
        }
        if let Some(log) = request.extensions().get::<RequestLog>() {
            log.called_by(&caller);
        }
        if let Caller::Tenant(permission) = &caller
            && let Err(error) = permission.allows(scopes(request.method(), request.uri().path()))
        {
            return Admission::Refused(error);
        }
        match self.permit(&caller, &request) {
            Ok(permit) => {
                let has_operator = self.live.callers().admin.is_some();
                let authenticated = AuthenticatedRequest { caller, permit: permit.clone(), has_operator };
                request.extensions_mut().insert(authenticated);
                Admission::Admitted(request, permit)
            }
            Err(error) => Admission::Refused(error),
        }
    }

    /// Takes the caller's permit among the requests in flight.
    fn permit(&self, caller: &Caller, request: &Request) -> Result<InFlightPermit, Error> {
        // Without a permit of the tenant, whose own requests must not hide how the server is.
        if in_flight::is_reserved(request.uri().path()) {
            return self.in_flight.begin_reserved();
        }
        let tenant = match caller {
            Caller::Operator => None,
            Caller::Tenant(permission) => Some(self.tenants.acquire_request_permit(permission.tenant())?),
        };
        self.in_flight.begin(tenant)
    }

    fn caller(&self, credentials: &Credentials) -> Option<Caller> {
        let known = match credentials {
            Credentials::Bearer(key) => self.bearer(key),
            Credentials::Basic(pair) => self.pair(pair),
            Credentials::Missing => None,
        };
        let is_open = self.live.callers().are_open();
        // A key that was revoked must not make its holder the default tenant.
        known.or_else(|| (is_open && !credentials.hold_key()).then(|| self.default_tenant()).flatten())
    }

    /// Responds 401, or 429 after too many wrong credentials. `guessing`: the address of a caller that sent
    /// credentials.
    async fn deny(&self, guessing: Option<IpAddr>) -> Response {
        let denied =
            || response::error(Error::new(Kind::AccessDenied, "access_denied", "invalid credentials"));
        let Some(address) = guessing else { return denied() };
        let retry_after = self.wrong.count(address).await;
        self.observability.meters().wrong_credentials(retry_after.is_some());
        let Some(retry_after) = retry_after else { return denied() };
        let message = "too many wrong credentials from this address, the right ones still work";
        response::error(Error::new(Kind::Throttled, "too_many_wrong_credentials", message).after(retry_after))
    }

    fn bearer(&self, key: &str) -> Option<Caller> {
        if let Some(admin) = &self.live.callers().admin
            && bool::from(sha256(key.as_bytes()).ct_eq(admin))
        {
            return Some(Caller::Operator);
        }
        self.tenants.by_key(key).map(Caller::Tenant)
    }

    /// The configured name and password, or a tenant's id and key.
    fn pair(&self, pair: &[u8]) -> Option<Caller> {
        let (username, password) = split(pair)?;
        if self.live.callers().login.as_ref().is_some_and(|login| login.matches(username, password)) {
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

impl Credentials {
    fn of(headers: &HeaderMap) -> Self {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(header), None) = (all.next(), all.next()) else { return Self::Missing };
        let Some((scheme, token)) = header.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return Self::Missing;
        };
        let token = token.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(Zeroizing::new(token.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::Missing;
        }
        BASE64.decode(token).map_or(Self::Missing, |pair| Self::Basic(Zeroizing::new(pair)))
    }

    fn hold_key(&self) -> bool {
        match self {
            Self::Bearer(key) => looks_like_a_key(key.as_bytes()),
            Self::Basic(pair) => split(pair).is_some_and(|(_, password)| looks_like_a_key(password)),
            Self::Missing => false,
        }
    }
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some((pair.get(..colon)?, pair.get(colon + 1..)?))
}

/// The time in which wrong credentials are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses counted in one window. When there are more the window ends early, so that an attacker with many
/// addresses does not cost memory.
const MOST_ADDRESSES: usize = 10_000;
/// How long the response to one credential too many is delayed.
const DELAY: Duration = Duration::from_secs(1);
/// Responses delayed at a time. Further ones are sent at once: delayed ones must not cost more than they save.
const MOST_DELAYED: usize = 256;

/// Counts wrong credentials by address, in the current window and the one before.
struct WrongCredentials {
    /// From one address in a window.
    max: u32,
    windows: Mutex<Windows>,
    delayed: Semaphore,
}

struct Windows {
    began: Instant,
    current: HashMap<IpAddr, u32>,
    previous: HashMap<IpAddr, u32>,
}

impl WrongCredentials {
    fn new(max: u32) -> Self {
        let windows = Windows { began: Instant::now(), current: HashMap::new(), previous: HashMap::new() };
        Self { max, windows: Mutex::new(windows), delayed: Semaphore::new(MOST_DELAYED) }
    }

    /// Counts one from this address. If there were too many, waits, and returns when to try again.
    async fn count(&self, address: IpAddr) -> Option<Duration> {
        let retry_after = self.add(counted_as(address))?;
        if let Ok(_permit) = self.delayed.try_acquire() {
            sleep(DELAY).await;
        }
        Some(retry_after)
    }

    /// Returns when to try again, if there were too many.
    fn add(&self, address: IpAddr) -> Option<Duration> {
        let mut windows = self.windows.lock();
        windows.turn(Instant::now());
        let before = windows.previous.get(&address).copied().unwrap_or(0);
        let count = windows.current.entry(address).or_insert(0);
        *count = count.saturating_add(1);
        (before.saturating_add(*count) > self.max).then_some(WINDOW)
    }
}

impl Windows {
    /// Begins the next window if the current one is over.
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age < WINDOW && self.current.len() < MOST_ADDRESSES {
            return;
        }
        self.previous = std::mem::take(&mut self.current);
        if age >= 2 * WINDOW {
            self.previous.clear();
        }
        self.began = now;
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
