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

/// The process responds.
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
    /// Seconds since the server started.
    uptime: u64,
    #[serde(flatten)]
    tenant_status: TenantStatus,
}

/// The server is ready.
#[derive(Serialize, ToSchema)]
struct Ready {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    #[serde(flatten)]
    readiness: Readiness,
}

/// Why the server is not ready.
#[derive(Serialize, ToSchema)]
pub(super) struct NotReady<'a> {
    /// Always `not_ready`.
    #[schema(example = "not_ready")]
    error: &'static str,
    message: &'a str,
    #[serde(flatten)]
    readiness: &'a Readiness,
}

/// Check that the server runs
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "Operation",
    responses((status = 200, description = "It runs.", body = Health), Always),
    security(())
)]
pub(super) async fn healthz() -> Response {
    response::json(StatusCode::OK, &Health { status: "ok" })
}

/// Check that the server is ready
///
/// 503 if this server cannot serve any tenant, or cannot store anything, such as while its disk is full. A push service
/// that cannot be reached is not a reason: this server would not recover sooner, and another one would not reach it.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "Operation",
    responses(
        Always,
        (status = 200, description = "It is ready.", body = Ready),
        (status = 503, description = "It is not ready, or is stopping.",
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

/// Show the status of the tenant
///
/// The outcomes of the caller's own pushes since the server started, its providers, and the last failures.
#[utoipa::path(
    get, path = "/v1/status", operation_id = "get_status", tag = "Operation",
    responses((status = 200, description = "The status.", body = ServerStatus), Guarded)
)]
pub(super) async fn show(State(api): State<Api>, ByTenant(tenant): ByTenant) -> Response {
    let tenant_status = api.gateway.tenant_status(&tenant);
    let uptime = api.observability.uptime().as_secs();
    response::json(
        StatusCode::OK,
        &ServerStatus { version: env!("CARGO_PKG_VERSION"), uptime, tenant_status },
    )
}

/// Show all metrics of this server
///
/// In the OpenMetrics text format. Only for the operator, since they are about all tenants: with the operator's key, or
/// as the default tenant if there is no such key. If `metrics.listen` is set, metrics are served there and not here.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "Operation",
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

/// Responds to any caller: for the operator's own address.
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
    registry.register(
        "log_lines_dropped",
        "Lines of the log that were dropped because standard error was too slow",
        dropped,
    );
    if let Some((exported, dropped)) = api.observability.spans() {
        registry.register("spans_exported", "Spans that a collector accepted", ConstCounter::new(exported));
        registry.register("spans_dropped", "Spans that no collector accepted", ConstCounter::new(dropped));
    }
    registry
}
