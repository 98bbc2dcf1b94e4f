//! `/metrics`: all figures of this server, in the OpenMetrics text format that Prometheus reads.

use std::time::Duration;

use crate::response::ErrorResponse;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Api;
use super::auth::{Caller, HasOperator};
use super::openapi::{Guarded, Missing};
use crate::log;
use pushlet_gateway::LimitGauge;
use pushlet_model::error::{Error, Kind};

const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// For requests that no route answers.
const NO_ROUTE: &str = "none";
/// Seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Counts requests. Routes are those of the program, so their number is bounded.
pub(super) struct Meters {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabel, Histogram>,
    wrong_credentials: Family<WrongLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// Whether there were too many from the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WrongLabel {
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

impl Meters {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pushlet");
        let requests = Family::<RequestLabels, Counter>::default();
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let durations = Family::new_with_constructor(histogram);
        registry.register("http_requests", "Requests, by route and status", requests.clone());
        let help = "Seconds from a request's head to its answer's head";
        registry.register("http_request_duration_seconds", help, durations.clone());
        let wrong_credentials = Family::<WrongLabel, Counter>::default();
        let help =
            "Requests with wrong credentials; with status 429 those from addresses with too many of them";
        // Both are there from the start, so that a first refusal is seen as a rise.
        for status in [401, 429] {
            drop(wrong_credentials.get_or_create(&WrongLabel { status }));
        }
        registry.register("wrong_credentials", help, wrong_credentials.clone());
        Self { registry, requests, durations, wrong_credentials }
    }

    /// Counts a request with wrong credentials. `too_many`: of many from one address.
    pub fn wrong_credentials(&self, too_many: bool) {
        let status = if too_many { 429 } else { 401 };
        self.wrong_credentials.get_or_create(&WrongLabel { status }).inc();
    }

    pub fn answered(&self, route: Option<&str>, status: StatusCode, duration: Duration) {
        let route = route.unwrap_or(NO_ROUTE).to_owned();
        self.durations.get_or_create(&RouteLabel { route: route.clone() }).observe(duration.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route, status: status.as_u16() }).inc();
    }
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
pub(super) async fn guarded(
    api: State<Api>,
    caller: Caller,
    HasOperator(there_is_one): HasOperator,
) -> Result<Response, ErrorResponse> {
    let allowed = match caller {
        Caller::Operator => true,
        Caller::Tenant(permission) => permission.tenant().id.is_default() && !there_is_one,
    };
    if !allowed {
        return Err(
            Error::new(Kind::NotFound, "not_found", "The requested method was not found: /metrics").into()
        );
    }
    show(api).await
}

pub(super) async fn show(State(api): State<Api>) -> Result<Response, ErrorResponse> {
    let limits = [
        LimitGauge::new("requests", api.under_way.count(), api.limits.requests),
        LimitGauge::new("connections", api.under_way.connections(), api.limits.connections),
    ];
    let mut text = String::with_capacity(64 << 10);
    api.gateway
        .encode_metrics(&mut text, &limits)
        .and_then(|()| text::encode_registry(&mut text, &api.watch.meters().registry))
        .and_then(|()| text::encode_registry(&mut text, &moment(&api)))
        .and_then(|()| text::encode_eof(&mut text))
        .map_err(Error::internal)?;
    Ok(([(CONTENT_TYPE, FORMAT), (CACHE_CONTROL, "no-store")], text).into_response())
}

fn moment(api: &Api) -> Registry {
    let mut registry = Registry::with_prefix("pushlet");
    let dropped = ConstCounter::new(log::dropped());
    registry.register("log_lines_dropped", "Lines of the log that nobody read in time", dropped);
    if let Some((exported, dropped)) = api.watch.spans() {
        registry.register("spans_exported", "Spans that a collector took", ConstCounter::new(exported));
        registry.register("spans_dropped", "Spans that no collector took", ConstCounter::new(dropped));
    }
    registry
}
