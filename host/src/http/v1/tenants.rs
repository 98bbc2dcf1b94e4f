//! `/v1/tenants`: for the operator; a tenant may read about itself.

use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::access::{Caller, HasOperator};
use super::super::admission::Place;
use super::super::{Api, answer, detached};
use super::object::Object;
use super::page::Paging;
use super::{Failure, json};
use crate::error::{Error, Kind};
use crate::tenant::{Limits, TenantId};
use crate::tenants::{KeyRequest, KeyView, NewKey, TenantView, Tenants, Usage, Wanted};

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

#[derive(Serialize)]
struct Shown {
    id: String,
    created: String,
    suspended: bool,
    /// The tenant's own; what is not here is as for everybody.
    limits: Limits,
}

#[derive(Serialize)]
struct Key {
    id: String,
    created: String,
    expires: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    paging: Paging,
) -> Result<Response, Failure> {
    caller.is_operator(operator)?;
    let all: Vec<Shown> = api.backend.tenants().list().into_iter().map(shown).collect();
    let (page, next) = paging.of(&all, |tenant| &tenant.id);
    Ok(answer::json(StatusCode::OK, &json!({ "tenants": page, "next": next })))
}

/// `{"suspended", "limits"}`; a field that is not there stays as it is, and `limits` replaces all of them.
/// 201 with the first key for a new tenant; it is shown this once.
pub(super) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Path(id): Path<String>,
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
            let body =
                json!({"id": id.as_str(), "api_key": key.key.reveal(), "key": key.key.id().to_string()});
            Ok(answer::json(StatusCode::CREATED, &body))
        }
        None => Ok(answer::json(StatusCode::OK, &shown(api.backend.tenants().view(&id)?))),
    }
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = readable(&caller, &id)?;
    Ok(answer::json(StatusCode::OK, &shown(api.backend.tenants().view(&id)?)))
}

/// With all that it has.
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Extension(place): Extension<Place>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    caller.is_operator(operator)?;
    let id = named(&id)?;
    detached(place, api.backend.remove_tenant(id.clone())).await?;
    api.idempotency.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// What is used of each limit.
pub(super) async fn usage(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = readable(&caller, &id)?;
    let Usage { requests, pushes, refused, limits } = api.backend.usage(&id)?;
    let limits: Map<String, Value> = limits
        .into_iter()
        .map(|limit| (limit.limit.to_owned(), json!({"used": limit.used, "limit": limit.most})))
        .collect();
    let since_start = json!({"requests": requests, "pushes": pushes, "refused": refused});
    Ok(answer::json(
        StatusCode::OK,
        &json!({"id": id.as_str(), "limits": limits, "since_start": since_start}),
    ))
}

/// `{"expires_in", "others_expire_in"}`, both in seconds and both optional.
pub(super) async fn add_key(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Path(id): Path<String>,
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
    let body = json!({"id": key.id().to_string(), "api_key": key.reveal(), "expires": expires.map(written)});
    Ok(answer::json(StatusCode::CREATED, &body))
}

pub(super) async fn list_keys(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    caller.is_operator(operator)?;
    let keys: Vec<Key> = api.backend.tenants().keys(&named(&id)?)?.into_iter().map(key).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "keys": keys })))
}

pub(super) async fn delete_key(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(operator): Extension<HasOperator>,
    Path((id, key)): Path<(String, String)>,
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

fn shown(tenant: TenantView) -> Shown {
    let TenantView { id, created, suspended, limits } = tenant;
    Shown { id: id.to_string(), created: written(created), suspended, limits }
}

fn key(key: KeyView) -> Key {
    Key { id: key.id.to_string(), created: written(key.created), expires: key.expires.map(written) }
}

fn written(time: SystemTime) -> String {
    answer::utc(time).to_string()
}
