//! What is told of tenants and their keys.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::answer;
use crate::tenant::Limits;
use crate::tenants::{KeyView, TenantView};

/// What may be told about a tenant.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(super) struct Shown {
    pub(super) id: String,
    /// RFC 3339.
    pub(super) created: String,
    pub(super) suspended: bool,
    /// The tenant's own; what is not here is as for everybody.
    #[schema(value_type = Object)]
    pub(super) limits: Limits,
}

/// Some tenants.
#[derive(Serialize, ToSchema)]
pub(super) struct TenantPage {
    pub(super) tenants: Vec<Shown>,
    /// What to give as `after` for the next page; null: there is none.
    pub(super) next: Option<String>,
}

/// A tenant that was made, with its first key, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(super) struct NewTenant {
    pub(super) id: String,
    pub(super) api_key: String,
    /// The key's id.
    pub(super) key: String,
}

/// An API key, as it is known afterwards.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) created: String,
    /// RFC 3339; null: never.
    pub(super) expires: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeys)]
pub(super) struct Keys {
    pub(super) keys: Vec<Key>,
}

/// A key that was made; it is shown this once.
#[derive(Serialize, ToSchema)]
#[schema(as = NewApiKey)]
pub(super) struct Made {
    pub(super) id: String,
    pub(super) api_key: String,
    pub(super) expires: Option<String>,
}

/// What a tenant uses.
#[derive(Serialize, ToSchema)]
#[schema(as = TenantUsage)]
pub(super) struct Used {
    pub(super) id: String,
    /// By the limit's name.
    pub(super) limits: BTreeMap<String, UsedLimit>,
    pub(super) since_start: SinceStart,
}

#[derive(Serialize, ToSchema)]
pub(super) struct UsedLimit {
    /// Null: it holds for each call, and nothing is used up.
    pub(super) used: Option<u64>,
    /// Null: there is none.
    pub(super) limit: Option<u64>,
}

/// Counted since this server started.
#[derive(Serialize, ToSchema)]
pub(super) struct SinceStart {
    pub(super) requests: u64,
    pub(super) pushes: u64,
    /// Requests that were over a limit.
    pub(super) refused: u64,
}

pub(super) fn shown(tenant: TenantView) -> Shown {
    let TenantView { id, created, suspended, limits } = tenant;
    Shown { id: id.to_string(), created: written(created), suspended, limits }
}

pub(super) fn key(key: KeyView) -> Key {
    Key { id: key.id.to_string(), created: written(key.created), expires: key.expires.map(written) }
}

pub(super) fn written(time: SystemTime) -> String {
    answer::utc(time).to_string()
}
