//! `/v1/providers`: uploading components, and what runs them.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::admission::Place;
use super::super::auth::ByTenant;
use super::super::openapi::{self, Bounded, Busy, Guarded, Missing, Read};
use super::super::{Api, detached, form, response};
use super::object::Object;
use super::segments::Segments;
use super::{Failure, content_type, json};
use pushlet_gateway::{ProviderEntry, ProviderLog, ProviderView, SecretHost, UploadRefusal};
use pushlet_model::error::{Error, Kind};

/// Bytes of the body of an activation.
const ACTIVATION: usize = 4 << 10;

/// The providers that a tenant's applications may be registered for.
#[derive(Serialize, ToSchema)]
struct ProviderList {
    /// In the order of their names.
    providers: Vec<ProviderEntry>,
}

/// Hosts that must be confirmed.
#[derive(Serialize)]
struct HostsChanged<'a> {
    error: &'static str,
    message: String,
    hosts: &'a [SecretHost],
}

/// Which version shall be active.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read field by field, so that errors name the field")]
struct Activation {
    /// SHA-256 of the component file, in hex.
    digest: String,
}

/// List the providers
///
/// Those that everybody has, and the tenant's own.
#[utoipa::path(
    get,
    path = "/v1/providers",
    operation_id = "list_providers",
    tag = "Providers",
    responses((status = 200, description = "All of them.", body = ProviderList), Guarded)
)]
pub(super) async fn list(State(api): State<Api>, ByTenant(tenant): ByTenant) -> Result<Response, Failure> {
    let providers = api.gateway.uploads().list(&tenant);
    Ok(response::json(StatusCode::OK, &ProviderList { providers }))
}

/// Upload a provider
///
/// A WebAssembly component of the world `pushlet:provider/http-provider`. It is checked, compiled, held against what
/// the operator allows, tried with its own examples, and only then takes the place of the version before.
///
/// The component's author chooses the hosts that get the secrets of applications; `manifest.secret_hosts` lists them. A
/// version that adds one is answered 409 `hosts_changed` with these `hosts`, until `confirm_hosts` names them.
#[utoipa::path(
    put,
    path = "/v1/providers/{name}",
    operation_id = "put_provider",
    tag = "Providers",
    params(
        ("name" = String, Path, example = "webhook", description = "As its manifest says."),
        ("confirm_hosts" = Option<String>, Query, description =
            "Hosts that may get secrets though the version before sent none there, joined by commas: as `hosts` of `hosts_changed` names them."),
    ),
    request_body(content((openapi::ComponentFile = "application/wasm"))),
    responses(
        (status = 200, description = "It is active.", body = ProviderView),
        Missing, Read, Busy, Bounded, Guarded
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    place: Place,
    Segments(name): Segments<String>,
    Confirmed(hosts): Confirmed,
    request: Request,
) -> Result<Response, Failure> {
    let uploads = api.gateway.uploads().clone();
    content_type(request.headers(), &["application/wasm"])?;
    uploads.may_upload(&tenant, &name)?;
    let most = uploads.largest_component();
    let (parts, body) = request.into_parts();
    let read = form::read_body(&parts, body, api.form.with_body(most)).await;
    let component = read.map_err(|error| {
        if error.kind != Kind::TooLarge {
            return error;
        }
        let message = format!("the component has more than {most} bytes");
        Error::new(Kind::TooLarge, "component_too_large", message)
    })?;
    let upload = uploads.begin(&tenant, &name).await?;
    match detached(place, async move { upload.finish(component.into(), &hosts).await }).await {
        Ok(view) => Ok(response::json(StatusCode::OK, &view)),
        Err(UploadRefusal::HostsChanged(hosts)) => Ok(hosts_changed(&hosts)),
        Err(UploadRefusal::Other(error)) => Err(error.into()),
    }
}

/// 409 with the hosts that must be confirmed.
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
pub(super) struct Confirmed(Vec<String>);

impl<S: Send + Sync> FromRequestParts<S> for Confirmed {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let values: Vec<_> =
            query.filter(|(name, _)| name == "confirm_hosts").map(|(_, value)| value).collect();
        let hosts = values.iter().flat_map(|value| value.split(',')).map(str::trim);
        Ok(Self(hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()))
    }
}

/// Make another version active
///
/// One that was uploaded and is kept; its quarantine ends.
#[utoipa::path(
    post,
    path = "/v1/providers/{name}/activate",
    operation_id = "activate_provider",
    tag = "Providers",
    params(("name" = String, Path, example = "webhook")),
    request_body = Activation,
    responses(
        (status = 200, description = "It is active.", body = ProviderView),
        Missing, Read, Busy, Guarded
    )
)]
pub(super) async fn activate(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    place: Place,
    Segments(name): Segments<String>,
    request: Request,
) -> Result<Response, Failure> {
    let uploads = api.gateway.uploads().clone();
    let fields = json(request, &api, ACTIVATION).await?.read(Ok).await?;
    let mut body = Object::new(fields, "", &["digest"])?;
    let digest = body.needed_text("digest")?;
    let view = detached(place, async move { uploads.activate(&tenant, &name, &digest).await }).await?;
    Ok(response::json(StatusCode::OK, &view))
}

/// Show a provider
#[utoipa::path(
    get,
    path = "/v1/providers/{name}",
    operation_id = "get_provider",
    tag = "Providers",
    params(("name" = String, Path, example = "apns")),
    responses((status = 200, description = "As it is now.", body = ProviderView), Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    Segments(name): Segments<String>,
) -> Result<Response, Failure> {
    Ok(response::json(StatusCode::OK, &api.gateway.uploads().view(&tenant, &name)?))
}

/// Read what a provider printed
///
/// In this tenant's calls, and where it trapped; the last refused upload too.
#[utoipa::path(
    get,
    path = "/v1/providers/{name}/log",
    operation_id = "read_provider_log",
    tag = "Providers",
    params(("name" = String, Path, example = "apns")),
    responses((status = 200, description = "The logs of its versions.", body = ProviderLog), Missing, Guarded)
)]
pub(super) async fn log(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    Segments(name): Segments<String>,
) -> Result<Response, Failure> {
    Ok(response::json(StatusCode::OK, &api.gateway.uploads().log(&tenant, &name)?))
}

/// Remove a provider
///
/// All its versions. Its applications stay, and can't be sent for.
#[utoipa::path(
    delete,
    path = "/v1/providers/{name}",
    operation_id = "delete_provider",
    tag = "Providers",
    params(("name" = String, Path, example = "webhook")),
    responses((status = 204, description = "Removed."), Missing, Busy, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    place: Place,
    Segments(name): Segments<String>,
) -> Result<StatusCode, Failure> {
    let uploads = api.gateway.uploads().clone();
    detached(place, async move { uploads.remove(&tenant, &name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
