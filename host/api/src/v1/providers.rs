//! `/v1/providers`: uploading components, and the versions that are kept.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::audit::Auditor;
use super::extract::PathSegments;
use crate::Api;
use crate::body::{ensure_media_type, read_body};
use crate::caller::ByTenant;
use crate::in_flight::{InFlightPermit, detached};
use crate::json::{JsonBody, required_text};
use crate::openapi::schemas::{self, Bounded, Busy, Guarded, Missing, Read};
use crate::response::{self, V1Error};
use pushlet_gateway::{ProviderEntry, ProviderLog, ProviderView, SecretHost, UploadRefusal};
use pushlet_model::contract::WIT;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

/// Bytes of the body of an activation.
const ACTIVATION_SIZE: usize = 4 << 10;

/// The providers that a tenant's applications may use.
#[derive(Serialize, ToSchema)]
struct ProviderList {
    /// In the order of their names.
    providers: Vec<ProviderEntry>,
}

/// The hosts that must be confirmed.
#[derive(Serialize)]
struct HostsChanged<'a> {
    error: &'static str,
    message: String,
    hosts: &'a [SecretHost],
}

/// Which version to activate.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// SHA-256 of the component file, in hex.
    #[serde(deserialize_with = "required_text")]
    digest: String,
}

/// List the providers
///
/// The built-in ones, and the tenant's own.
#[utoipa::path(
    get, path = "/v1/providers", operation_id = "list_providers", tag = "Providers",
    responses((status = 200, description = "All providers.", body = ProviderList), Guarded)
)]
pub(super) async fn list(State(api): State<Api>, ByTenant(tenant): ByTenant) -> Result<Response, V1Error> {
    let providers = api.gateway.uploads().list(&tenant);
    Ok(response::json(StatusCode::OK, &ProviderList { providers }))
}

/// Upload a provider
///
/// A WebAssembly component of the world `pushlet:provider/http-provider`. It is checked, compiled, compared with what
/// the operator allows, tried with its own examples, and only then replaces the version before it.
///
/// The component's author chooses the hosts that get the secrets of applications; `manifest.secret_hosts` lists them. A
/// version that adds hosts gets 409 `hosts_changed` with these `hosts`, until `confirm_hosts` names them.
#[utoipa::path(
    put, path = "/v1/providers/{name}", operation_id = "put_provider", tag = "Providers",
    params(
        ("name" = String, Path, example = "webhook", description = "As its manifest says."),
        ("confirm_hosts" = Option<String>, Query, description =
            "Hosts that may get secrets although the version before sent none there, joined by commas: the `hosts` of `hosts_changed`."),
    ),
    request_body(content((schemas::ComponentFile = "application/wasm"))),
    responses((status = 200, description = "It is active.", body = ProviderView), Missing, Read, Busy, Bounded, Guarded)
)]
pub(super) async fn put(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments(name): PathSegments<String>,
    ConfirmedHosts(hosts): ConfirmedHosts,
    audit: Auditor,
    request: Request,
) -> Result<Response, V1Error> {
    let uploads = api.gateway.uploads().clone();
    ensure_media_type(request.headers(), &["application/wasm"])?;
    // Before the body, so that a refused upload is not read.
    uploads.may_upload(&tenant, &name)?;
    let max = uploads.largest_component();
    let (parts, body) = request.into_parts();
    let read = read_body(&parts, body, api.body_limits.with_size(max)).await;
    let component = read.map_err(|error| {
        if error.kind != Kind::TooLarge {
            return error;
        }
        let message = format!("the component has more than {max} bytes");
        Error::new(Kind::TooLarge, "component_too_large", message)
    })?;
    // Only now, so that a caller that writes slowly does not hold a place.
    let upload = uploads.begin(&tenant, &name).await?;
    let before = digest(&api, &tenant, &name);
    let work = async move {
        let uploaded = upload.finish(component.into(), &hosts).await;
        if let Ok(view) = &uploaded {
            let changes = replaced(&before, &json!(view.digest));
            audit.record(&api, (&tenant, "provider.put", &name), changes).await;
        }
        uploaded
    };
    match detached(permit, work).await {
        Ok(view) => Ok(response::json(StatusCode::OK, &view)),
        Err(UploadRefusal::HostsChanged(hosts)) => Ok(hosts_changed(&hosts)),
        Err(UploadRefusal::Other(error)) => Err(error.into()),
    }
}

/// Returns the digest of the active version; null: there is none.
fn digest(api: &Api, tenant: &TenantId, name: &str) -> Value {
    api.gateway.uploads().view(tenant, name).map_or(Value::Null, |view| json!(view.digest))
}

fn replaced(before: &Value, after: &Value) -> Map<String, Value> {
    Map::from_iter([("digest".to_owned(), json!({ "from": before, "to": after }))])
}

