//! `/v1/applications`: secrets go in and never come out.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::auth::ByTenant;
use super::super::classic::DeadTokenView;
use super::super::openapi::{self, Addressed, Bounded, Component, Guarded, Missing, Read};
use super::super::{Api, response};
use super::object::Object;
use super::page::Paging;
use super::segments::Segments;
use super::{Failure, json};
use pushlet_gateway::{ApplicationView, DeadToken, FeedbackRead, Registration};
use pushlet_model::contract::Environment;
use pushlet_model::error::Error;

const FIELDS: &[&str] = &["provider", "environment", "settings", "credentials"];

/// Some of a tenant's applications.
#[derive(Serialize, ToSchema)]
struct ApplicationPage {
    applications: Vec<ApplicationView>,
    /// What to give as `after` for the next page; null: there is none.
    next: Option<String>,
}

/// Tokens that were reported dead since the list was cleared last.
#[derive(Serialize, ToSchema)]
struct DeadTokens {
    dead_tokens: Vec<DeadTokenView>,
}

impl DeadTokens {
    fn of(tokens: &[DeadToken]) -> Self {
        Self { dead_tokens: tokens.iter().map(DeadTokenView::of).collect() }
    }
}

/// Register or replace an application
///
/// `{"provider", "environment", "settings": {…}, "credentials": {…}}`, with the names that the provider's
/// manifest gives its settings and secrets. The classic registration's flat fields are understood too.
/// Everything is checked now, and no connection is made.
#[utoipa::path(
    put,
    path = "/v1/applications/{id}",
    operation_id = "put_application",
    tag = "Applications",
    params(("id" = String, Path, min_length = 1, max_length = 256, example = "my-apns-app",
        description = "Of the caller's choice.")),
    request_body = openapi::Registration,
    responses(
        (status = 200, description = "Registered.", body = ApplicationView),
        Read, Bounded, Component, Guarded
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    Segments(id): Segments<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (body, own) = (json(request, &api, api.limits.request_body).await?, id.clone());
    let registration = body.read(move |fields| registration(own, fields)).await?;
    api.gateway.register(tenant.clone(), registration).await.map_err(by_v1_name)?;
    Ok(response::json(StatusCode::OK, &api.gateway.application(&tenant, &id)?))
}

/// Show an application
///
/// Its secrets are never shown again: kind, fingerprint, topics and expiry are.
#[utoipa::path(
    get,
    path = "/v1/applications/{id}",
    operation_id = "get_application",
    tag = "Applications",
    params(("id" = String, Path, example = "my-apns-app")),
    responses((status = 200, description = "As it is registered.", body = ApplicationView), Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    Segments(id): Segments<String>,
) -> Result<Response, Failure> {
    Ok(response::json(StatusCode::OK, &api.gateway.application(&tenant, &id)?))
}

/// List the applications
///
/// In the order of their ids, in pages.
#[utoipa::path(
    get,
    path = "/v1/applications",
    operation_id = "list_applications",
    tag = "Applications",
    params(
        ("after" = Option<String>, Query, description = "Those behind this id."),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "How many; 100 if not given."),
    ),
    responses((status = 200, description = "A page.", body = ApplicationPage), Addressed, Guarded)
)]
pub(super) async fn list(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    paging: Paging,
) -> Result<Response, Failure> {
    let all = api.gateway.applications(&tenant);
    let (page, next) = paging.of(&all, |application| &application.id);
    Ok(response::json(StatusCode::OK, &ApplicationPage { applications: page.to_vec(), next }))
}

/// Forget an application
///
/// Sends in flight finish; a stream that sends for it ends.
#[utoipa::path(
    delete,
    path = "/v1/applications/{id}",
    operation_id = "delete_application",
    tag = "Applications",
    params(("id" = String, Path, example = "my-apns-app")),
    responses((status = 204, description = "Forgotten."), Missing, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    Segments(id): Segments<String>,
) -> Result<StatusCode, Failure> {
    api.gateway.remove_application(&tenant, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Show the dead tokens of an application
///
/// The list stays as it is.
#[utoipa::path(
    get,
    path = "/v1/applications/{id}/feedback",
    operation_id = "show_feedback",
    tag = "Applications",
    params(("id" = String, Path, example = "my-apns-app")),
    responses((status = 200, description = "Dead tokens.", body = DeadTokens), Missing, Guarded)
)]
pub(super) async fn show_feedback(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    Segments(id): Segments<String>,
) -> Result<Response, Failure> {
    let dead_tokens = api.gateway.feedback(&tenant, &id, FeedbackRead::Keep)?;
    Ok(response::json(StatusCode::OK, &DeadTokens::of(&dead_tokens)))
}

/// Take the dead tokens of an application
///
/// Those that were reported since the last call: taking them clears the list.
#[utoipa::path(
    post,
    path = "/v1/applications/{id}/feedback",
    operation_id = "take_feedback",
    tag = "Applications",
    params(("id" = String, Path, example = "my-apns-app")),
    responses((status = 200, description = "Dead tokens.", body = DeadTokens), Missing, Guarded)
)]
pub(super) async fn take_feedback(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    Segments(id): Segments<String>,
) -> Result<Response, Failure> {
    let dead_tokens = api.gateway.feedback(&tenant, &id, FeedbackRead::Clear)?;
    Ok(response::json(StatusCode::OK, &DeadTokens::of(&dead_tokens)))
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

/// The classic `type` is called `provider` here.
fn by_v1_name(error: Error) -> Error {
    if error.code != "invalid_type" {
        return error;
    }
    let message = error.message.replacen("type", "provider", 1);
    Error { code: "invalid_provider".into(), message: message.into(), ..error }.about("provider")
}

/// A text as it is, `{"base64": "…"}` as the bytes, and any other value as its JSON text.
fn upload(value: Value) -> Result<Option<Vec<u8>>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.into_bytes())),
        Value::Object(object) => match (object.len(), object.get("base64")) {
            (1, Some(Value::String(text))) => {
                // `base64` breaks its lines.
                let compact: String = text.split_ascii_whitespace().collect();
                STANDARD.decode(compact).map(Some).map_err(|_| "is not base64")
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
