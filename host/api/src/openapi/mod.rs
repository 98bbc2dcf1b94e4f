//! `/openapi.json`: the document of this API, made from the routes and completed with the manifests of the caller's
//! providers.
//!
//! Each route is described with its handler (`#[utoipa::path]`). [`schemas`] holds what no type of this program can
//! say, and [`provider_schemas`] and [`examples`] what depends on the providers.

mod examples;
mod provider_schemas;
pub mod schemas;

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::caller::Caller;
use crate::response::{self, ErrorResponse};
use crate::{Api, classic, reload, status, v1};
use pushlet_gateway::Described;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;
use schemas::Guarded;

/// Bytes of the cached documents, one for each set of providers that a tenant has; divided among tenants.
const CACHE_SIZE: usize = 16 << 20;

const GUIDE: &str = "A push gateway. Register an application with its credential, then send: to one device with \
    `/send_notification`, to many with `/v1/notifications`, to any number with `/v1/notifications:stream`. Every \
    target gets one truthful result.\n\nWhat depends on the push service comes from this server's provider \
    components, and is marked with `x-providers`.";

/// The part of the document that does not depend on the providers.
#[derive(OpenApi)]
#[openapi(
    info(title = "Pushlet", description = GUIDE),
    servers((url = "/")),
    tags(
        (name = "Applications", description = "An application is a credential with settings. Secrets go in and never come out."),
        (name = "Notifications", description = "Sending to many targets, with one result for each."),
        (name = "Channels", description = "What a push service keeps for an application: broadcast channels, and other collections that a provider has."),
        (name = "Providers", description = "The components that speak to push services."),
        (name = "Tenants", description = "For the operator, with the key of `[admin]`; a tenant may read about itself."),
        (name = "Deliveries", description = "What became of sends that outlive their callers."),
        (name = "Webhooks", description = "What a tenant's backend is told."),
        (name = "Operation", description = "Changes, reload and backup."),
        (name = "Classic", description = "The three routes of the original Pushlet. Errors never name a `field`."),
        (name = "Health", description = "For load balancers."),
        (name = "Status and metrics", description = "For people and Prometheus."),
    ),
    paths(
        classic::register_application,
        classic::send_notification,
        classic::application_feedback,
        status::show,
        status::healthz,
        status::readyz,
        status::metrics,
        document,
        reload::reload,
    ),
    components(schemas(response::ErrorBody, classic::Accepted, status::NotReady)),
    security(("basic" = []), ("bearer" = []))
)]
struct BaseDocument;

static FIXED: LazyLock<Value> = LazyLock::new(fixed);

/// The documents, by the digests of the providers that they describe.
pub(super) struct Documents(Mutex<DocumentCache>);

type DocumentCache = FairCache<TenantId, Vec<String>, Bytes>;

/// This document
///
/// OpenAPI 3.1, with the options, settings and credentials of the providers that the caller has; for the operator, of
/// those that all tenants have.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "Status and metrics",
    responses((status = 200, description = "The document.", body = Object), Guarded)
)]
pub(super) async fn document(State(api): State<Api>, caller: Caller) -> Result<Response, ErrorResponse> {
    let tenant = caller.tenant().map(|tenant| &tenant.id);
    let providers = api.gateway.described(tenant);
    // What all tenants share may take the place of anyone in the cache.
    let tenant = tenant.cloned().unwrap_or_else(TenantId::default_tenant);
    let text = api.documents.get(&tenant, &providers, !api.observability.has_metrics_listener())?;
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
}

impl Default for Documents {
    fn default() -> Self {
        Self(Mutex::new(FairCache::new(CACHE_SIZE)))
    }
}

impl Documents {
    /// `metrics`: whether `/metrics` is one of the routes.
    fn get(&self, tenant: &TenantId, providers: &[Described], metrics: bool) -> Result<Bytes, Error> {
        // By the providers and not by the tenant: most tenants have only the built-in ones.
        let digests: Vec<String> = providers.iter().map(|provider| provider.digest.clone()).collect();
        if let Some(text) = self.0.lock().get(&digests) {
            return Ok(text.clone());
        }
        let text = Bytes::from(serde_json::to_vec(&complete(providers, metrics)).map_err(Error::internal)?);
        // A document that finds no room in the cache is made again for the next request.
        let _ = self.0.lock().get_or_insert_with(tenant, &digests, text.len(), |_| true, || text.clone());
        Ok(text)
    }
}

fn fixed() -> Value {
    let mut document = BaseDocument::openapi();
    document.merge(v1::V1Documents::openapi());
    let components = document.components.get_or_insert_default();
    let scheme = |scheme, text: &str| {
        let http = HttpBuilder::new().scheme(scheme).description(Some(text)).build();
        SecurityScheme::Http(http)
    };
    let basic = "Name and password of the server's `[auth]`, or a tenant's id and key.";
    let bearer = "A tenant's key; or the operator's, for `/v1/tenants`, `/v1/overview` and `/metrics`.";
    components.add_security_scheme("basic", scheme(HttpAuthScheme::Basic, basic));
    components.add_security_scheme("bearer", scheme(HttpAuthScheme::Bearer, bearer));
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let paths = object_at(&mut document, "/paths").into_iter().flat_map(|paths| paths.values_mut());
    let operations = paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut());
    let parameters = operations.filter_map(|operation| operation.get_mut("parameters")?.as_array_mut());
    parameters.flatten().for_each(remove_null);
    document
}

/// Removes `null` from the types of a parameter: a missing parameter is left out.
fn remove_null(parameter: &mut Value) {
    if let Some(kinds) = parameter.pointer_mut("/schema/type")
        && let Some(kind) = kinds.get(0).cloned()
    {
        *kinds = kind;
    }
}

fn complete(providers: &[Described], metrics: bool) -> Value {
    let mut document = FIXED.clone();
    if let Some(all) = object_at(&mut document, "/components/schemas") {
        all.extend(schemas::fixed());
        all.extend(provider_schemas::schemas(providers));
        all.sort_keys();
    }
    if let Some(paths) = object_at(&mut document, "/paths") {
        if !metrics {
            paths.remove("/metrics");
        }
        for (path, name, examples) in examples::bodies(providers) {
            add_examples(paths, path, name, &examples);
        }
    }
    document
}

/// Adds examples to the request's bodies with this schema.
fn add_examples(paths: &mut Map<String, Value>, path: &str, schema: &str, examples: &Map<String, Value>) {
    let reference = format!("#/components/schemas/{schema}");
    let operations = paths.get_mut(path).and_then(Value::as_object_mut);
    for operation in operations.into_iter().flat_map(|operations| operations.values_mut()) {
        let content = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
        for media in content.into_iter().flat_map(|content| content.values_mut()) {
            if media.pointer("/schema/$ref").is_some_and(|schema| *schema == json!(reference)) {
                media["examples"] = Value::Object(examples.clone());
            }
        }
    }
}

fn object_at<'a>(document: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    document.pointer_mut(pointer).and_then(Value::as_object_mut)
}

#[cfg(test)]
mod tests;
