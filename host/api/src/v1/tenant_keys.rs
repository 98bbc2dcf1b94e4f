//! `/v1/tenants/{id}/keys`: the API keys of a tenant, for the operator.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::audit::{Auditor, difference};
use super::extract::{PathSegments, tenant_id};
use super::tenants::{TenantPath, change, read_body, rfc3339};
use crate::Api;
use crate::caller::Operator;
use crate::json::optional;
use crate::openapi::schemas::{Busy, Guarded, Missing, Operators, Read};
use crate::response::{self, V1Error};
use pushlet_gateway::tenants::{KeyRequest, KeyView, NewKey};
use pushlet_model::tenant::{Scope, Scopes};

/// Characters.
const LONGEST_LABEL: usize = 100;
/// A hundred years.
const LONGEST_EXPIRY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What is shown of an API key.
#[derive(Serialize, ToSchema)]
struct ApiKey {
    id: String,
    label: Option<String>,
    /// null: all.
    scopes: Option<Vec<Scope>>,
    /// RFC 3339.
    created: String,
    /// RFC 3339, to the minute; null: never.
    last_used: Option<String>,
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
struct CreatedKey {
    id: String,
    /// The key itself. It is only shown once.
    api_key: String,
    /// RFC 3339; null: never.
    expires: Option<String>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKeyRequest {
    /// What the key is called in lists; at most 100 characters.
    #[serde(default, deserialize_with = "label")]
    #[schema(value_type = Option<String>)]
    label: Option<String>,
    /// What the key may do; everything if this is left out.
    #[serde(default, deserialize_with = "scopes")]
    #[schema(value_type = Option<Vec<Scope>>)]
    scopes: Option<Scopes>,
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

fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    optional(deserializer, "a text of at most 100 characters without control characters", |value| {
        let text = value.as_str()?;
        let is_plain = text.chars().count() <= LONGEST_LABEL && !text.chars().any(char::is_control);
        is_plain.then(|| text.to_owned())
    })
}

fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Scopes>, D::Error> {
    optional(deserializer, "a list of send, manage and read", |value| {
        let list: Vec<Scope> = serde_json::from_value(value.clone()).ok()?;
        Scopes::of(&list)
    })
}

/// Create another API key
///
/// The key is only shown once. Older keys stay valid, or expire after the time that the request gives.
#[utoipa::path(
    post, path = "/v1/tenants/{id}/keys", operation_id = "create_tenant_key", tag = "Tenants",
    params(TenantPath),
    request_body = NewKeyRequest,
    responses((status = 201, description = "The new key.", body = CreatedKey), Missing, Read, Busy, Operators, Guarded)
)]
pub(super) async fn create(
    State(api): State<Api>,
    PathSegments(path): PathSegments<TenantPath>,
    _: Operator,
    audit: Auditor,
    request: Request,
) -> Result<Response, V1Error> {
    let id = path.id()?;
    let NewKeyRequest { label, scopes, expires_in, others_expire_in } = read_body(request, &api).await?;
    let scopes = scopes.unwrap_or_default();
    let wanted = KeyRequest { label: label.clone(), scopes, expires_in, others_expire_in };
    let tenant = id.clone();
    let NewKey { key, expires } = change(&api, move |tenants| tenants.add_key(&tenant, wanted)).await?;
    let (tenant, id, api_key) = (id, key.id().to_string(), key.reveal().to_owned());
    let others = others_expire_in.map(|wait| wait.as_secs());
    let set = json!({
        "label": label, "scopes": scopes.list(), "expires": expires.map(rfc3339), "others_expire_in": others,
    });
    audit.record(&api, (&tenant, "key.create", &id), difference(None::<&Value>, Some(&set))?).await;
    Ok(response::json(StatusCode::CREATED, &CreatedKey { id, api_key, expires: expires.map(rfc3339) }))
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
    let id = path.id()?;
    let keys = change(&api, move |tenants| tenants.keys(&id)).await?.into_iter().map(ApiKey::from).collect();
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
    audit: Auditor,
) -> Result<StatusCode, V1Error> {
    let tenant = tenant_id(&id)?;
    let (id, revoked) = (tenant.clone(), key.clone());
    change(&api, move |tenants| tenants.remove_key(&id, &revoked)).await?;
    audit.record(&api, (&tenant, "key.delete", &key), Map::new()).await;
    Ok(StatusCode::NO_CONTENT)
}

impl From<KeyView> for ApiKey {
    fn from(view: KeyView) -> Self {
        Self {
            id: view.id.to_string(),
            label: view.label,
            scopes: view.scopes.list(),
            created: rfc3339(view.created),
            last_used: view.last_used.map(rfc3339),
            expires: view.expires.map(rfc3339),
        }
    }
}