/// Responds 409 with the hosts that must be confirmed.
fn hosts_changed(hosts: &[SecretHost]) -> Response {
    let each = hosts.iter().map(|added| format!("{} ({})", added.host, added.used_for));
    let mut names: Vec<&str> = hosts.iter().map(|added| added.host.as_str()).collect();
    names.dedup();
    let message = format!(
        "this version sends secrets of applications to hosts that the version before it did not: {}; to allow that, \
         upload it with confirm_hosts={}",
        each.collect::<Vec<_>>().join(", "),
        names.join(",")
    );
    const CODE: &str = "hosts_changed";
    response::conflict(CODE, &HostsChanged { error: CODE, message, hosts })
}

/// `confirm_hosts` of the query.
pub struct ConfirmedHosts(Vec<String>);

impl<S: Send + Sync> FromRequestParts<S> for ConfirmedHosts {
    type Rejection = V1Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, V1Error> {
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let values: Vec<_> =
            query.filter(|(name, _)| name == "confirm_hosts").map(|(_, value)| value).collect();
        let hosts = values.iter().flat_map(|value| value.split(',')).map(str::trim);
        Ok(Self(hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()))
    }
}

/// Activate another version
///
/// One that was uploaded before and is kept; its quarantine ends.
#[utoipa::path(
    post, path = "/v1/providers/{name}/activate", operation_id = "activate_provider", tag = "Providers",
    params(("name" = String, Path, example = "webhook")),
    request_body = Activation,
    responses((status = 200, description = "It is active.", body = ProviderView), Missing, Read, Busy, Guarded)
)]
pub(super) async fn activate(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments(name): PathSegments<String>,
    audit: Auditor,
    request: Request,
) -> Result<Response, V1Error> {
    let uploads = api.gateway.uploads().clone();
    let body = JsonBody::receive(request, api.body_limits.with_size(ACTIVATION_SIZE)).await?;
    let Activation { digest } = body.read(Ok).await?;
    let before = self::digest(&api, &tenant, &name);
    let work = async move {
        let view = uploads.activate(&tenant, &name, &digest).await?;
        let changes = replaced(&before, &json!(view.digest));
        audit.record(&api, (&tenant, "provider.activate", &name), changes).await;
        Ok::<_, Error>(view)
    };
    let view = detached(permit, work).await?;
    Ok(response::json(StatusCode::OK, &view))
}

/// Show a provider
#[utoipa::path(
    get, path = "/v1/providers/{name}", operation_id = "get_provider", tag = "Providers",
    params(("name" = String, Path, example = "apns")),
    responses((status = 200, description = "The provider.", body = ProviderView), Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(name): PathSegments<String>,
) -> Result<Response, V1Error> {
    Ok(response::json(StatusCode::OK, &api.gateway.uploads().view(&tenant, &name)?))
}

/// Read what a provider printed
///
/// Its last calls for this tenant with time, application, request and error; what they printed, where it trapped; and
/// the output of the last refused upload.
#[utoipa::path(
    get, path = "/v1/providers/{name}/log", operation_id = "read_provider_log", tag = "Providers",
    params(("name" = String, Path, example = "apns")),
    responses((status = 200, description = "The logs of its versions.", body = ProviderLog), Missing, Guarded)
)]
pub(super) async fn log(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(name): PathSegments<String>,
) -> Result<Response, V1Error> {
    Ok(response::json(StatusCode::OK, &api.gateway.uploads().log(&tenant, &name)?))
}

/// Read the contract
///
/// The WIT package that a provider implements, as this server knows it: `provider.wit`.
#[utoipa::path(
    get, path = "/v1/contract", operation_id = "read_contract", tag = "Providers",
    responses((status = 200, description = "Its text.", body = String, content_type = "text/plain"), Guarded)
)]
pub(super) async fn contract(ByTenant(_): ByTenant) -> &'static str {
    WIT
}

/// Delete a provider
///
/// With all its versions. Its applications stay, but sends for them fail.
#[utoipa::path(
    delete, path = "/v1/providers/{name}", operation_id = "delete_provider", tag = "Providers",
    params(("name" = String, Path, example = "webhook")),
    responses((status = 204, description = "Deleted."), Missing, Busy, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    PathSegments(name): PathSegments<String>,
    audit: Auditor,
) -> Result<StatusCode, V1Error> {
    let before = digest(&api, &tenant, &name);
    let work = async move {
        api.gateway.uploads().clone().remove(&tenant, &name).await?;
        api.gateway.forget_capture(&tenant, &name);
        let changes = replaced(&before, &Value::Null);
        audit.record(&api, (&tenant, "provider.delete", &name), changes).await;
        Ok::<_, Error>(())
    };
    detached(permit, work).await?;
    Ok(StatusCode::NO_CONTENT)
}
