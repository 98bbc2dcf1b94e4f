//! How this server is: for load balancers, and for a tenant's people.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::{Api, answer};
use crate::gateway::{Readiness, Standing};
use crate::tenant::TenantId;

/// The answer of `/v1/status`.
#[derive(Serialize)]
struct Shown {
    version: &'static str,
    /// Seconds since the server began.
    uptime: u64,
    #[serde(flatten)]
    standing: Standing,
}

/// What is told of readiness.
#[derive(Serialize)]
struct Ready {
    status: &'static str,
    #[serde(flatten)]
    readiness: Readiness,
}

pub(super) async fn healthz() -> Response {
    answer::json(StatusCode::OK, &json!({"status": "ok"}))
}

/// 503 where this server can do nothing for anybody. A push service that can not be reached is no reason: this
/// server would not be ready again any sooner, and another one reaches it no better.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let readiness = api.backend.readiness();
    let Some(reason) = &readiness.reason else {
        return answer::json(StatusCode::OK, &Ready { status: "ok", readiness });
    };
    let body = json!({
        "error": "not_ready",
        "message": reason,
        "providers": readiness.providers,
        "quarantined": readiness.quarantined,
        "circuits": readiness.circuits,
    });
    answer::json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// The caller's own outcomes, providers and last failures.
pub(super) async fn show(State(api): State<Api>, Extension(tenant): Extension<TenantId>) -> Response {
    let standing = api.backend.standing(&tenant);
    let uptime = api.watch.uptime().as_secs();
    answer::json(StatusCode::OK, &Shown { version: env!("CARGO_PKG_VERSION"), uptime, standing })
}
