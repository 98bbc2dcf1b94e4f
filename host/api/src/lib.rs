//! The HTTP API: what callers see. It reads requests, calls the gateway, and writes responses.
//!
//! In the order in which a request passes them:
//! - `observability` with `access_log`, [`log`] and [`telemetry`]: what is recorded of every request
//! - `cross_site`, `auth`, `caller`, `in_flight`: whether a request is let in, and as whom
//! - `body`, `form`, `json`: bodies of requests
//! - `classic`: the three routes of 2012; `v1`: all newer ones; `idempotency`: repeated requests
//! - `reload`: what changes while the server runs
//! - `openapi`, `pages`, `status`, `process`: what describes the server
//! - `response`: the one place where a result becomes a status

mod access_log;
mod auth;
mod body;
mod caller;
mod classic;
mod cross_site;
mod form;
mod idempotency;
mod in_flight;
mod json;
pub mod log;
mod observability;
mod openapi;
mod pages;
mod process;
mod reload;
mod response;
mod response_store;
mod status;
pub mod telemetry;
mod v1;
mod verbatim;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};

use auth::{Authenticated, Authenticator};
use body::BodyLimits;
use cross_site::SiteGuard;
use idempotency::Idempotency;
use observability::{RecordState, Recorded};
use pushlet_gateway::Gateway;
use pushlet_model::error::{Error, Kind};
use pushlet_settings::{CallerConfig, LimitsConfig};
use response::ErrorResponse;
use response_store::ResponseStore;
use tower::layer::layer_fn;

pub use caller::Peer;
pub use in_flight::{InFlightRequests, Refusal, refused};
pub use observability::Observability;
pub use reload::{LiveConfig, ReloadReport};
pub use status::metrics_text;

/// What every handler needs. One pointer: each request has several copies.
#[derive(Clone)]
struct Api(Arc<ApiState>);

struct ApiState {
    gateway: Gateway,
    body_limits: BodyLimits,
    limits: LimitsConfig,
    in_flight: InFlightRequests,
    idempotency: Idempotency,
    observability: Observability,
    documents: openapi::Documents,
    live: LiveConfig,
}

impl Deref for Api {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.0
    }
}

impl Api {
    fn new(
        gateway: Gateway,
        responses: ResponseStore,
        limits: &LimitsConfig,
        in_flight: &InFlightRequests,
        observability: &Observability,
        live: &LiveConfig,
    ) -> Self {
        let body_limits = BodyLimits::from(limits);
        let idempotency = Idempotency::new(responses, body_limits, gateway.fleet().cloned());
        Self(Arc::new(ApiState {
            gateway,
            body_limits,
            limits: limits.clone(),
            in_flight: in_flight.clone(),
            idempotency,
            observability: observability.clone(),
            documents: openapi::Documents::default(),
            live: live.clone(),
        }))
    }
}

/// Returns the routes of the API, and the requests in flight, with which the server waits for all of them to end.
///
/// `callers`: whose requests are let in, in addition to those with a tenant's key.
pub fn router(
    gateway: Gateway,
    limits: &LimitsConfig,
    callers: &CallerConfig,
    observability: &Observability,
) -> (Router, InFlightRequests) {
    router_with(gateway, limits, (callers, &LiveConfig::new(callers)), observability)
}

/// The same, with credentials that can be replaced.
pub fn router_with(
    gateway: Gateway,
    limits: &LimitsConfig,
    (callers, live): (&CallerConfig, &LiveConfig),
    observability: &Observability,
) -> (Router, InFlightRequests) {
    let in_flight = InFlightRequests::at_most(limits.requests);
    let tenants = gateway.tenants().clone();
    let authenticator = Arc::new(Authenticator::new(tenants, live, limits, &in_flight, observability));
    let responses = ResponseStore::open(limits, gateway.answers());
    let api = Api::new(gateway, responses, limits, &in_flight, observability, live);
    let guard = Arc::new(SiteGuard::new(callers));
    let mut guarded = Router::new()
        .route("/register_application", post(classic::register_application))
        .route("/send_notification", post(classic::send_notification))
        .route("/application_feedback", post(classic::application_feedback))
        .route("/v1/status", get(status::show))
        .route("/v1/reload", post(reload::reload))
        .route("/openapi.json", get(openapi::document))
        .merge(v1::routes());
    if !observability.has_metrics_listener() {
        guarded = guarded.route("/metrics", get(status::metrics));
    }
    // The fallbacks are behind authentication too: strangers do not learn which routes there are.
    let guarded = guarded
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(layer_fn(move |route| Authenticated { authenticator: authenticator.clone(), route }));
    let routes = health().merge(pages::routes()).merge(guarded);
    (with_layers(routes, api, observability, Some(guard)), in_flight)
}

/// Returns the routes of the operator's own address: metrics and health, without authentication.
pub fn metrics_router(
    gateway: Gateway,
    limits: &LimitsConfig,
    observability: &Observability,
    in_flight: &InFlightRequests,
) -> Router {
    let responses = ResponseStore::open(limits, None);
    // No route of this listener looks at credentials.
    let live = LiveConfig::new(&CallerConfig::default());
    let api = Api::new(gateway, responses, limits, in_flight, observability, &live);
    let routes = health().route("/metrics", get(status::open_metrics)).fallback(not_found);
    // No site guard: a page can send nothing here, and Prometheus may call this address by any name.
    with_layers(routes, api, observability, None)
}

/// The routes that need no authentication.
fn health() -> Router<Api> {
    Router::new()
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .method_not_allowed_fallback(method_not_allowed)
}

/// Adds what applies to all routes.
fn with_layers(
    routes: Router<Api>,
    api: Api,
    observability: &Observability,
    guard: Option<Arc<SiteGuard>>,
) -> Router {
    let state = Arc::new(RecordState { observability: observability.clone(), guard });
    routes.with_state(api).layer(layer_fn(move |route| Recorded { state: state.clone(), route }))
}

async fn not_found(uri: Uri) -> ErrorResponse {
    let path = uri.path();
    Error::new(Kind::NotFound, "not_found", format!("The requested method was not found: {path}")).into()
}

async fn method_not_allowed(uri: Uri) -> Response {
    let path = uri.path();
    let message = format!("This method is not allowed here, see the Allow header: {path}");
    response::with_status(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message)
}

#[cfg(test)]
mod tests;
