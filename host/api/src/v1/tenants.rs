//! `/v1/tenants`: for the operator; a tenant may read about itself.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{PageQuery, PathSegments};
use crate::Api;
use crate::caller::{Caller, Operator};
use crate::in_flight::{InFlightPermit, detached};
use crate::json::{JsonBody, JsonObject};
use crate::openapi::schemas::{Addressed, Busy, Guarded, Missing, Operators, Read};
use crate::response::{self, V1Error};
use pushlet_gateway::tenants::{LimitUse, TenantView, Tenants, Usage, Wanted};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{TenantId, TenantLimits};

/// Bytes of a body.
const LARGEST_BODY: usize = 16 << 10;

/// Which tenant a path is about.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct TenantPath {
    /// 1 to 64 letters, digits, dots, dashes and underscores.
    #[param(example = "acme")]
    id: String,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
struct Tenant {
    id: String,
    /// RFC 3339.
    created: String,
    suspended: bool,
    /// The tenant's own limits; for others, the server's defaults apply.
    limits: TenantLimits,
}

#[derive(Serialize, ToSchema)]
struct TenantsPage<'a> {
    /// In the order of their ids.
    #[schema(value_type = Vec<Tenant>)]
    tenants: &'a [Tenant],
    /// The `after` of the next page; null: this is the last one.
    next: Option<String>,
}

/// A tenant that was just created.
#[derive(Serialize, ToSchema)]
struct MadeTenant {
    id: String,
    /// Its first key. It is only shown once.
    api_key: String,
    /// The id of the key.
    key: String,
}

/// A field that is missing stays as it is; `limits` replaces all of them.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TenantChange {
    suspended: Option<bool>,
    #[schema(value_type = Option<TenantLimits>)]
    limits: Option<JsonObject<TenantLimits>>,
}

/// How much of one limit is used.
#[derive(Serialize, ToSchema)]
struct TenantLimitUse {
    /// null: the limit applies to each call.
    used: Option<u64>,
    /// null: there is no limit.
    limit: Option<u64>,
}

/// Since the server started.
#[derive(Serialize, ToSchema)]
struct SinceStart {
    requests: u64,
    /// Targets of sends.
    pushes: u64,
    /// Requests and sends over a limit.
    refused: u64,
    /// Charged processor time, by kind of work.
    cpu_milliseconds: BTreeMap<&'static str, u64>,
}

#[derive(Serialize, ToSchema)]
struct TenantUsage {
    id: String,
    /// By the limit's name.
    limits: BTreeMap<&'static str, TenantLimitUse>,
    /// What the limit `memory_bytes` is used for.
    memory_bytes: BTreeMap<&'static str, u64>,
    since_start: SinceStart,
}

/// List the tenants
///
/// In pages, in the order of their ids.
#[utoipa::path(
    get, path = "/v1/tenants", operation_id = "list_tenants", tag = "Tenants",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 1000), ("after" = Option<String>, Query)),
    responses((status = 200, description = "A page.", body = TenantsPage), Addressed, Operators, Guarded)
)]
pub(super) async fn list(State(api): State<Api>, query: PageQuery, _: Operator) -> Result<Response, V1Error> {
    let all: Vec<Tenant> = api.gateway.tenants().list().into_iter().map(Tenant::from).collect();
    let (tenants, next) = query.page(&all, |tenant| &tenant.id);
    Ok(response::json(StatusCode::OK, &TenantsPage { tenants, next }))
}

/// Create or change a tenant
///
/// The response to the creation has the first key, which is only shown once.
#[utoipa::path(
    put, path = "/v1/tenants/{id}", operation_id = "put_tenant", tag = "Tenants",
    params(TenantPath),
    request_body = TenantChange,
    responses(
        (status = 200, description = "Changed.", body = Tenant),
        (status = 201, description = "Created.", body = MadeTenant),
        Addressed, Read, Operators, Guarded
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    PathSegments(path): PathSegments<TenantPath>,
    _: Operator,
    request: Request,
) -> Result<Response, V1Error> {
    let id = TenantId::parse(&path.id).ok_or_else(|| {
        // Elsewhere an invalid id is a tenant that does not exist; here it would be created.
        let message = "a tenant's id is 1 to 64 letters, digits, dots, dashes and underscores, and begins with \
                       a letter or digit";
        Error::field("invalid_tenant_id", "id", message)
    })?;
    let TenantChange { suspended, limits } = read_body(request, &api).await?;
    let wanted = Wanted { suspended, limits: limits.map(|JsonObject(limits)| limits) };
    let owner = id.clone();
    let key = change(&api, move |tenants| tenants.put(&owner, wanted)).await?;
    match key {
        Some(key) => {
            let (api_key, key) = (key.key.reveal().to_owned(), key.key.id().to_string());
            Ok(response::json(StatusCode::CREATED, &MadeTenant { id: id.to_string(), api_key, key }))
        }
        None => Ok(response::json(StatusCode::OK, &Tenant::from(api.gateway.tenants().view(&id)?))),
    }
}

