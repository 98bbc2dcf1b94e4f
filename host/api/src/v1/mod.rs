//! The API under `/v1`: JSON, the same errors as everywhere with the wrong `field` named.

mod applications;
mod lines;
mod management;
mod notifications;
mod object;
mod page;
mod providers;
mod request;
mod result;
mod segments;
mod stream;
mod target;
mod tenants;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{delete, get, post};
use utoipa::OpenApi;

use super::json_body::JsonBody;
use super::{Api, auth, form, response};
use pushlet_model::error::{Error, Kind};

/// The documents of the routes.
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
        management::list,
        management::create,
        management::read,
        management::delete,
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
        tenants::add_key,
        tenants::list_keys,
        tenants::delete_key,
    ),
    components(schemas(stream::StreamHeader, stream::StreamLine, stream::End))
)]
pub(super) struct Documents;

/// The routes, to be merged with the others.
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
        .route("/v1/applications/{id}/{collection}", get(management::list).post(management::create))
        .route("/v1/applications/{id}/{collection}/{item}", get(management::read).delete(management::delete))
        .route("/v1/providers", get(providers::list))
        .route("/v1/providers/{name}", get(providers::show).put(providers::put).delete(providers::delete))
        .route("/v1/providers/{name}/activate", post(providers::activate))
        .route("/v1/providers/{name}/log", get(providers::log))
        .route("/v1/notifications", post(notifications::send))
        .route("/v1/notifications:stream", post(stream::send))
        .route("/v1/tenants", get(tenants::list))
        .route("/v1/tenants/{id}", get(tenants::show).put(tenants::put).delete(tenants::delete))
        .route("/v1/tenants/{id}/usage", get(tenants::usage))
        .route("/v1/tenants/{id}/keys", get(tenants::list_keys).post(tenants::add_key))
        .route("/v1/tenants/{id}/keys/{key}", delete(tenants::delete_key))
}

/// Reads a JSON body of at most `most` bytes.
async fn json(request: Request, api: &Api, most: usize) -> Result<JsonBody, Error> {
    // An empty body has no type; everything else must say that it is JSON, which no page of another site can.
    if !request.body().is_end_stream() || request.headers().contains_key(CONTENT_TYPE) {
        content_type(request.headers(), &["application/json"])?;
    }
    let (parts, body) = request.into_parts();
    let text = form::read_body(&parts, body, api.form.with_body(most)).await?;
    Ok(JsonBody::new(text, auth::place_of(&parts.extensions).cloned(), most))
}

/// Is the content type one of these?
fn content_type(headers: &HeaderMap, allowed: &[&str]) -> Result<(), Error> {
    let essence = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = essence.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if allowed.iter().any(|allowed| essence.eq_ignore_ascii_case(allowed)) {
        return Ok(());
    }
    let message = format!("the content type must be {}", allowed.join(" or "));
    Err(Error::new(Kind::UnsupportedMediaType, "unsupported_media_type", message))
}

/// An error under `/v1`: it names the wrong field.
type Failure = response::ErrorResponse<true>;

#[cfg(test)]
mod tests;
