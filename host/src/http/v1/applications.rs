//! `/v1/applications`: secrets go in and never come out.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::super::{Api, answer, classic};
use super::{Failure, json};
use crate::error::Error;
use crate::gateway::Registration;
use crate::tenant::TenantId;

/// The fields of the classic registration, in JSON; a PKCS#12 file in base64.
pub(super) async fn put(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let body: Map<String, Value> = json(request, api.limits.request_body).await?;
    let registration = registration(id.clone(), body)?;
    let _permit = api.registrations.clone().acquire_owned().await.map_err(Error::internal)?;
    let (backend, owner) = (api.backend.clone(), tenant.clone());
    let work = tokio::task::spawn_blocking(move || backend.register(&owner, registration));
    work.await.map_err(Error::internal)??;
    let application = api.backend.application(&tenant, &id)?;
    Ok(answer::json(StatusCode::OK, &application))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    Ok(answer::json(StatusCode::OK, &api.backend.application(&tenant, &id)?))
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
) -> Result<Response, Failure> {
    Ok(answer::json(StatusCode::OK, &json!({"applications": api.backend.applications(&tenant)})))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    api.backend.remove(&tenant, &id)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn feedback(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let dead: Vec<Value> = api.backend.feedback(&tenant, &id)?.iter().map(classic::dead_token).collect();
    Ok(answer::json(StatusCode::OK, &json!({"dead_tokens": dead})))
}

fn registration(id: String, body: Map<String, Value>) -> Result<Registration, Error> {
    let mut registration =
        Registration { application_id: Some(id), provider: None, fields: BTreeMap::new(), strict: true };
    for (name, value) in body {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Object(object) => Value::Object(object).to_string(),
            other => other.to_string(),
        };
        if name == "provider" {
            registration.provider = Some(text);
        } else {
            registration.fields.insert(name, text.into_bytes());
        }
    }
    Ok(registration)
}
