//! `/v1/applications/{id}/{collection}`: what the push service keeps for an application, such as broadcast
//! channels. The provider's component says which collections there are.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::super::admission::Place;
use super::super::auth::ByTenant;
use super::super::openapi::{self, Guarded, Missing, Read, Service};
use super::super::{Api, detached, response};
use super::segments::Segments;
use super::{Failure, json};
use pushlet_gateway::{CollectionRequest, ItemOperation};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

type Item = (String, Map<String, Value>);

/// Create an item
///
/// The push service makes it, and gives it an id.
#[utoipa::path(
    post,
    path = "/v1/applications/{id}/{collection}",
    operation_id = "create_item",
    tag = "Collections",
    params(("id" = String, Path, example = "my-apns-app"), ("collection" = openapi::Collection, Path, example = "channels")),
    request_body = openapi::NewItem,
    responses((status = 201, description = "Created.", body = openapi::Item), Missing, Read, Service, Guarded)
)]
pub(super) async fn create(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    place: Place,
    Segments((id, collection)): Segments<(String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let operation =
        ItemOperation::Create(json(request, &api, api.limits.request_body).await?.read(Ok).await?);
    let made = one(perform(&api, tenant, place, (id, collection), operation).await?)?;
    Ok(response::json(StatusCode::CREATED, &made))
}

/// List the items of a collection
#[utoipa::path(
    get,
    path = "/v1/applications/{id}/{collection}",
    operation_id = "list_items",
    tag = "Collections",
    params(("id" = String, Path, example = "my-apns-app"), ("collection" = openapi::Collection, Path, example = "channels")),
    responses(
        (status = 200, description = "All items, under the collection's name.", body = openapi::Items),
        Missing, Service, Guarded
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    place: Place,
    Segments((id, collection)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let all = perform(&api, tenant, place, (id, collection.clone()), ItemOperation::ReadAll).await?;
    let all: Vec<Value> = all.into_iter().map(shown).collect();
    Ok(response::json(StatusCode::OK, &json!({ collection: all })))
}

/// Show an item
#[utoipa::path(
    get,
    path = "/v1/applications/{id}/{collection}/{item}",
    operation_id = "get_item",
    tag = "Collections",
    params(
        ("id" = String, Path, example = "my-apns-app"),
        ("collection" = openapi::Collection, Path, example = "channels"),
        ("item" = String, Path, description = "The id that the push service gave it."),
    ),
    responses((status = 200, description = "The item.", body = openapi::Item), Missing, Service, Guarded)
)]
pub(super) async fn read(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    place: Place,
    Segments((id, collection, item)): Segments<(String, String, String)>,
) -> Result<Response, Failure> {
    let found = one(perform(&api, tenant, place, (id, collection), ItemOperation::Read(item)).await?)?;
    Ok(response::json(StatusCode::OK, &found))
}

/// Delete an item
#[utoipa::path(
    delete,
    path = "/v1/applications/{id}/{collection}/{item}",
    operation_id = "delete_item",
    tag = "Collections",
    params(
        ("id" = String, Path, example = "my-apns-app"),
        ("collection" = openapi::Collection, Path, example = "channels"),
        ("item" = String, Path, description = "The id that the push service gave it."),
    ),
    responses((status = 204, description = "Deleted."), Missing, Service, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    place: Place,
    Segments((id, collection, item)): Segments<(String, String, String)>,
) -> Result<StatusCode, Failure> {
    perform(&api, tenant, place, (id, collection), ItemOperation::Delete(item)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn perform(
    api: &Api,
    tenant: TenantId,
    place: Place,
    (application_id, collection): (String, String),
    operation: ItemOperation,
) -> Result<Vec<Item>, Error> {
    let request = CollectionRequest { application_id, collection, operation, deadline: None };
    let gateway = api.gateway.clone();
    detached(place, async move { gateway.manage(&tenant, request).await }).await
}

fn one(items: Vec<Item>) -> Result<Value, Error> {
    items.into_iter().next().map(shown).ok_or_else(|| Error::internal("an item was lost"))
}

/// The id first, then the properties.
fn shown((id, properties): Item) -> Value {
    let id = ("id".to_owned(), Value::String(id));
    Value::Object(
        std::iter::once(id).chain(properties.into_iter().filter(|(name, _)| name != "id")).collect(),
    )
}
