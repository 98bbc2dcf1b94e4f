//! `/v1/applications`: credentials go in and never come out; and `/v1/applications/{id}/{collection}`: what the push
//! service keeps for an application, such as broadcast channels, as the provider's component says.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::audit::{Auditor, difference};
use super::extract::{PageQuery, PathSegments};
use crate::Api;
use crate::caller::ByTenant;
use crate::in_flight::{InFlightPermit, detached};
use crate::json::{JsonBody, optional};
use crate::openapi::schemas::{self, Addressed, Bounded, Busy, Component, Guarded, Missing, Read, Service};
use crate::response::{self, V1Error};
use crate::verbatim::{verbatim, verbatim_rest};
use pushlet_gateway::{
    ApplicationOrder, ApplicationPage, ApplicationQuery, ApplicationView, CollectionRequest, ItemOperation,
    Registration,
};
use pushlet_model::contract::Environment;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// An application in a list.
#[derive(Serialize, ToSchema)]
struct ListedApplication {
    #[serde(flatten)]
    application: ApplicationView,
    /// Targets since the server started, by what became of them; null: they are not counted by application.
    #[schema(value_type = Option<BTreeMap<String, u64>>)]
    outcomes: Option<BTreeMap<&'static str, u64>>,
}

/// Some of a tenant's applications.
#[derive(Serialize, ToSchema)]
struct ApplicationsPage {
    applications: Vec<ListedApplication>,
    /// How many there are on all pages.
    total: usize,
    /// The `after` of the next page; null: this is the last one.
    next: Option<String>,
}

/// Register or replace an application
///
/// `{"provider", "environment", "settings": {…}, "credentials": {…}}`, with the names that the provider's
/// manifest gives its settings and secrets. The flat fields of the classic registration are accepted too.
/// Everything is checked now, without a connection to the push service.
#[utoipa::path(
    put, path = "/v1/applications/{id}", operation_id = "put_application", tag = "Applications",
    params(("id" = String, Path, min_length = 1, max_length = 256, example = "my-apns-app",
        description = "Of the caller's choice.")),
    request_body = schemas::Registration,
    responses((status = 200, description = "Registered.", body = ApplicationView), Read, Busy, Bounded, Component, Guarded)
)]
pub(super) async fn put(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(id): PathSegments<String>,
    audit: Auditor,
    request: Request,
) -> Result<Response, V1Error> {
    let (body, own) = (JsonBody::receive(request, api.body_limits).await?, id.clone());
    let registration = body.read(move |body| registration(own, body)).await?;
    let registered = audit.register(&api, tenant, registration).await.map_err(with_v1_name)?;
    Ok(response::json(StatusCode::OK, &registered))
}

/// Show an application
///
/// Of its credential, the kind, fingerprint, topics and expiry are shown, and never a secret.
#[utoipa::path(
    get, path = "/v1/applications/{id}", operation_id = "get_application", tag = "Applications",
    params(("id" = String, Path, example = "my-apns-app")),
    responses((status = 200, description = "The application.", body = ApplicationView), Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(id): PathSegments<String>,
) -> Result<Response, V1Error> {
    Ok(response::json(StatusCode::OK, &api.gateway.application(&tenant, &id)?))
}

