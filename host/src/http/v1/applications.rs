//! `/v1/applications`: secrets go in and never come out.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::{Api, answer, classic};
use super::object::{Object, parse};
use super::page::page;
use super::{Failure, json};
use crate::contract::Environment;
use crate::error::Error;
use crate::gateway::Registration;
use crate::tenant::TenantId;

const FIELDS: &[&str] = &["provider", "environment", "settings", "credentials"];

/// `{"provider", "environment", "settings": {…}, "credentials": {…}}`, with the names that the provider's
/// manifest gives its settings and secrets. The classic registration's flat fields are understood too.
pub(super) async fn put(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let body = json(request, &api, api.limits.request_body).await?;
    let registration = registration(id.clone(), parse(&body)?)?;
    api.register(tenant.clone(), registration).await?;
    Ok(answer::json(StatusCode::OK, &api.backend.application(&tenant, &id)?))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    Ok(answer::json(StatusCode::OK, &api.backend.application(&tenant, &id)?))
}

/// In pages, in the order of their ids.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, Failure> {
    let all = api.backend.applications(&tenant);
    let page = page("applications", &all, |application| &application.id, &query)?;
    Ok(answer::json(StatusCode::OK, &page))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    api.backend.remove(tenant, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// As `POST /application_feedback`: reading clears the list.
pub(super) async fn feedback(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let dead: Vec<Value> = api.backend.feedback(&tenant, &id)?.iter().map(classic::dead_token).collect();
    Ok(answer::json(StatusCode::OK, &json!({"dead_tokens": dead})))
}

fn registration(id: String, body: Map<String, Value>) -> Result<Registration, Error> {
    let (known, flat): (Map<_, _>, Map<_, _>) =
        body.into_iter().partition(|(name, _)| FIELDS.contains(&name.as_str()));
    let mut body = Object::new(known, "", FIELDS)?;
    let environment = match body.text("environment")?.as_deref() {
        None => None,
        Some("production") => Some(Environment::Production),
        Some("development") => Some(Environment::Development),
        Some(_) => {
            let message = "environment must be production or development";
            return Err(Error::field("invalid_environment", "environment", message));
        }
    };
    let mut fields = BTreeMap::new();
    for (part, place) in [
        (body.object("settings")?.unwrap_or_default(), "settings."),
        (body.object("credentials")?.unwrap_or_default(), "credentials."),
        (flat, ""),
    ] {
        for (name, value) in part {
            if let Some(bytes) = upload(value).map_err(|why| wrong(place, &name, why))? {
                fields.insert(name, bytes);
            }
        }
    }
    let provider = body.text("provider")?;
    Ok(Registration { application_id: Some(id), provider, environment, fields, strict: true })
}

/// A text as it is, `{"base64": "…"}` as the bytes, and any other value as its JSON text.
fn upload(value: Value) -> Result<Option<Vec<u8>>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.into_bytes())),
        Value::Object(object) => match (object.len(), object.get("base64")) {
            (1, Some(Value::String(text))) => {
                STANDARD.decode(text.trim_ascii()).map(Some).map_err(|_| "is not base64")
            }
            (1, Some(_)) => Err("is not base64"),
            _ => Ok(Some(Value::Object(object).to_string().into_bytes())),
        },
        other => Ok(Some(other.to_string().into_bytes())),
    }
}

fn wrong(place: &str, name: &str, why: &str) -> Error {
    Error::field(format!("invalid_{name}"), format!("{place}{name}"), format!("{name} {why}"))
}
