//! How this server is: health and readiness for load balancers, the status of a tenant, and metrics in the
//! OpenMetrics text format that Prometheus reads.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Api;
use crate::caller::{ByTenant, Caller, HasOperator};
use crate::in_flight::InFlightRequests;
use crate::observability::Observability;
use crate::openapi::schemas::{Always, Guarded, Missing, Unready};
use crate::response::{self, ErrorResponse, V1Error};
use crate::{log, process};
use pushlet_gateway::{Gateway, LimitGauge, Readiness, StatusQuery, TenantStatus};
use pushlet_model::error::{Error, Kind};
use pushlet_settings::LimitsConfig;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What scrapers and people get who do not ask for it.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

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
    /// `not_ready`, or `stopping` from the signal to stop on.
    #[schema(example = "not_ready")]
    error: &'static str,
    message: &'a str,
    #[serde(flatten)]
    readiness: &'a Readiness,
}

/// Check that the server runs
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "Health",
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
    get, path = "/readyz", operation_id = "readyz", tag = "Health",
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
    let (error, message) = match &readiness.reason {
        _ if api.in_flight.is_leaving() => ("stopping", "this server is stopping, try another"),
        Some(reason) => ("not_ready", reason.as_str()),
        None => return response::json(StatusCode::OK, &Ready { status: "ok", readiness }),
    };
    let body = NotReady { error, message, readiness: &readiness };
    response::json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// Which part of the status is wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusParameters {
    /// Only what is of this application.
    application: Option<String>,
    /// `false` leaves out the counts of each application, of which there may be many.
    applications: Option<bool>,
}

/// Show the status of the tenant
///
/// The outcomes of the caller's own pushes in the last hour, by minute, and since the server started; its providers,
/// the last failures, and how often each reason occurred.
#[utoipa::path(
    get, path = "/v1/status", operation_id = "get_status", tag = "Status and metrics",
    params(StatusParameters),
    responses((status = 200, description = "The status.", body = ServerStatus), Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    parameters: Result<Query<StatusParameters>, QueryRejection>,
) -> Result<Response, V1Error> {
    let parameters =
        parameters.map_err(|error| Error::new(Kind::Invalid, "invalid_query", error.body_text()))?;
    let StatusParameters { application, applications } = parameters.0;
    let query = StatusQuery { application, without_applications: applications == Some(false) };
    let tenant_status = api.gateway.tenant_status(&tenant, &query)?;
    let uptime = api.observability.uptime().as_secs();
    let status = ServerStatus { version: env!("CARGO_PKG_VERSION"), uptime, tenant_status };
    Ok(response::json(StatusCode::OK, &status))
}

/// Show all metrics of this server
///
/// In the OpenMetrics text format if `Accept` names it, otherwise in the older text format of Prometheus. Only for the
/// operator, since they are about all tenants: with the operator's key, or as the default tenant if there is no such
/// key. If `metrics.listen` is set, metrics are served there and not here.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "Status and metrics",
    responses(
        (status = 200, description = "All metrics.", content(
            (String = "text/plain"),
            (String = "application/openmetrics-text"),
        )),
        Missing, Guarded
    )
)]
pub(super) async fn metrics(
    api: State<Api>,
    caller: Caller,
    HasOperator(has_operator): HasOperator,
    headers: HeaderMap,
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
    open_metrics(api, headers).await
}

/// Responds to any caller: for the operator's own address.
pub(super) async fn open_metrics(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Response, ErrorResponse> {
    let text = metrics_text(&api.gateway, &api.limits, &api.observability, &api.in_flight)?;
    let accepts = headers.get(ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    let (content_type, text) = match accepts.contains("application/openmetrics-text") {
        true => (OPENMETRICS, text),
        false => (TEXT_FORMAT, process::older_format(&text)),
    };
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store"), (VARY, "accept")];
    Ok((headers, text).into_response())
}

/// Returns all metrics of this server in the OpenMetrics text format.
pub fn metrics_text(
    gateway: &Gateway,
    limits: &LimitsConfig,
    observability: &Observability,
    in_flight: &InFlightRequests,
) -> Result<String, Error> {
    let limits = [
        LimitGauge::new("requests", in_flight.count(), limits.requests),
        LimitGauge::new("connections", in_flight.connections(), limits.connections),
    ];
    let mut text = String::with_capacity(64 << 10);
    gateway
        .encode_metrics(&mut text, &limits)
        .and_then(|()| text::encode_registry(&mut text, observability.meters().registry()))
        .and_then(|()| text::encode_registry(&mut text, &process_counters(observability)))
        .and_then(|()| text::encode_registry(&mut text, &process::usage()))
        .and_then(|()| text::encode_eof(&mut text))
        .map_err(Error::internal)?;
    Ok(text)
}

fn process_counters(observability: &Observability) -> Registry {
    let mut registry = Registry::with_prefix("pushlet");
    process::register_build(&mut registry);
    let dropped = ConstCounter::new(log::dropped());
    registry.register(
        "log_lines_dropped",
        "Lines of the log that were dropped because standard error was too slow",
        dropped,
    );
    if let Some(end) = observability.certificate_end() {
        let help = "When the certificate that callers are shown ends, since the Unix epoch";
        registry.register("server_certificate_not_after_seconds", help, ConstGauge::new(end as f64));
    }
    let telemetry = observability.telemetry();
    if let Some(tracer) = telemetry.and_then(|telemetry| telemetry.tracer.as_ref()) {
        let (exported, dropped) = tracer.queue().exported_and_dropped();
        registry.register("spans_exported", "Spans that a collector accepted", ConstCounter::new(exported));
        registry.register("spans_dropped", "Spans that no collector accepted", ConstCounter::new(dropped));
    }
    if let Some(records) = telemetry.and_then(|telemetry| telemetry.logs.as_ref()) {
        let (exported, dropped) = records.exported_and_dropped();
        let help = "Lines of the log that a collector accepted";
        registry.register("log_records_exported", help, ConstCounter::new(exported));
        let help = "Lines of the log that no collector accepted";
        registry.register("log_records_dropped", help, ConstCounter::new(dropped));
    }
    registry
}