/// List the applications
///
/// In pages, in the order of their ids or by the end of their certificates.
#[utoipa::path(
    get, path = "/v1/applications", operation_id = "list_applications", tag = "Applications",
    params(
        ("after" = Option<String>, Query, description = "Only those after this `next` of a page."),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "The most that are listed; 100 by default."),
        ("search" = Option<String>, Query, description =
            "Only those whose id, provider, subject or topics contain this text, in letters of either case."),
        ("sort" = Option<String>, Query, example = "expiry", description =
            "`id` (the default), or `expiry`: the certificate that ends first is the first, and what does not end is last."),
    ),
    responses((status = 200, description = "A page.", body = ApplicationsPage), Addressed, Guarded)
)]
pub(super) async fn list(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    query: PageQuery,
) -> Result<Response, V1Error> {
    let order = match query.sort.as_deref() {
        None | Some("id") => ApplicationOrder::Id,
        Some("expiry") => ApplicationOrder::Expiry,
        Some(_) => return Err(Error::field("invalid_sort", "sort", "sort must be id or expiry").into()),
    };
    let PageQuery { after, limit, search, .. } = query;
    let query = ApplicationQuery { search, order, after, limit };
    let ApplicationPage { applications, total, next } = api.gateway.applications(&tenant, &query)?;
    let listed = |application: ApplicationView| ListedApplication {
        outcomes: api.gateway.application_outcomes(&tenant, &application.id, &application.provider),
        application,
    };
    let applications = applications.into_iter().map(listed).collect();
    Ok(response::json(StatusCode::OK, &ApplicationsPage { applications, total, next }))
}

/// Delete an application
///
/// Sends in flight finish; streams of the application end.
#[utoipa::path(
    delete, path = "/v1/applications/{id}", operation_id = "delete_application", tag = "Applications",
    params(("id" = String, Path, example = "my-apns-app")),
    responses((status = 204, description = "Deleted."), Missing, Busy, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(id): PathSegments<String>,
    audit: Auditor,
) -> Result<StatusCode, V1Error> {
    let before = api.gateway.application(&tenant, &id)?;
    api.gateway.remove_application(&tenant, &id).await?;
    let changes = difference(Some(&before), None::<&ApplicationView>)?;
    audit.record(&api, (&tenant, "application.delete", &id), changes).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Create a channel
///
/// Or an item of another collection that the provider has. The push service creates it and gives it an id.
#[utoipa::path(
    post, path = "/v1/applications/{id}/{collection}", operation_id = "create_item", tag = "Channels",
    params(("id" = String, Path, example = "my-apns-app"), ("collection" = schemas::Collection, Path, example = "channels")),
    request_body = schemas::NewItem,
    responses((status = 201, description = "Created.", body = schemas::Item), Missing, Read, Service, Guarded)
)]
pub(super) async fn create_item(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments((id, collection)): PathSegments<(String, String)>,
    request: Request,
) -> Result<Response, V1Error> {
    let properties = JsonBody::receive(request, api.body_limits).await?.fields().await?;
    let operation = ItemOperation::Create(properties);
    let created = single(perform(&api, tenant, permit, (id, collection), operation).await?)?;
    Ok(response::json(StatusCode::CREATED, &created))
}

/// List the channels
///
/// Or the items of another collection that the provider has.
#[utoipa::path(
    get, path = "/v1/applications/{id}/{collection}", operation_id = "list_items", tag = "Channels",
    params(("id" = String, Path, example = "my-apns-app"), ("collection" = schemas::Collection, Path, example = "channels")),
    responses(
        (status = 200, description = "All items, under the collection's name.", body = schemas::Items),
        Missing, Service, Guarded
    )
)]
pub(super) async fn list_items(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments((id, collection)): PathSegments<(String, String)>,
) -> Result<Response, V1Error> {
    let all = perform(&api, tenant, permit, (id, collection.clone()), ItemOperation::ReadAll).await?;
    let all: Vec<Value> = all.into_iter().map(item_json).collect();
    Ok(response::json(StatusCode::OK, &json!({ collection: all })))
}

/// Show a channel
///
/// Or an item of another collection that the provider has.
#[utoipa::path(
    get, path = "/v1/applications/{id}/{collection}/{item}", operation_id = "get_item", tag = "Channels",
    params(
        ("id" = String, Path, example = "my-apns-app"),
        ("collection" = schemas::Collection, Path, example = "channels"),
        ("item" = String, Path, description = "The id that the push service gave it."),
    ),
    responses((status = 200, description = "The item.", body = schemas::Item), Missing, Service, Guarded)
)]
pub(super) async fn show_item(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments((id, collection, item)): PathSegments<(String, String, String)>,
) -> Result<Response, V1Error> {
    let found = single(perform(&api, tenant, permit, (id, collection), ItemOperation::Read(item)).await?)?;
    Ok(response::json(StatusCode::OK, &found))
}

