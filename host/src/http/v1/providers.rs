//! `/v1/providers/{name}`: uploading components, and what runs them.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::super::admission::Place;
use super::super::{Api, answer, detached, form};
use super::object::Object;
use super::{Failure, content_type, json};
use crate::error::{Error, Kind};
use crate::gateway::Uploads;
use crate::tenant::TenantId;

/// Bytes of the body of an activation.
const ACTIVATION: usize = 4 << 10;

pub(super) async fn put(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Extension(place): Extension<Place>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let uploads = uploads(&api)?;
    content_type(request.headers(), &["application/wasm"])?;
    let upload = uploads.begin(&tenant, &name).await?;
    let most = uploads.largest_component();
    let (parts, body) = request.into_parts();
    let read = form::read_body(&parts.headers, body, api.form.with_body(most)).await;
    let component = read.map_err(|error| {
        if error.kind != Kind::TooLarge {
            return error;
        }
        let message = format!("the component has more than {most} bytes");
        Error::new(Kind::TooLarge, "component_too_large", message)
    })?;
    let view = detached(place, async move { upload.finish(component.into()).await }).await?;
    Ok(answer::json(StatusCode::OK, &view))
}

pub(super) async fn activate(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Extension(place): Extension<Place>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let uploads = uploads(&api)?;
    let mut body = Object::parse(&json(request, &api, ACTIVATION).await?, &["digest"])?;
    let digest = body.needed_text("digest")?;
    let view = detached(place, async move { uploads.activate(&tenant, &name, &digest).await }).await?;
    Ok(answer::json(StatusCode::OK, &view))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    Ok(answer::json(StatusCode::OK, &uploads(&api)?.view(&tenant, &name)?))
}

pub(super) async fn log(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    Ok(answer::json(StatusCode::OK, &uploads(&api)?.log(&tenant, &name)?))
}

pub(super) async fn delete(
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
