//! The API under `/v1`: JSON in and out, with errors that name the wrong `field`.
//!
//! - `notifications` with its `send_body`, and `stream`: sends; `lines`, `targets`: their targets and results
//! - `respond_async`: sends that outlive their callers; `deliveries`: what became of them
//! - `capture`: what a send did, for a caller that asked for it, and for a tenant that switched it on
//! - `applications`, `feedback`, `providers`, `tenants`, `tenant_keys`, `usage`: what is kept; `operator`: a copy
//!   of it, and who keeps it
//! - `audit`: who changed that
//! - `webhooks`: who hears of events
//! - `extract`: paths and pages

mod applications;
mod audit;
mod capture;
mod deliveries;
mod extract;
mod feedback;
mod lines;
mod notifications;
mod operator;
mod providers;
mod respond_async;
mod send_body;
mod stream;
mod targets;
mod tenant_keys;
mod tenants;
mod usage;
mod webhooks;

use axum::Router;
use axum::routing::{delete, get, post};
use utoipa::OpenApi;

use crate::Api;

pub(crate) use audit::Auditor;

/// The descriptions of the routes.
#[derive(OpenApi)]
#[openapi(
    paths(
        notifications::send,
        stream::send,
        deliveries::list,
        deliveries::show,
        deliveries::results,
        deliveries::cancel,
        applications::list,
        applications::put,
        applications::show,
        applications::delete,
        feedback::show,
        feedback::take,
        feedback::drop,
        applications::list_items,
        applications::create_item,
        applications::show_item,
        applications::delete_item,
        providers::list,
        providers::show,
        providers::put,
        providers::delete,
        providers::activate,
        providers::log,
        capture::put,
        capture::get,
        capture::delete,
        providers::contract,
        tenants::overview,
        tenants::list,
        tenants::put,
        tenants::show,
        tenants::delete,
        usage::show,
        usage::history,
        tenant_keys::create,
        tenant_keys::list,
        tenant_keys::delete,
        operator::nodes,
        audit::list,
        operator::backup,
        webhooks::list,
        webhooks::put,
        webhooks::show,
        webhooks::delete,
        webhooks::attempts,
    ),
    components(schemas(
        stream::StreamHeader,
        stream::ShownResult,
        lines::StreamLine,
        stream::StreamEnd,
        deliveries::ResultsEnd
    ))
)]
pub(super) struct V1Documents;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/applications", get(applications::list))
        .route(
            "/v1/applications/{id}",
            get(applications::show).put(applications::put).delete(applications::delete),
        )
        .route(
            "/v1/applications/{id}/feedback",
            get(feedback::show).post(feedback::take).delete(feedback::drop),
        )
        .route(
            "/v1/applications/{id}/{collection}",
            get(applications::list_items).post(applications::create_item),
        )
        .route(
            "/v1/applications/{id}/{collection}/{item}",
            get(applications::show_item).delete(applications::delete_item),
        )
        .route("/v1/providers", get(providers::list))
        .route("/v1/providers/{name}", get(providers::show).put(providers::put).delete(providers::delete))
        .route("/v1/providers/{name}/activate", post(providers::activate))
        .route("/v1/providers/{name}/log", get(providers::log))
        .route("/v1/providers/{name}/capture", get(capture::get).put(capture::put).delete(capture::delete))
        .route("/v1/contract", get(providers::contract))
        .route("/v1/notifications", post(notifications::send))
        .route("/v1/notifications:stream", post(stream::send))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/deliveries/{id}", get(deliveries::show).delete(deliveries::cancel))
        .route("/v1/deliveries/{id}/results", get(deliveries::results))
        .route("/v1/overview", get(tenants::overview))
        .route("/v1/audit", get(audit::list))
        .route("/v1/backup", get(operator::backup))
        .route("/v1/tenants", get(tenants::list))
        .route("/v1/tenants/{id}", get(tenants::show).put(tenants::put).delete(tenants::delete))
        .route("/v1/tenants/{id}/usage", get(usage::show))
        .route("/v1/tenants/{id}/usage/{by}", get(usage::history))
        .route("/v1/tenants/{id}/keys", get(tenant_keys::list).post(tenant_keys::create))
        .route("/v1/tenants/{id}/keys/{key}", delete(tenant_keys::delete))
        .route("/v1/nodes", get(operator::nodes))
        .route("/v1/webhooks", get(webhooks::list))
        .route("/v1/webhooks/{id}", get(webhooks::show).put(webhooks::put).delete(webhooks::delete))
        .route("/v1/webhooks/{id}/attempts", get(webhooks::attempts))
}

#[cfg(test)]
mod tests;
