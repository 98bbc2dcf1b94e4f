//! How this server is: health and readiness for load balancers, the status of a tenant, and metrics in the
//! OpenMetrics text format that Prometheus reads.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::caller::{ByTenant, Caller, HasOperator};
use crate::log;
use crate::openapi::schemas::{Always, Guarded, Missing, Unready};
use crate::response::{self, ErrorResponse};
use pushlet_gateway::{LimitGauge, Readiness, TenantStatus};
use pushlet_model::error::{Error, Kind};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// It runs.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// One tenant's view of this server.
#[derive(Serialize, ToSchema)]
struct ServerStatus {
    version: &'static str,
    /// Seconds since the server began.
    uptime: u64,
    #[serde(flatten)]
    tenant_status: TenantStatus,
}

/// What is told of readiness.
#[derive(Serialize, ToSchema)]
struct Ready {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    #[serde(flatten)]
    readiness: Readiness,
}

/// Why it is not ready, and what it sees.
#[derive(Serialize, ToSchema)]
pub(super) struct NotReady<'a> {
    /// Always `not_ready`.
    #[schema(example = "not_ready")]
    error: &'static str,
    message: &'a str,
    #[serde(flatten)]
    readiness: &'a Readiness,
}

/// Does it run?
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    tag = "Operation",
    responses((status = 200, description = "It runs.", body = Health), Always),
    security(())
)]
pub(super) async fn healthz() -> Response {
    response::json(StatusCode::OK, &Health { status: "ok" })
}

/// Can it do its work?
///
/// 503 where this server can do nothing for anybody, or keep nothing, as while its disk is full. A push service that can not be reached is no reason: this
/// server would not be ready again any sooner, and another one reaches it no better.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "Operation",
    responses(
        Always,
        (status = 200, description = "It can.", body = Ready),
        (status = 503, description = "It can not, or is stopping.",
            content((Unready = "application/json"))),
    ),
    security(())
)]
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let readiness = api.gateway.readiness().await;
    let Some(reason) = &readiness.reason else {
        return response::json(StatusCode::OK, &Ready { status: "ok", readiness });
    };
    let body = NotReady { error: "not_ready", message: reason, readiness: &readiness };
    response::json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// What this tenant's pushes came to
///
/// The caller's own outcomes since the server began, providers, and last failures.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "get_status",
    tag = "Operation",
    responses((status = 200, description = "As it is now.", body = ServerStatus), Guarded)
)]
pub(super) async fn show(State(api): State<Api>, ByTenant(tenant): ByTenant) -> Response {
    let tenant_status = api.gateway.tenant_status(&tenant);
    let uptime = api.observability.uptime().as_secs();
    response::json(
        StatusCode::OK,
        &ServerStatus { version: env!("CARGO_PKG_VERSION"), uptime, tenant_status },
    )
}

/// All figures of this server
///
/// In the OpenMetrics text format. For the operator alone, since it tells of all tenants: whoever has the operator's
/// key, or the default tenant where there is no such key. Where `metrics.listen` is set, it is served there and
/// not here.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "Operation",
    responses(
        (status = 200, description = "OpenMetrics.", body = String, content_type = "application/openmetrics-text"),
        Missing, Guarded
    )
)]
pub(super) async fn metrics(
    api: State<Api>,
    caller: Caller,
    HasOperator(has_operator): HasOperator,
) -> Result<Response, ErrorResponse> {
    let is_allowed = match caller {
        Caller::Operator => true,
        Caller::Tenant(permission) => permission.tenant().id.is_default() && !has_operator,
    };
    if !is_allowed {
        // As an unknown route: other tenants do not learn that there are metrics.
        let message = "The requested method was not found: /metrics";
        return Err(Error::new(Kind::NotFound, "not_found", message).into());
    }
    open_metrics(api).await
}

/// Responds without asking who calls: for the operator's own address.
pub(super) async fn open_metrics(State(api): State<Api>) -> Result<Response, ErrorResponse> {
    let limits = [
        LimitGauge::new("requests", api.in_flight.count(), api.limits.requests),
        LimitGauge::new("connections", api.in_flight.connections(), api.limits.connections),
    ];
    let mut text = String::with_capacity(64 << 10);
    api.gateway
        .encode_metrics(&mut text, &limits)
        .and_then(|()| text::encode_registry(&mut text, api.observability.meters().registry()))
        .and_then(|()| text::encode_registry(&mut text, &process_counters(&api)))
        .and_then(|()| text::encode_eof(&mut text))
        .map_err(Error::internal)?;
    Ok(([(CONTENT_TYPE, OPENMETRICS), (CACHE_CONTROL, "no-store")], text).into_response())
}

fn process_counters(api: &Api) -> Registry {
    let mut registry = Registry::with_prefix("pushlet");
    let dropped = ConstCounter::new(log::dropped());
    registry.register("log_lines_dropped", "Lines of the log that nobody read in time", dropped);
    if let Some((exported, dropped)) = api.observability.spans() {
        registry.register("spans_exported", "Spans that a collector took", ConstCounter::new(exported));
        registry.register("spans_dropped", "Spans that no collector took", ConstCounter::new(dropped));
    }
    registry
}
