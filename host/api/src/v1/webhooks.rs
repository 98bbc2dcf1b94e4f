//! `/v1/webhooks`: where a tenant hears of dead tokens, refused credentials and limits.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use url::Url;
use utoipa::{IntoParams, ToSchema};

use super::audit::Auditor;
use super::extract::PathSegments;
use crate::Api;
use crate::caller::ByTenant;
use crate::json::JsonBody;
use crate::openapi::schemas::{Busy, Guarded, Missing, Read};
use crate::response::{self, V1Error};
use pushlet_gateway::{ChangedWebhook, WebhookAttempt, WebhookRequest, WebhookView};

/// Bytes of a body.
const LARGEST_BODY: usize = 16 << 10;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct WebhookPath {
    /// Of the caller's choice: 1 to 64 letters, digits, dots, dashes and underscores.
    #[param(example = "backend")]
    id: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookChange {
    /// Messages are sent here by POST; https, on the public internet.
    #[schema(example = "https://hooks.example/pushlet")]
    url: String,
    /// The types of events; all if this is left out: `token.dead`, `token.replaced`, `credential.rejected`,
    /// `credential.expiring`, `provider.quarantined`, `limit.reached`, `webhook.disabled`.
    #[serde(default)]
    #[schema(example = json!(["token.dead", "token.replaced"]))]
    events: Option<Vec<String>>,
    /// Make a new secret; the old one ends at once.
    #[serde(default)]
    rotate_secret: bool,
}

/// A webhook that was created or changed.
#[derive(Serialize, ToSchema)]
struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: WebhookView,
    /// What its messages are signed with, if that is new. It is only shown once.
    secret: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Webhooks {
    /// In the order of their ids.
    webhooks: Vec<WebhookView>,
}

#[derive(Serialize, ToSchema)]
struct WebhookAttempts {
    /// The last 50, the newest first.
    attempts: Vec<WebhookAttempt>,
}

/// Create or change a webhook
///
/// Events are sent by the [Standard Webhooks](https://www.standardwebhooks.com) specification: JSON with `type`,
/// `timestamp` and `data`, signed (`webhook-id`, `webhook-timestamp`, `webhook-signature`), at least once, and again with
/// growing pauses until the response is 2xx. A response 410, or days of failures, switch the webhook off; this request
/// switches it on again.
#[utoipa::path(
    put, path = "/v1/webhooks/{id}", operation_id = "put_webhook", tag = "Webhooks",
    params(WebhookPath),
    request_body = WebhookChange,
    responses(
        (status = 200, description = "Changed.", body = WebhookWithSecret),
        (status = 201, description = "Created.", body = WebhookWithSecret),
        Missing, Read, Busy, Guarded
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(WebhookPath { id }): PathSegments<WebhookPath>,
    audit: Auditor,
    request: Request,
) -> Result<Response, V1Error> {
    let body = JsonBody::receive(request, api.body_limits.with_size(LARGEST_BODY)).await?;
    let WebhookChange { url, events, rotate_secret } = body.read(Ok).await?;
    let wanted = WebhookRequest { url, events, rotate_secret };
    let ChangedWebhook { webhook, secret, is_new } = api.gateway.put_webhook(&tenant, &id, wanted).await?;
    // A path or query may hold what only its owner should know.
    let host = Url::parse(&webhook.url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let changes = json!({ "host": host, "events": webhook.events, "rotate_secret": rotate_secret });
    let changes = changes.as_object().cloned().unwrap_or_default();
    audit.record(&api, (&tenant, "webhook.put", &id), changes).await;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(response::json(status, &WebhookWithSecret { webhook, secret }))
}

/// List the webhooks
#[utoipa::path(
    get, path = "/v1/webhooks", operation_id = "list_webhooks", tag = "Webhooks",
    responses((status = 200, description = "All of them, without their secrets.", body = Webhooks), Guarded)
)]
pub(super) async fn list(State(api): State<Api>, ByTenant(tenant): ByTenant) -> Result<Response, V1Error> {
    Ok(response::json(StatusCode::OK, &Webhooks { webhooks: api.gateway.webhooks(&tenant) }))
}

/// Show a webhook
#[utoipa::path(
    get, path = "/v1/webhooks/{id}", operation_id = "get_webhook", tag = "Webhooks",
    params(WebhookPath),
    responses((status = 200, description = "The webhook.", body = WebhookView), Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(WebhookPath { id }): PathSegments<WebhookPath>,
) -> Result<Response, V1Error> {
    Ok(response::json(StatusCode::OK, &api.gateway.webhook(&tenant, &id)?))
}

/// Delete a webhook
///
/// Messages that have not arrived are not sent.
#[utoipa::path(
    delete, path = "/v1/webhooks/{id}", operation_id = "delete_webhook", tag = "Webhooks",
    params(WebhookPath),
    responses((status = 204, description = "Deleted."), Missing, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(WebhookPath { id }): PathSegments<WebhookPath>,
    audit: Auditor,
) -> Result<StatusCode, V1Error> {
    api.gateway.remove_webhook(&tenant, &id).await?;
    audit.record(&api, (&tenant, "webhook.delete", &id), Map::new()).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Show how a webhook's messages fared
///
/// The last attempts of this server since it started.
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/attempts", operation_id = "list_webhook_attempts", tag = "Webhooks",
    params(WebhookPath),
    responses((status = 200, description = "The attempts.", body = WebhookAttempts), Missing, Guarded)
)]
pub(super) async fn attempts(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(WebhookPath { id }): PathSegments<WebhookPath>,
) -> Result<Response, V1Error> {
    let attempts = api.gateway.webhook_attempts(&tenant, &id)?;
    Ok(response::json(StatusCode::OK, &WebhookAttempts { attempts }))
}
