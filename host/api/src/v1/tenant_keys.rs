//! `/v1/tenants/{id}/keys`: the API keys of a tenant, for the operator.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::extract::PathSegments;
use super::tenants::{TenantPath, change, read_body, rfc3339, tenant_id};
use crate::Api;
use crate::caller::Operator;
use crate::json::optional;
use crate::openapi::schemas::{Busy, Guarded, Missing, Operators, Read};
use crate::response::{self, V1Error};
use pushlet_gateway::tenants::{KeyRequest, KeyView, NewKey};

/// A hundred years.
const LONGEST_EXPIRY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What is shown of an API key.
#[derive(Serialize, ToSchema)]
struct ApiKey {
    id: String,
    /// RFC 3339.
    created: String,
    /// RFC 3339; null: never.
    expires: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ApiKeys {
    /// The valid ones, the oldest first.
    keys: Vec<ApiKey>,
}

/// A key that was just created.
#[derive(Serialize, ToSchema)]
struct MadeKey {
    id: String,
    /// The key itself. It is only shown once.
    api_key: String,
    /// RFC 3339; null: never.
    expires: Option<String>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKeyRequest {
    /// Seconds until the new key expires.
    #[serde(default, deserialize_with = "expiry")]
    #[schema(value_type = Option<f64>)]
    expires_in: Option<Duration>,
    /// Seconds until all older keys expire.
    #[serde(default, deserialize_with = "expiry")]
    #[schema(value_type = Option<f64>)]
    others_expire_in: Option<Duration>,
}

fn expiry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let expected = format!("a number of seconds from 0 to {}", LONGEST_EXPIRY.as_secs());
    optional(deserializer, &expected, |value| {
        let wait = Duration::try_from_secs_f64(value.as_f64()?).ok();
        wait.filter(|wait| *wait <= LONGEST_EXPIRY)
    })
}

/// Create another API key
///
/// The key is only shown once. Older keys stay valid, or expire after the time that the request gives.
#[utoipa::path(
    post, path = "/v1/tenants/{id}/keys", operation_id = "create_tenant_key", tag = "Tenants",
    params(TenantPath),
    request_body = NewKeyRequest,
    responses((status = 201, description = "The new key.", body = MadeKey), Missing, Read, Busy, Operators, Guarded)
)]
pub(super) async fn create(
    State(api): State<Api>,
    PathSegments(path): PathSegments<TenantPath>,
    _: Operator,
    request: Request,
) -> Result<Response, V1Error> {
    let id = path.id()?;
    let NewKeyRequest { expires_in, others_expire_in } = read_body(request, &api).await?;
    let wanted = KeyRequest { expires_in, others_expire_in };
    let NewKey { key, expires } = change(&api, move |tenants| tenants.add_key(&id, wanted)).await?;
    let (id, api_key) = (key.id().to_string(), key.reveal().to_owned());
    Ok(response::json(StatusCode::CREATED, &MadeKey { id, api_key, expires: expires.map(rfc3339) }))
}

/// List the API keys
///
/// Without the keys themselves.
#[utoipa::path(
    get, path = "/v1/tenants/{id}/keys", operation_id = "list_tenant_keys", tag = "Tenants",
    params(TenantPath),
    responses((status = 200, description = "The valid keys.", body = ApiKeys), Missing, Operators, Guarded)
)]
pub(super) async fn list(
    State(api): State<Api>,
    PathSegments(path): PathSegments<TenantPath>,
    _: Operator,
) -> Result<Response, V1Error> {
    let keys = api.gateway.tenants().keys(&path.id()?)?.into_iter().map(ApiKey::from).collect();
    Ok(response::json(StatusCode::OK, &ApiKeys { keys }))
}

/// Revoke an API key at once
#[utoipa::path(
    delete, path = "/v1/tenants/{id}/keys/{key}", operation_id = "delete_tenant_key", tag = "Tenants",
    params(TenantPath, ("key" = String, Path, example = "0123456789abcdef", description = "Its id.")),
    responses((status = 204, description = "Revoked."), Missing, Operators, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    PathSegments((id, key)): PathSegments<(String, String)>,
    _: Operator,
) -> Result<StatusCode, V1Error> {
    let id = tenant_id(&id)?;
    change(&api, move |tenants| tenants.remove_key(&id, &key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<KeyView> for ApiKey {
    fn from(view: KeyView) -> Self {
        let expires = view.expires.map(rfc3339);
        Self { id: view.id.to_string(), created: rfc3339(view.created), expires }
    }
}