/// Delete a channel
///
/// Or an item of another collection that the provider has.
#[utoipa::path(
    delete, path = "/v1/applications/{id}/{collection}/{item}", operation_id = "delete_item", tag = "Channels",
    params(
        ("id" = String, Path, example = "my-apns-app"),
        ("collection" = schemas::Collection, Path, example = "channels"),
        ("item" = String, Path, description = "The id that the push service gave it."),
    ),
    responses((status = 204, description = "Deleted."), Missing, Service, Guarded)
)]
pub(super) async fn delete_item(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments((id, collection, item)): PathSegments<(String, String, String)>,
) -> Result<StatusCode, V1Error> {
    perform(&api, tenant, permit, (id, collection), ItemOperation::Delete(item)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The body of a registration; its schema depends on the providers.
#[derive(Deserialize)]
struct RegistrationBody {
    provider: Option<String>,
    #[serde(default, deserialize_with = "environment")]
    environment: Option<Environment>,
    #[serde(default, deserialize_with = "verbatim")]
    settings: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "verbatim")]
    credentials: Option<Map<String, Value>>,
    /// The fields of the classic registration.
    #[serde(flatten, deserialize_with = "verbatim_rest")]
    flat: Map<String, Value>,
}

fn environment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Environment>, D::Error> {
    optional(deserializer, "production or development", |value| match value.as_str() {
        Some("production") => Some(Environment::Production),
        Some("development") => Some(Environment::Development),
        _ => None,
    })
}

fn registration(id: String, body: RegistrationBody) -> Result<Registration, Error> {
    let mut fields = BTreeMap::new();
    for (part, place) in [
        (body.settings.unwrap_or_default(), "settings."),
        (body.credentials.unwrap_or_default(), "credentials."),
        (body.flat, ""),
    ] {
        for (name, value) in part {
            if let Some(bytes) = upload(value).map_err(|why| wrong(place, &name, why))? {
                fields.insert(name, bytes);
            }
        }
    }
    let RegistrationBody { provider, environment, .. } = body;
    Ok(Registration { application_id: Some(id), provider, environment, fields, strict: true })
}

/// Renames the classic field `type`, which is called `provider` here.
fn with_v1_name(error: Error) -> Error {
    if error.code != "invalid_type" {
        return error;
    }
    let message = error.message.replacen("type", "provider", 1);
    Error { code: "invalid_provider".into(), message: message.into(), ..error }.about("provider")
}

/// Returns a text as it is, `{"base64": "…"}` as the bytes, and any other value as its JSON text.
fn upload(value: Value) -> Result<Option<Vec<u8>>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.into_bytes())),
        Value::Object(object) => match (object.len(), object.get("base64")) {
            (1, Some(Value::String(text))) => {
                // The program `base64` wraps its lines.
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

/// An id and properties.
type CollectionItem = (String, Map<String, Value>);

async fn perform(
    api: &Api,
    tenant: TenantId,
    permit: InFlightPermit,
    (application_id, collection): (String, String),
    operation: ItemOperation,
) -> Result<Vec<CollectionItem>, Error> {
    let request = CollectionRequest { application_id, collection, operation, deadline: None };
    let gateway = api.gateway.clone();
    detached(permit, async move { gateway.manage(&tenant, request).await }).await
}

fn single(items: Vec<CollectionItem>) -> Result<Value, Error> {
    items.into_iter().next().map(item_json).ok_or_else(|| Error::internal("the provider returned no item"))
}

/// Returns the item as one object, with the id first.
fn item_json((id, properties): CollectionItem) -> Value {
    let id = ("id".to_owned(), Value::String(id));
    Value::Object(
        std::iter::once(id).chain(properties.into_iter().filter(|(name, _)| name != "id")).collect(),
    )
}
