//! `/v1/tenants`: for the operator; a tenant may read about itself.

mod shapes;

use std::time::{Duration, SystemTime};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};

use super::super::admission::Place;
use super::super::auth::{Caller, Operator};
use super::super::openapi::{Addressed, Busy, Guarded, Missing, Operators, Read};
use super::super::{Api, detached, response};
use super::object::Object;
use super::page::Paging;
use super::segments::Segments;
use super::{Failure, json};
use pushlet_gateway::tenants::{KeyRequest, KeyView, LimitUse, NewKey, TenantView, Tenants, Usage, Wanted};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{TenantId, TenantLimits};
use shapes::{
    Key, Keys, MadeKey, MadeTenant, NewKeyRequest, OfTenant, Shown, SinceStart, TenantChange, TenantUsage,
    TenantsPage, Used,
};

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
/// In pages, in the order of their ids.
#[utoipa::path(
    get,
    path = "/v1/tenants",
    operation_id = "list_tenants",
    tag = "Tenants",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 1000), ("after" = Option<String>, Query)),
    responses(
        (status = 200, description = "A page of them.", body = TenantsPage),
        Addressed, Operators, Guarded
    )
)]
pub(super) async fn list(State(api): State<Api>, paging: Paging, _: Operator) -> Result<Response, Failure> {
    let all: Vec<Shown> = api.gateway.tenants().list().into_iter().map(shown).collect();
    let (tenants, next) = paging.of(&all, |tenant| &tenant.id);
    Ok(response::json(StatusCode::OK, &TenantsPage { tenants, next }))
}

/// Make or change a tenant
///
/// A new one is answered with its first key, which is shown this once.
#[utoipa::path(
    put,
    path = "/v1/tenants/{id}",
    operation_id = "put_tenant",
    tag = "Tenants",
    params(OfTenant),
    request_body = TenantChange,
    responses(
        (status = 200, description = "It is changed.", body = Shown),
        (status = 201, description = "It is made.", body = MadeTenant),
        Addressed, Read, Operators, Guarded
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    Segments(id): Segments<String>,
    _: Operator,
    request: Request,
) -> Result<Response, Failure> {
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
            let (api_key, key) = (key.key.reveal().to_owned(), key.key.id().to_string());
            Ok(response::json(StatusCode::CREATED, &MadeTenant { id: id.to_string(), api_key, key }))
        }
        None => Ok(response::json(StatusCode::OK, &shown(api.gateway.tenants().view(&id)?))),
    }
}

/// Show a tenant
///
/// A tenant may read about itself.
#[utoipa::path(
    get,
    path = "/v1/tenants/{id}",
    operation_id = "read_tenant",
    tag = "Tenants",
    params(OfTenant),
    responses(
        (status = 200, description = "The tenant.", body = Shown), Missing, Guarded
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Response, Failure> {
    let id = readable(&caller, &id)?;
    Ok(response::json(StatusCode::OK, &shown(api.gateway.tenants().view(&id)?)))
}

/// Delete a tenant
///
/// With all that it has. Sends under way finish.
#[utoipa::path(
    delete,
    path = "/v1/tenants/{id}",
    operation_id = "delete_tenant",
    tag = "Tenants",
    params(OfTenant),
    responses(
        (status = 204, description = "It is gone."), Missing, Busy, Operators, Guarded
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    place: Place,
    Segments(id): Segments<String>,
    _: Operator,
) -> Result<StatusCode, Failure> {
    let id = named(&id)?;
    let (gateway, tenant) = (api.gateway.clone(), id.clone());
    detached(place, async move { gateway.remove_tenant(&tenant).await }).await?;
    api.idempotency.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// Show what a tenant uses of its limits
///
/// A tenant may read about itself.
#[utoipa::path(
    get,
    path = "/v1/tenants/{id}/usage",
    operation_id = "read_tenant_usage",
    tag = "Tenants",
    params(OfTenant),
    responses(
        (status = 200, description = "Use and limits.", body = TenantUsage), Missing, Guarded
    )
)]
pub(super) async fn usage(
    State(api): State<Api>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Response, Failure> {
    let id = readable(&caller, &id)?;
    let Usage { requests, pushes, refused, limits, memory, work } = api.gateway.usage(&id)?;
    let used = |limit: LimitUse| (limit.limit, Used { used: limit.used, limit: limit.most });
    let limits = limits.into_iter().map(used).collect();
    let memory_bytes = memory.into_iter().map(|(of, bytes)| (of.name(), bytes as u64)).collect();
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let cpu_milliseconds = work.into_iter().map(|(work, time)| (work.name(), milliseconds(time))).collect();
    let since_start = SinceStart { requests, pushes, refused, cpu_milliseconds };
    Ok(response::json(StatusCode::OK, &TenantUsage { id: id.to_string(), limits, memory_bytes, since_start }))
}

/// Make one more API key
///
/// The key is shown this once. Older keys stay good, or end after a time that is given.
#[utoipa::path(
    post,
    path = "/v1/tenants/{id}/keys",
    operation_id = "create_tenant_key",
    tag = "Tenants",
    params(OfTenant),
    request_body = NewKeyRequest,
    responses(
        (status = 201, description = "The new key.", body = MadeKey),
        Missing, Read, Busy, Operators, Guarded
    )
)]
pub(super) async fn add_key(
    State(api): State<Api>,
    Segments(id): Segments<String>,
    _: Operator,
    request: Request,
) -> Result<Response, Failure> {
    let id = named(&id)?;
    let mut body = body(request, &api, &["expires_in", "others_expire_in"]).await?;
    let wanted = KeyRequest {
        expires_in: expiry(&mut body, "expires_in")?,
        others_expire_in: expiry(&mut body, "others_expire_in")?,
    };
    let NewKey { key, expires } = change(&api, move |tenants| tenants.add_key(&id, wanted)).await?;
    let (id, api_key) = (key.id().to_string(), key.reveal().to_owned());
    Ok(response::json(StatusCode::CREATED, &MadeKey { id, api_key, expires: expires.map(written) }))
}

