//! `/v1/tenants/{id}/usage`: how much of its limits a tenant uses now, and what it used by day and month.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::PathSegments;
use super::tenants::{TenantLimitUse, TenantPath};
use crate::Api;
use crate::caller::Caller;
use crate::openapi::schemas::{Guarded, Missing};
use crate::response::{self, V1Error};
use pushlet_gateway::tenants::{LimitUse, Usage};
use pushlet_gateway::{UsageCounts, UsagePeriod};
use pushlet_model::error::{Error, Kind};

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

/// What an application sent in one period.
#[derive(Serialize, ToSchema)]
struct ApplicationUsage {
    /// `other`: of those that are not counted one by one.
    application: String,
    provider: String,
    /// Targets, by what became of them.
    outcomes: BTreeMap<String, u64>,
}

/// What a tenant sent in one period.
#[derive(Serialize, ToSchema)]
struct PeriodUsage {
    /// As `2026-11-27` or `2026-11`, of UTC.
    #[schema(example = "2026-11")]
    period: String,
    /// Targets, by what became of them.
    outcomes: BTreeMap<String, u64>,
    applications: Vec<ApplicationUsage>,
}

#[derive(Serialize, ToSchema)]
struct UsageHistory {
    id: String,
    /// The oldest first; periods in which nothing was sent are left out.
    periods: Vec<PeriodUsage>,
}

/// Show what a tenant uses of its limits
///
/// A tenant may read about itself.
#[utoipa::path(
    get, path = "/v1/tenants/{id}/usage", operation_id = "read_tenant_usage", tag = "Tenants",
    params(TenantPath),
    responses((status = 200, description = "Use and limits.", body = TenantUsage), Missing, Guarded)
)]
pub(super) async fn show(
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

/// Show what a tenant used by day or month
///
/// Targets by application and provider. It outlives restarts: days are kept for two months, months for two years. A
/// tenant may read about itself.
#[utoipa::path(
    get, path = "/v1/tenants/{id}/usage/{by}", operation_id = "read_tenant_usage_history", tag = "Tenants",
    params(TenantPath, ("by" = String, Path, example = "month", description = "`day` or `month`.")),
    responses((status = 200, description = "By period.", body = UsageHistory), Missing, Guarded)
)]
pub(super) async fn history(
    State(api): State<Api>,
    caller: Caller,
    PathSegments((id, by)): PathSegments<(String, String)>,
) -> Result<Response, V1Error> {
    let id = TenantPath::new(id).readable_id(&caller)?;
    let by = match by.as_str() {
        "day" => UsagePeriod::Day,
        "month" => UsagePeriod::Month,
        _ => return Err(Error::new(Kind::NotFound, "not_found", "usage is known by day and by month").into()),
    };
    let periods = api.gateway.usage_by(&id, by).await?.into_iter().map(PeriodUsage::of).collect();
    Ok(response::json(StatusCode::OK, &UsageHistory { id: id.to_string(), periods }))
}

impl PeriodUsage {
    fn of((period, counts): (String, UsageCounts)) -> Self {
        let of = |(application, providers): (String, BTreeMap<String, BTreeMap<String, u64>>)| {
            let one = move |(provider, outcomes)| ApplicationUsage {
                application: application.clone(),
                provider,
                outcomes,
            };
            providers.into_iter().map(one)
        };
        let applications: Vec<_> = counts.into_iter().flat_map(of).collect();
        let mut outcomes = BTreeMap::new();
        for (status, count) in applications.iter().flat_map(|one| &one.outcomes) {
            *outcomes.entry(status.clone()).or_default() += count;
        }
        Self { period, outcomes, applications }
    }
}
