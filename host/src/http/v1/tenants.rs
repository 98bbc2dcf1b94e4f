//! `/v1/tenants`: for the operator; a tenant may read about itself.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};

use super::super::access::{Caller, HasOperator};
use super::super::admission::Place;
use super::super::openapi::{Addressed, Busy, Guarded, Missing, Read};
use super::super::{Api, answer, detached};
use super::object::Object;
use super::page::Paging;
use super::segments::Segments;
use super::tenant::{
    Keys, Made, NewTenant, Shown, SinceStart, TenantPage, Used, UsedLimit, key, shown, written,
};
use super::{Failure, json};
use crate::error::{Error, Kind};
use crate::tenant::{Limits, TenantId};
use crate::tenants::{KeyRequest, NewKey, Tenants, Usage, Wanted};

/// Bytes of a body.
const LARGEST_BODY: usize = 16 << 10;
const LIMITS: &[&str] = &[
    "requests_per_second",
    "pushes_per_second",
    "concurrent_sends",
    "applications",
    "components",
    "component_bytes",
    "call_milliseconds",
    "cpu_milliseconds_per_second",
    "instance_memory_bytes",
    "memory_bytes",
];
const LONGEST_EXPIRY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// List the tenants
///
/// For the operator. In the order of their ids, in pages.
#[utoipa::path(
    get,
    path = "/v1/tenants",
    operation_id = "list_tenants",
    tag = "Tenants",
    params(
        ("after" = Option<String>, Query, description = "Those behind this id."),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "How many; 100 if not given."),
    ),
    responses((status = 200, description = "A page.", body = TenantPage), Addressed, Guarded)
)]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    paging: Paging,
) -> Result<Response, Failure> {
    caller.is_operator(operator)?;
    let all: Vec<Shown> = api.backend.tenants().list().into_iter().map(shown).collect();
    let (page, next) = paging.of(&all, |tenant| &tenant.id);
    Ok(answer::json(StatusCode::OK, &TenantPage { tenants: page.to_vec(), next }))
}

/// Make or change a tenant
///
/// For the operator. `{"suspended", "limits"}`; a field that is not there stays as it is, and `limits` replaces all
/// of them. A new tenant's first key is shown this once.
#[utoipa::path(
    put,
    path = "/v1/tenants/{id}",
    operation_id = "put_tenant",
    tag = "Tenants",
    params(("id" = String, Path, min_length = 1, max_length = 64, example = "acme")),
    request_body(content = Object, example = json!({"limits": {"pushes_per_second": 1000}})),
    responses(
        (status = 200, description = "Changed.", body = Shown),
        (status = 201, description = "Made.", body = NewTenant),
        Read, Guarded
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Segments(id): Segments<String>,
    request: Request,
) -> Result<Response, Failure> {
    caller.is_operator(operator)?;
    let id = TenantId::parse(&id).ok_or_else(|| {
        let message = "a tenant's id is 1 to 64 letters, digits, dots, dashes and underscores, and begins with \
                       a letter or digit";
        Error::field("invalid_tenant_id", "id", message)
    })?;
    let mut body = body(request, &api, &["suspended", "limits"]).await?;
    let wanted = Wanted {
        suspended: body.maybe("suspended")?,
        limits: body.object("limits")?.map(limits).transpose()?,
    };
    let owner = id.clone();
    let key = change(&api, move |tenants| tenants.put(&owner, wanted)).await?;
    match key {
        Some(key) => {
            let (api_key, key) = (key.key.reveal().to_string(), key.key.id().to_string());
            Ok(answer::json(StatusCode::CREATED, &NewTenant { id: id.to_string(), api_key, key }))
        }
        None => Ok(answer::json(StatusCode::OK, &shown(api.backend.tenants().view(&id)?))),
    }
}

/// Show a tenant
///
/// For the operator, and for the tenant itself.
#[utoipa::path(
    get,
    path = "/v1/tenants/{id}",
    operation_id = "show_tenant",
    tag = "Tenants",
    params(("id" = String, Path, example = "acme")),
    responses((status = 200, description = "The tenant.", body = Shown), Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Segments(id): Segments<String>,
) -> Result<Response, Failure> {
    let id = readable(&caller, &id)?;
    Ok(answer::json(StatusCode::OK, &shown(api.backend.tenants().view(&id)?)))
}

/// Forget a tenant
///
/// For the operator. With all that the tenant has; its sends under way finish.
#[utoipa::path(
    delete,
    path = "/v1/tenants/{id}",
    operation_id = "delete_tenant",
    tag = "Tenants",
    params(("id" = String, Path, example = "acme")),
    responses((status = 204, description = "Forgotten."), Missing, Busy, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Extension(place): Extension<Place>,
    Segments(id): Segments<String>,
) -> Result<StatusCode, Failure> {
    caller.is_operator(operator)?;
    let id = named(&id)?;
    detached(place, api.backend.remove_tenant(id.clone())).await?;
    api.idempotency.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// Show what a tenant uses
///
/// For the operator, and for the tenant itself: of each limit, and since the start.
#[utoipa::path(
    get,
    path = "/v1/tenants/{id}/usage",
    operation_id = "tenant_usage",
    tag = "Tenants",
    params(("id" = String, Path, example = "acme")),
    responses((status = 200, description = "What is used.", body = Used), Missing, Guarded)
)]
pub(super) async fn usage(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Segments(id): Segments<String>,
) -> Result<Response, Failure> {
    let id = readable(&caller, &id)?;
    let Usage { requests, pushes, refused, limits } = api.backend.usage(&id)?;
    let limits = limits
        .into_iter()
        .map(|limit| (limit.limit.to_owned(), UsedLimit { used: limit.used, limit: limit.most }))
        .collect();
    let since_start = SinceStart { requests, pushes, refused };
    Ok(answer::json(StatusCode::OK, &Used { id: id.to_string(), limits, since_start }))
}

