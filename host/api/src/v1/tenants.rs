//! `/v1/tenants`: for the operator; a tenant may read about itself.

use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::audit::{Auditor, difference};
use super::extract::{PageQuery, PathSegments, tenant_id, tenant_not_found};
use crate::Api;
use crate::caller::{Caller, Operator};
use crate::in_flight::{InFlightPermit, detached};
use crate::json::{JsonBody, JsonObject};
use crate::openapi::schemas::{Addressed, Busy, Guarded, Missing, Operators, Read};
use crate::response::{self, V1Error};
use pushlet_gateway::tenants::{TenantView, Tenants, Wanted};
use pushlet_gateway::{Minute, TenantActivity};
use pushlet_model::error::Error;
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
struct CreatedTenant {
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
pub(super) struct TenantLimitUse {
    /// null: the limit applies to each call.
    pub used: Option<u64>,
    /// null: there is no limit.
    pub limit: Option<u64>,
}

/// A tenant, what it did in the last hour, and where its operator should look.
#[derive(Serialize, ToSchema)]
struct TenantOverview {
    id: String,
    /// RFC 3339.
    created: String,
    suspended: bool,
    /// Targets of each of the last minutes that were delivered or needed no delivery; the last is the running one.
    delivered: Vec<u64>,
    /// The other targets.
    undelivered: Vec<u64>,
    /// Requests and sends over a limit.
    refused: Vec<u64>,
    /// The name of the limit of which the largest part is used; null: the tenant has no limit.
    nearest_limit: Option<&'static str>,
    nearest_limit_use: Option<TenantLimitUse>,
    applications: u64,
    /// Certificates that end within 30 days, or have ended.
    expiring: usize,
    /// When the first certificate ends, RFC 3339; null: there is none.
    first_end: Option<String>,
}

/// How all tenants are.
#[derive(Serialize, ToSchema)]
struct Overview {
    version: &'static str,
    /// Seconds since the server started.
    uptime: u64,
    /// The last hour of all tenants; the last one is the running minute.
    minutes: Vec<Minute>,
    /// In the order of their ids.
    tenants: Vec<TenantOverview>,
    /// How many there are on all pages.
    total: usize,
    /// The `after` of the next page; null: this is the last one.
    next: Option<String>,
}

/// Show what all tenants do
///
/// Pushes and refusals of the last hour by minute, and for a page of the tenants also the limit that is nearest, and
/// certificates that end soon.
#[utoipa::path(
    get, path = "/v1/overview", operation_id = "show_overview", tag = "Tenants",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query),
        ("search" = Option<String>, Query, description = "Only tenants whose id contains this text, in letters of either case."),
    ),
    responses((status = 200, description = "A page.", body = Overview), Addressed, Operators, Guarded)
)]
pub(super) async fn overview(
    State(api): State<Api>,
    query: PageQuery,
    _: Operator,
) -> Result<Response, V1Error> {
    let mut all = api.gateway.tenants().list();
    if let Some(search) = query.search.as_deref().map(str::to_lowercase) {
        all.retain(|tenant| tenant.id.as_str().to_lowercase().contains(&search));
    }
    let (page, next) = query.page(&all, |tenant| tenant.id.as_str());
    // A tenant that was removed meanwhile is left out.
    let one =
        |tenant: &TenantView| Some(TenantOverview::of(tenant, api.gateway.tenant_activity(&tenant.id).ok()?));
    let overview = Overview {
        version: env!("CARGO_PKG_VERSION"),
        uptime: api.observability.uptime().as_secs(),
        minutes: api.gateway.minutes(),
        tenants: page.iter().filter_map(one).collect(),
        total: all.len(),
        next,
    };
    Ok(response::json(StatusCode::OK, &overview))
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
        (status = 201, description = "Created.", body = CreatedTenant),
        Addressed, Read, Operators, Guarded
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    PathSegments(path): PathSegments<TenantPath>,
    _: Operator,
    audit: Auditor,
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
    let tenants = api.gateway.tenants();
    let before = tenants.view(&id).ok().map(Tenant::from);
    let key = change(&api, move |tenants| tenants.put(&owner, wanted)).await?;
    let after = Tenant::from(tenants.view(&id)?);
    let changes = difference(before.as_ref(), Some(&after))?;
    audit.record(&api, (&id, "tenant.put", id.as_str()), changes).await;
    match key {
        Some(key) => {
            let (api_key, key) = (key.key.reveal().to_owned(), key.key.id().to_string());
            Ok(response::json(StatusCode::CREATED, &CreatedTenant { id: id.to_string(), api_key, key }))
        }
        None => Ok(response::json(StatusCode::OK, &after)),
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
    audit: Auditor,
) -> Result<StatusCode, V1Error> {
    let id = path.id()?;
    let work = async move {
        let before = api.gateway.tenants().view(&id).ok().map(Tenant::from);
        api.gateway.remove_tenant(&id).await?;
        // A tenant that is created later with the same id must not get the old responses.
        api.idempotency.forget(&id);
        let changes = difference(before.as_ref(), None::<&Tenant>)?;
        audit.record(&api, (&id, "tenant.delete", id.as_str()), changes).await;
        Ok::<_, Error>(())
    };
    detached(permit, work).await?;
    Ok(StatusCode::NO_CONTENT)
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
    pub(super) fn new(id: String) -> Self {
        Self { id }
    }

    pub(super) fn id(&self) -> Result<TenantId, Error> {
        tenant_id(&self.id)
    }

    /// Returns the tenant if the caller may read about it. For a tenant, no other tenant exists.
    pub(super) fn readable_id(&self, caller: &Caller) -> Result<TenantId, Error> {
        match caller.tenant() {
            Some(own) if own.id.as_str() != self.id => Err(tenant_not_found(&self.id)),
            _ => self.id(),
        }
    }
}

impl TenantOverview {
    fn of(tenant: &TenantView, activity: TenantActivity) -> Self {
        let TenantActivity {
            delivered,
            undelivered,
            refused,
            nearest_limit,
            applications,
            expiring,
            first_end,
        } = activity;
        Self {
            id: tenant.id.to_string(),
            created: rfc3339(tenant.created),
            suspended: tenant.suspended,
            delivered,
            undelivered,
            refused,
            nearest_limit: nearest_limit.map(|limit| limit.limit),
            nearest_limit_use: nearest_limit
                .map(|limit| TenantLimitUse { used: limit.used, limit: limit.most }),
            applications,
            expiring,
            first_end: first_end.map(rfc3339),
        }
    }
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
