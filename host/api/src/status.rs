//! How this server is: for load balancers, and for a tenant's people.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::ByTenant;
use super::openapi::{Always, Guarded};
use super::{Api, response};
use pushlet_gateway::{Readiness, TenantStatus};

/// It runs.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// One tenant's view of this server.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerStatus)]
struct Shown {
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
            content((super::openapi::Unready = "application/json"))),
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
    responses((status = 200, description = "As it is now.", body = Shown), Guarded)
)]
pub(super) async fn show(State(api): State<Api>, ByTenant(tenant): ByTenant) -> Response {
    let tenant_status = api.gateway.tenant_status(&tenant);
    let uptime = api.watch.uptime().as_secs();
    response::json(StatusCode::OK, &Shown { version: env!("CARGO_PKG_VERSION"), uptime, tenant_status })
}
