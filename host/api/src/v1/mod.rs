//! The API under `/v1`: JSON in and out, with errors that name the wrong `field`.
//!
//! - `notifications` with its `send_body`, and `stream`: sends; `targets`: their targets and results
//! - `applications`, `providers`, `tenants`, `tenant_keys`: what is kept
//! - `extract`: paths and pages

mod applications;
mod extract;
mod notifications;
mod providers;
mod send_body;
mod stream;
mod targets;
mod tenant_keys;
mod tenants;

use axum::Router;
use axum::routing::{delete, get, post};
use utoipa::OpenApi;

use crate::Api;

/// The descriptions of the routes.
#[derive(OpenApi)]
#[openapi(
    paths(
        notifications::send,
        stream::send,
        applications::list,
        applications::put,
        applications::show,
        applications::delete,
        applications::show_feedback,
        applications::take_feedback,
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
        tenants::list,
        tenants::put,
        tenants::show,
        tenants::delete,
        tenants::usage,
        tenant_keys::create,
        tenant_keys::list,
        tenant_keys::delete,
    ),
    components(schemas(stream::StreamHeader, stream::StreamLine, stream::StreamEnd))
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
            get(applications::show_feedback).post(applications::take_feedback),
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
        .route("/v1/notifications", post(notifications::send))
        .route("/v1/notifications:stream", post(stream::send))
        .route("/v1/tenants", get(tenants::list))
        .route("/v1/tenants/{id}", get(tenants::show).put(tenants::put).delete(tenants::delete))
        .route("/v1/tenants/{id}/usage", get(tenants::usage))
        .route("/v1/tenants/{id}/keys", get(tenant_keys::list).post(tenant_keys::create))
        .route("/v1/tenants/{id}/keys/{key}", delete(tenant_keys::delete))
}

#[cfg(test)]
mod tests;
