//! The API under `/v1`: JSON, the same errors as everywhere with the wrong `field` named.

mod applications;
mod notifications;
mod result;
mod stream;
mod target;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{Api, answer};
use crate::error::{Error, Kind};

/// The routes, to be merged with the others.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/applications", get(applications::list))
        .route(
            "/v1/applications/{id}",
            get(applications::show).put(applications::put).delete(applications::delete),
        )
        .route("/v1/applications/{id}/feedback", get(applications::feedback))
        .route("/v1/notifications", post(notifications::send))
        .route("/v1/notifications:stream", post(stream::send))
}

/// Reads a JSON body of at most `most` bytes.
pub(super) async fn json<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Error> {
    let is_json = |value: &str| {
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    };
    let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    if !content_type.is_none_or(is_json) {
        let message = "the content type must be application/json";
        return Err(Error::new(Kind::UnsupportedMediaType, "unsupported_media_type", message));
    }
    let body = Limited::new(request.into_body(), most).collect().await.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            Error::new(Kind::TooLarge, "request_too_large", format!("the body is larger than {most} bytes"))
        } else {
            Error::new(Kind::Invalid, "incomplete_body", "the body ended too early")
        }
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        Error::new(Kind::Invalid, "invalid_json", format!("the body can not be read: {error}"))
    })
}

/// An error of `/v1`: with its field.
pub(super) struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl axum::response::IntoResponse for Failure {
    fn into_response(self) -> Response {
        answer::error_with_field(self.0)
    }
}
