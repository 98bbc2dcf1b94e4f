//! `/v1/providers/{name}`: uploading components, and what runs them.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;

use super::admission::Place;
use super::v1::{Failure, json};
use super::{Api, answer, detached, form};
use crate::error::{Error, Kind};
use crate::gateway::Uploads;
use crate::tenant::TenantId;

/// Bytes of the body of an activation.
const ACTIVATION: usize = 4 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activation {
    digest: String,
}

/// The routes, to be merged with the others.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/providers/{name}", get(show).put(put).delete(delete))
        .route("/v1/providers/{name}/activate", post(activate))
        .route("/v1/providers/{name}/log", get(log))
}

async fn put(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Extension(place): Extension<Place>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let uploads = uploads(&api)?;
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| value.trim().eq_ignore_ascii_case("application/wasm")) {
        let message = "the content type must be application/wasm";
        return Err(Error::new(Kind::UnsupportedMediaType, "unsupported_media_type", message).into());
    }
    let upload = uploads.begin(&tenant, &name).await?;
    let most = uploads.largest_component();
    let component = form::read_whole(request, api.form.with_body(most)).await.map_err(|error| {
        if error.kind != Kind::TooLarge {
            return error;
        }
        let message = format!("the component has more than {most} bytes");
        Error::new(Kind::TooLarge, "component_too_large", message)
    })?;
    let view = detached(place, async move { upload.finish(component.into()).await }).await?;
    Ok(answer::json(StatusCode::OK, &view))
}

async fn activate(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Extension(place): Extension<Place>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let uploads = uploads(&api)?;
    let Activation { digest } = json(request, ACTIVATION).await?;
    let view = detached(place, async move { uploads.activate(&tenant, &name, &digest).await }).await?;
    Ok(answer::json(StatusCode::OK, &view))
}

async fn show(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    Ok(answer::json(StatusCode::OK, &uploads(&api)?.view(&tenant, &name)?))
}

async fn log(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    Ok(answer::json(StatusCode::OK, &uploads(&api)?.log(&tenant, &name)?))
}

async fn delete(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Extension(place): Extension<Place>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let uploads = uploads(&api)?;
    detached(place, async move { uploads.remove(&tenant, &name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn uploads(api: &Api) -> Result<Uploads, Error> {
    api.backend.uploads().ok_or_else(|| Error::internal("this backend takes no components"))
}
