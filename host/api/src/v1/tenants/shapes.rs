//! What goes in and out of `/v1/tenants`.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use pushlet_model::tenant::TenantLimits;

/// Which tenant a path is about.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(
    dead_code,
    reason = "it is read as a segment, so that a tenant that is not there is answered as such"
)]
pub(in super::super) struct OfTenant {
    /// 1 to 64 letters, digits, dots, dashes and underscores.
    #[param(example = "acme")]
    id: String,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(in super::super) struct Shown {
    pub id: String,
    /// RFC 3339.
    pub created: String,
    pub suspended: bool,
    /// The tenant's own; what is not here is as for everybody.
    pub limits: TenantLimits,
}

/// What may be told of an API key.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(in super::super) struct Key {
    pub id: String,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339; null: never.
    pub expires: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeys)]
pub(in super::super) struct Keys {
    /// Those that are good, the oldest first.
    pub keys: Vec<Key>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct MadeKey {
    /// What it is called.
    pub id: String,
    /// The key itself. It is shown this once.
    pub api_key: String,
    /// RFC 3339; null: never.
    pub expires: Option<String>,
}

/// A tenant that was just made.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct MadeTenant {
    pub id: String,
    /// Its first key. It is shown this once.
    pub api_key: String,
    /// What the key is called.
    pub key: String,
}

#[derive(Serialize, ToSchema)]
pub(in super::super) struct TenantsPage<'a> {
    /// In the order of their ids.
    #[schema(value_type = Vec<Shown>)]
    pub tenants: &'a [Shown],
    /// What to give as `after` for the next page; null: this is the last one.
    pub next: Option<String>,
}

/// A field that is not there stays as it is; `limits` replaces all of them.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read field by field, so that errors name the field")]
pub(in super::super) struct TenantChange {
    pub suspended: Option<bool>,
    pub limits: Option<TenantLimits>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read field by field, so that errors name the field")]
pub(in super::super) struct NewKeyRequest {
    /// Seconds after which the new key ends.
    pub expires_in: Option<f64>,
    /// Seconds after which all older keys end.
    pub others_expire_in: Option<f64>,
}

/// How much of one limit is used.
#[derive(Serialize, ToSchema)]
#[schema(as = TenantLimitUse)]
pub(in super::super) struct Used {
    /// null: it holds for each call.
    pub used: Option<u64>,
    /// null: there is no such limit.
    pub limit: Option<u64>,
}

/// Since the server started.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct SinceStart {
    pub requests: u64,
    /// Targets of sends.
    pub pushes: u64,
    /// Requests and sends over a limit.
    pub refused: u64,
    /// Processor time that was charged, by kind of work.
    pub cpu_milliseconds: BTreeMap<&'static str, u64>,
}

#[derive(Serialize, ToSchema)]
pub(in super::super) struct TenantUsage {
    pub id: String,
    /// By the limit's name.
    pub limits: BTreeMap<&'static str, Used>,
    /// What the limit `memory_bytes` is used for.
    pub memory_bytes: BTreeMap<&'static str, u64>,
    pub since_start: SinceStart,
}
