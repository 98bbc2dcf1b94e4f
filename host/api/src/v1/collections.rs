//! `/v1/applications/{id}/{collection}`: what the push service keeps for an application, such as broadcast
//! channels. The provider's component says which collections there are.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::extract::PathSegments;
use crate::Api;
use crate::caller::ByTenant;
use crate::in_flight::{InFlightPermit, detached};
use crate::json::JsonBody;
use crate::openapi::schemas::{self, Guarded, Missing, Read, Service};
use crate::response::{self, V1Error};
use pushlet_gateway::{CollectionRequest, ItemOperation};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// An id and properties.
type Item = (String, Map<String, Value>);

/// Create an item
///
/// The push service creates it and gives it an id.
#[utoipa::path(
    post, path = "/v1/applications/{id}/{collection}", operation_id = "create_item", tag = "Collections",
    params(("id" = String, Path, example = "my-apns-app"), ("collection" = schemas::Collection, Path, example = "channels")),
    request_body = schemas::NewItem,
    responses((status = 201, description = "Created.", body = schemas::Item), Missing, Read, Service, Guarded)
)]
pub(super) async fn create(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments((id, collection)): PathSegments<(String, String)>,
    request: Request,
) -> Result<Response, V1Error> {
    let properties = JsonBody::receive(request, api.body_limits).await?.fields().await?;
    let operation = ItemOperation::Create(properties);
    let created = one(perform(&api, tenant, permit, (id, collection), operation).await?)?;
    Ok(response::json(StatusCode::CREATED, &created))
}

/// List the items of a collection
#[utoipa::path(
    get, path = "/v1/applications/{id}/{collection}", operation_id = "list_items", tag = "Collections",
    params(("id" = String, Path, example = "my-apns-app"), ("collection" = schemas::Collection, Path, example = "channels")),
    responses(
        (status = 200, description = "All items, under the collection's name.", body = schemas::Items),
        Missing, Service, Guarded
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments((id, collection)): PathSegments<(String, String)>,
) -> Result<Response, V1Error> {
    let all = perform(&api, tenant, permit, (id, collection.clone()), ItemOperation::ReadAll).await?;
    let all: Vec<Value> = all.into_iter().map(item_json).collect();
    Ok(response::json(StatusCode::OK, &json!({ collection: all })))
}

/// Show an item
#[utoipa::path(
    get, path = "/v1/applications/{id}/{collection}/{item}", operation_id = "get_item", tag = "Collections",
    params(
        ("id" = String, Path, example = "my-apns-app"),
        ("collection" = schemas::Collection, Path, example = "channels"),
        ("item" = String, Path, description = "The id that the push service gave it."),
    ),
    responses((status = 200, description = "The item.", body = schemas::Item), Missing, Service, Guarded)
)]
pub(super) async fn read(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments((id, collection, item)): PathSegments<(String, String, String)>,
) -> Result<Response, V1Error> {
    let found = one(perform(&api, tenant, permit, (id, collection), ItemOperation::Read(item)).await?)?;
    Ok(response::json(StatusCode::OK, &found))
}

/// Delete an item
#[utoipa::path(
    delete, path = "/v1/applications/{id}/{collection}/{item}", operation_id = "delete_item", tag = "Collections",
    params(
        ("id" = String, Path, example = "my-apns-app"),
        ("collection" = schemas::Collection, Path, example = "channels"),
        ("item" = String, Path, description = "The id that the push service gave it."),
    ),
    responses((status = 204, description = "Deleted."), Missing, Service, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments((id, collection, item)): PathSegments<(String, String, String)>,
) -> Result<StatusCode, V1Error> {
    perform(&api, tenant, permit, (id, collection), ItemOperation::Delete(item)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn perform(
    api: &Api,
    tenant: TenantId,
    permit: InFlightPermit,
    (application_id, collection): (String, String),
    operation: ItemOperation,
) -> Result<Vec<Item>, Error> {
    let request = CollectionRequest { application_id, collection, operation, deadline: None };
    let gateway = api.gateway.clone();
    detached(permit, async move { gateway.manage(&tenant, request).await }).await
}

fn one(items: Vec<Item>) -> Result<Value, Error> {
    items.into_iter().next().map(item_json).ok_or_else(|| Error::internal("the provider returned no item"))
}

/// Returns the item as one object, with the id first.
fn item_json((id, properties): Item) -> Value {
    let id = ("id".to_owned(), Value::String(id));
    Value::Object(
        std::iter::once(id).chain(properties.into_iter().filter(|(name, _)| name != "id")).collect(),
    )
}