/// Make an API key
///
/// For the operator. `{"expires_in", "others_expire_in"}`, both in seconds and both optional: with the second, the
/// keys that there are go on for that long and no longer.
#[utoipa::path(
    post,
    path = "/v1/tenants/{id}/keys",
    operation_id = "add_tenant_key",
    tag = "Tenants",
    params(("id" = String, Path, example = "acme")),
    request_body(content = Object, example = json!({"others_expire_in": 3600})),
    responses((status = 201, description = "Made.", body = Made), Missing, Read, Busy, Guarded)
)]
pub(super) async fn add_key(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Segments(id): Segments<String>,
    request: Request,
) -> Result<Response, Failure> {
    caller.is_operator(operator)?;
    let id = named(&id)?;
    let mut body = body(request, &api, &["expires_in", "others_expire_in"]).await?;
    let wanted = KeyRequest {
        expires_in: expiry(&mut body, "expires_in")?,
        others_expire_in: expiry(&mut body, "others_expire_in")?,
    };
    let NewKey { key, expires } = change(&api, move |tenants| tenants.add_key(&id, wanted)).await?;
    let (id, api_key) = (key.id().to_string(), key.reveal().to_string());
    Ok(answer::json(StatusCode::CREATED, &Made { id, api_key, expires: expires.map(written) }))
}

/// List a tenant's API keys
///
/// For the operator. The keys themselves are not kept.
#[utoipa::path(
    get,
    path = "/v1/tenants/{id}/keys",
    operation_id = "list_tenant_keys",
    tag = "Tenants",
    params(("id" = String, Path, example = "acme")),
    responses((status = 200, description = "All keys.", body = Keys), Missing, Guarded)
)]
pub(super) async fn list_keys(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Segments(id): Segments<String>,
) -> Result<Response, Failure> {
    caller.is_operator(operator)?;
    let keys = api.backend.tenants().keys(&named(&id)?)?.into_iter().map(key).collect();
    Ok(answer::json(StatusCode::OK, &Keys { keys }))
}

/// Revoke an API key
///
/// For the operator. It opens nothing from now on.
#[utoipa::path(
    delete,
    path = "/v1/tenants/{id}/keys/{key}",
    operation_id = "delete_tenant_key",
    tag = "Tenants",
    params(("id" = String, Path, example = "acme"), ("key" = String, Path, description = "The key's id.")),
    responses((status = 204, description = "Revoked."), Missing, Guarded)
)]
pub(super) async fn delete_key(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Segments((id, key)): Segments<(String, String)>,
) -> Result<StatusCode, Failure> {
    caller.is_operator(operator)?;
    let id = named(&id)?;
    change(&api, move |tenants| tenants.remove_key(&id, &key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Runs a change, which blocks until it is kept.
async fn change<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce(&Tenants) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let tenants = api.backend.tenants().clone();
    tokio::task::spawn_blocking(move || work(&tenants)).await.map_err(Error::internal)?
}

/// No body counts as an empty object.
async fn body(request: Request, api: &Api, known: &[&str]) -> Result<Object, Error> {
    let body = json(request, api, LARGEST_BODY).await?;
    if body.is_empty() { Object::new(Map::new(), "", known) } else { Object::parse(&body, known) }
}

fn limits(fields: Map<String, Value>) -> Result<Limits, Error> {
    let mut own = Object::new(fields, "limits.", LIMITS)?;
    Ok(Limits {
        requests_per_second: own.positive("requests_per_second")?,
        pushes_per_second: own.positive("pushes_per_second")?,
        concurrent_sends: own.positive("concurrent_sends")?,
        applications: own.count("applications")?,
        components: own.count("components")?,
        component_bytes: own.count("component_bytes")?,
        call_milliseconds: own.positive("call_milliseconds")?,
        cpu_milliseconds_per_second: own.positive("cpu_milliseconds_per_second")?,
        instance_memory_bytes: own.positive("instance_memory_bytes")?,
        memory_bytes: own.positive("memory_bytes")?,
    })
}

fn expiry(body: &mut Object, name: &str) -> Result<Option<Duration>, Error> {
    let Some(value) = body.value(name) else { return Ok(None) };
    let wait = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    wait.filter(|wait| *wait <= LONGEST_EXPIRY).map(Some).ok_or_else(|| {
        let message = format!("{name} must be a number of seconds from 0 to {}", LONGEST_EXPIRY.as_secs());
        Error::field(format!("invalid_{name}"), name, message)
    })
}

/// The tenant of a path, if the caller may read about it. All others are not there.
fn readable(caller: &Caller, id: &str) -> Result<TenantId, Error> {
    match caller {
        Caller::Tenant(own) if own.id.as_str() != id => Err(not_found(id)),
        _ => named(id),
    }
}

fn named(id: &str) -> Result<TenantId, Error> {
    TenantId::parse(id).ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> Error {
    let id: String = id.chars().take(64).collect();
    Error::new(Kind::NotFound, "tenant_not_found", format!("there is no tenant {id}"))
}
