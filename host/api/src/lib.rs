//! The HTTP API: what callers see. It reads requests, asks the gateway, and words the answers.
//!
//! - `cross_site`, `auth`, `wrong_credentials`, `admission`: whether a request is let in, in this order
//! - `form`, `json_body`: bodies of requests; `response`: the one place where a result becomes a status
//! - `classic`: the three routes of 2012; `v1`: everything since; `idempotency`: repeated requests
//! - `openapi`, `console`, `status`, `metrics`: what describes the server
//! - [`log`], [`telemetry`], `request_log`, `watch`: what the server says of its work

mod admission;
mod auth;
mod classic;
mod console;
mod cross_site;
mod detached;
mod form;
mod held;
mod idempotency;
mod json_body;
pub mod log;
mod metrics;
mod openapi;
mod peer;
mod request_log;
mod response;
mod status;
pub mod telemetry;
mod v1;
mod watch;
mod wrong_credentials;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use cross_site::SiteGuard;
use detached::detached;
use idempotency::{Answers, Idempotency};
use pushlet_gateway::Gateway;
use pushlet_model::error::{Error, Kind};
use pushlet_settings::{CallerConfig, LimitsConfig};
use response::ErrorResponse;

pub use admission::{Refusal, UnderWay, refused};
pub use peer::Peer;
pub use watch::Watch;

/// What every handler needs. Cheap to clone.
#[derive(Clone)]
struct Api {
    gateway: Gateway,
    form: form::Bounds,
    limits: Arc<LimitsConfig>,
    under_way: UnderWay,
    idempotency: Idempotency,
    watch: Watch,
    documents: Arc<openapi::Documents>,
}

impl Api {
    fn new(
        gateway: Gateway,
        answers: Answers,
        limits: &LimitsConfig,
        under_way: &UnderWay,
        watch: &Watch,
    ) -> Self {
        let form = form::Bounds::from(limits);
        Self {
            gateway,
            form,
            limits: Arc::new(limits.clone()),
            under_way: under_way.clone(),
            idempotency: Idempotency::new(answers, form),
            watch: watch.clone(),
            documents: Arc::default(),
        }
    }
}

/// The routes of the API, and what tells when all that they started has ended.
///
/// `callers`: whom to let in, beside the tenants' keys.
pub fn router(
    gateway: Gateway,
    limits: &LimitsConfig,
    callers: &CallerConfig,
    watch: &Watch,
) -> (Router, UnderWay) {
    let under_way = UnderWay::at_most(limits.requests);
    let access = auth::Access::new(gateway.tenants().clone(), callers, limits, &under_way, watch);
    let answers = Answers::open(limits, gateway.answers());
    let api = Api::new(gateway, answers, limits, &under_way, watch);
    let guard = Arc::new(SiteGuard::new(callers));
    let guarded = Router::new()
        .route("/register_application", post(classic::register_application))
        .route("/send_notification", post(classic::send_notification))
        .route("/application_feedback", post(classic::application_feedback))
        .route("/v1/status", get(status::show))
        .route("/openapi.json", get(openapi::document))
        .merge(v1::routes())
        .merge(if watch.is_apart() {
            Router::new()
        } else {
            Router::new().route("/metrics", get(metrics::guarded))
        })
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::new(access), auth::check));
    let router = wrapped(
        health().merge(console::routes()).merge(openapi::page()).merge(guarded),
        api,
        watch,
        Some(guard),
    );
    (router, under_way)
}

/// The routes of the operator's own address: metrics and health, for everybody who can reach it.
pub fn watch_router(gateway: Gateway, limits: &LimitsConfig, watch: &Watch, under_way: &UnderWay) -> Router {
    // Nothing is sent here.
    let api = Api::new(gateway, Answers::open(limits, None), limits, under_way, watch);
    let routes = health().route("/metrics", get(metrics::show)).fallback(not_found);
    // No page can send anything here, and Prometheus may know this address by any name.
    wrapped(routes, api, watch, None)
}

/// For everybody.
fn health() -> Router<Api> {
    Router::new()
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .method_not_allowed_fallback(method_not_allowed)
}

/// With what holds for all routes. One layer of several parts: a route's layers are copied for each request, and
/// each copies those inside it.
fn wrapped(routes: Router<Api>, api: Api, watch: &Watch, guard: Option<Arc<SiteGuard>>) -> Router {
    let doorway = request_log::Doorway { watch: watch.clone(), guard };
    routes.with_state(api).layer(
        ServiceBuilder::new()
            .layer(middleware::from_fn_with_state(doorway, request_log::record))
            .layer(CatchPanicLayer::custom(panicked))
            // The bounds of `form` hold, and they are the operator's.
            .layer(DefaultBodyLimit::disable()),
    )
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

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    response::error(Error::internal(format_args!("panic: {text}")))
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