/// List the API keys
///
/// Without what is secret.
#[utoipa::path(
    get,
    path = "/v1/tenants/{id}/keys",
    operation_id = "list_tenant_keys",
    tag = "Tenants",
    params(OfTenant),
    responses(
        (status = 200, description = "Those that are good.", body = Keys), Missing, Operators, Guarded
    )
)]
pub(super) async fn list_keys(
    State(api): State<Api>,
    Segments(id): Segments<String>,
    _: Operator,
) -> Result<Response, Failure> {
    let keys = api.gateway.tenants().keys(&named(&id)?)?.into_iter().map(key).collect();
    Ok(response::json(StatusCode::OK, &Keys { keys }))
}

/// End an API key at once
#[utoipa::path(
    delete,
    path = "/v1/tenants/{id}/keys/{key}",
    operation_id = "delete_tenant_key",
    tag = "Tenants",
    params(OfTenant, ("key" = String, Path, example = "0123456789abcdef", description = "Its id.")),
    responses(
        (status = 204, description = "It is not good any more."), Missing, Operators, Guarded
    )
)]
pub(super) async fn delete_key(
    State(api): State<Api>,
    Segments((id, key)): Segments<(String, String)>,
    _: Operator,
) -> Result<StatusCode, Failure> {
    let id = named(&id)?;
    change(&api, move |tenants| tenants.remove_key(&id, &key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Runs a change, which blocks until it is kept.
async fn change<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce(&Tenants) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let tenants = api.gateway.tenants().clone();
    tokio::task::spawn_blocking(move || work(&tenants)).await.map_err(Error::internal)?
}

/// No body counts as an empty object.
async fn body(request: Request, api: &Api, known: &[&str]) -> Result<Object, Error> {
    let body = json(request, api, LARGEST_BODY).await?;
    let fields = if body.is_empty() { Map::new() } else { body.read(Ok).await? };
    Object::new(fields, "", known)
}

fn limits(fields: Map<String, Value>) -> Result<TenantLimits, Error> {
    let mut own = Object::new(fields, "limits.", LIMITS)?;
    Ok(TenantLimits {
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
        Caller::Tenant(own) if own.tenant().id.as_str() != id => Err(not_found(id)),
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

fn shown(tenant: TenantView) -> Shown {
    let TenantView { id, created, suspended, limits } = tenant;
    Shown { id: id.to_string(), created: written(created), suspended, limits }
}

fn key(key: KeyView) -> Key {
    Key { id: key.id.to_string(), created: written(key.created), expires: key.expires.map(written) }
}

fn written(time: SystemTime) -> String {
    pushlet_gateway::utc(time).to_string()
}