/// Show a tenant
///
/// A tenant may read about itself.
#[utoipa::path(
    get, path = "/v1/tenants/{id}", operation_id = "read_tenant", tag = "Tenants",
    params(TenantPath),
    responses((status = 200, description = "The tenant.", body = Tenant), Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    PathSegments(path): PathSegments<TenantPath>,
) -> Result<Response, V1Error> {
    let id = path.readable_id(&caller)?;
    Ok(response::json(StatusCode::OK, &Tenant::from(api.gateway.tenants().view(&id)?)))
}

/// Delete a tenant
///
/// With everything that belongs to it. Sends in flight finish.
#[utoipa::path(
    delete, path = "/v1/tenants/{id}", operation_id = "delete_tenant", tag = "Tenants",
    params(TenantPath),
    responses((status = 204, description = "Deleted."), Missing, Busy, Operators, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    permit: InFlightPermit,
    PathSegments(path): PathSegments<TenantPath>,
    _: Operator,
) -> Result<StatusCode, V1Error> {
    let id = path.id()?;
    let (gateway, tenant) = (api.gateway.clone(), id.clone());
    detached(permit, async move { gateway.remove_tenant(&tenant).await }).await?;
    // A tenant that is created later with the same id must not get the old responses.
    api.idempotency.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// Show what a tenant uses of its limits
///
/// A tenant may read about itself.
#[utoipa::path(
    get, path = "/v1/tenants/{id}/usage", operation_id = "read_tenant_usage", tag = "Tenants",
    params(TenantPath),
    responses((status = 200, description = "Use and limits.", body = TenantUsage), Missing, Guarded)
)]
pub(super) async fn usage(
    State(api): State<Api>,
    caller: Caller,
    PathSegments(path): PathSegments<TenantPath>,
) -> Result<Response, V1Error> {
    let id = path.readable_id(&caller)?;
    let Usage { requests, pushes, refused, limits, memory, work } = api.gateway.usage(&id)?;
    let used = |limit: LimitUse| (limit.limit, TenantLimitUse { used: limit.used, limit: limit.most });
    let limits = limits.into_iter().map(used).collect();
    let memory_bytes = memory.into_iter().map(|(of, bytes)| (of.name(), bytes as u64)).collect();
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let cpu_milliseconds = work.into_iter().map(|(work, time)| (work.name(), milliseconds(time))).collect();
    let since_start = SinceStart { requests, pushes, refused, cpu_milliseconds };
    Ok(response::json(StatusCode::OK, &TenantUsage { id: id.to_string(), limits, memory_bytes, since_start }))
}

/// Runs a change of the tenants, which blocks until it is on the disk.
pub(super) async fn change<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce(&Tenants) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let tenants = api.gateway.tenants().clone();
    tokio::task::spawn_blocking(move || work(&tenants)).await.map_err(Error::internal)?
}

/// Reads a body; an empty one counts as an empty object.
pub(super) async fn read_body<T>(request: Request, api: &Api) -> Result<T, Error>
where
    T: Default + DeserializeOwned + Send + 'static,
{
    let body = JsonBody::receive(request, api.body_limits.with_size(LARGEST_BODY)).await?;
    if body.is_empty() { Ok(T::default()) } else { body.read(Ok).await }
}

impl TenantPath {
    pub(super) fn id(&self) -> Result<TenantId, Error> {
        tenant_id(&self.id)
    }

    /// Returns the tenant if the caller may read about it. For a tenant, no other tenant exists.
    fn readable_id(&self, caller: &Caller) -> Result<TenantId, Error> {
        match caller.tenant() {
            Some(own) if own.id.as_str() != self.id => Err(not_found(&self.id)),
            _ => self.id(),
        }
    }
}

/// Parses the tenant of a path.
pub(super) fn tenant_id(id: &str) -> Result<TenantId, Error> {
    TenantId::parse(id).ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> Error {
    let id: String = id.chars().take(64).collect();
    Error::new(Kind::NotFound, "tenant_not_found", format!("there is no tenant {id}"))
}

impl From<TenantView> for Tenant {
    fn from(view: TenantView) -> Self {
        let TenantView { id, created, suspended, limits } = view;
        Self { id: id.to_string(), created: rfc3339(created), suspended, limits }
    }
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    pushlet_gateway::utc(time).to_string()
}
