//! `GET /v1/audit`: who changed what; and what handlers record about a change.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{FromRequestParts, Query, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::extract::{PageQuery, tenant_id, tenant_not_found};
use crate::Api;
use crate::access_log::RequestLog;
use crate::caller::Caller;
use crate::log::AUDIT;
use crate::openapi::schemas::{Addressed, Guarded, Missing};
use crate::response::{self, ErrorResponse, V1Error};
use pushlet_gateway::{Actor, ApplicationView, AuditEntry, Registration, utc};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

/// Bytes of the changes of one entry; of larger ones, only the names of the fields are kept.
const LARGEST_CHANGES: usize = 4 << 10;

/// A change.
#[derive(Serialize, ToSchema)]
struct AuditRecord {
    id: String,
    /// RFC 3339.
    at: String,
    /// `operator`, `key` (a tenant's API key), `login` (`[auth]`) or `anyone` (no credentials are required).
    #[schema(value_type = String)]
    actor: Actor,
    /// The id of the API key.
    key: Option<String>,
    /// The caller's address.
    #[schema(value_type = Option<String>)]
    address: Option<IpAddr>,
    request_id: String,
    tenant: String,
    /// As `application.put`.
    action: String,
    /// The id of what was changed.
    subject: String,
    /// What was changed, by field: `{"from", "to"}`; null: there was nothing, or there is nothing any more.
    #[schema(value_type = Object)]
    changes: Map<String, Value>,
}

/// Some of the changes.
#[derive(Serialize, ToSchema)]
struct AuditPage<'a> {
    /// The oldest first.
    #[schema(value_type = Vec<AuditRecord>)]
    audit: &'a [AuditRecord],
    /// The `after` of the next page; null: this is the last one.
    next: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only for the operator: the tenant whose changes are listed. Without it, those that the operator made.
    tenant: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for AuditQuery {
    type Rejection = V1Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, V1Error> {
        let query = Query::<Self>::from_request_parts(parts, state).await;
        let wrong = |text| Error::new(Kind::Invalid, "invalid_query", text);
        Ok(query.map_err(|rejection| wrong(rejection.body_text()))?.0)
    }
}

/// List the changes
///
/// Who changed tenants, keys, limits, applications and providers, and cancelled deliveries: the tenant's own changes, and
/// those that the operator made to it. The last 1,000 of each tenant are kept.
#[utoipa::path(
    get, path = "/v1/audit", operation_id = "list_audit", tag = "Operation",
    params(
        AuditQuery,
        ("after" = Option<String>, Query, description = "Only those after this id."),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "The most that are listed; 100 by default."),
    ),
    responses((status = 200, description = "A page.", body = AuditPage), Addressed, Missing, Guarded)
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: PageQuery,
    AuditQuery { tenant }: AuditQuery,
) -> Result<Response, V1Error> {
    let tenant = match (caller.tenant(), tenant) {
        (None, tenant) => tenant.map(|id| tenant_id(&id)).transpose()?,
        (Some(own), Some(id)) if own.id.as_str() != id => return Err(tenant_not_found(&id).into()),
        (Some(own), _) => Some(own.id.clone()),
    };
    let all: Vec<_> = api.gateway.audit_entries(tenant).await?.into_iter().map(AuditRecord::from).collect();
    let (audit, next) = query.page(&all, |record| &record.id);
    Ok(response::json(axum::http::StatusCode::OK, &AuditPage { audit, next }))
}

impl From<(u64, AuditEntry)> for AuditRecord {
    fn from((at, entry): (u64, AuditEntry)) -> Self {
        let AuditEntry { actor, key, address, request_id, tenant, action, subject, changes } = entry;
        let time = UNIX_EPOCH.checked_add(Duration::from_micros(at)).unwrap_or(UNIX_EPOCH);
        let (id, at) = (format!("{at:016x}"), utc(time).to_string());
        Self { id, at, actor, key, address, request_id, tenant, action, subject, changes }
    }
}

/// Extracts who makes a change.
pub(crate) struct Auditor {
    actor: Actor,
    key: Option<String>,
    address: Option<IpAddr>,
    request_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Auditor {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ErrorResponse> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let log = RequestLog::from_request_parts(parts, state).await?;
        let key = caller.key().map(|key| key.to_string());
        let actor = match &caller {
            Caller::Operator => Actor::Operator,
            Caller::Tenant(_) if key.is_some() => Actor::Key,
            Caller::Tenant(_) if parts.headers.contains_key(AUTHORIZATION) => Actor::Login,
            Caller::Tenant(_) => Actor::Anyone,
        };
        Ok(Self { actor, key, address: log.head().peer, request_id: log.head().id().to_owned() })
    }
}

impl Auditor {
    /// Registers an application, and records the change.
    pub async fn register(
        self,
        api: &Api,
        tenant: TenantId,
        registration: Registration,
    ) -> Result<ApplicationView, Error> {
        let view = |id: &str| api.gateway.application(&tenant, id);
        let before = registration.application_id.as_deref().and_then(|id| view(id).ok());
        let id = api.gateway.register(tenant.clone(), registration).await?;
        let after = view(&id)?;
        let changes = difference(before.as_ref(), Some(&after))?;
        self.record(api, (&tenant, "application.put", &id), changes).await;
        Ok(after)
    }

    /// Records a change that was made, in the log and in the registry.
    pub async fn record(
        self,
        api: &Api,
        (tenant, action, subject): (&TenantId, &'static str, &str),
        changes: Map<String, Value>,
    ) {
        let changes = bounded(changes);
        let Self { actor, key, address, request_id } = self;
        let entry = AuditEntry {
            actor,
            key,
            address,
            request_id,
            tenant: tenant.to_string(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            changes,
        };
        write_line(&entry);
        if let Err(error) = api.gateway.add_audit_entry(entry).await {
            tracing::error!(%tenant, action, subject, %error, "a change could not be kept in the audit log");
        }
    }
}

fn write_line(entry: &AuditEntry) {
    let AuditEntry { actor, key, address, request_id, tenant, action, subject, changes } = entry;
    let actor = serde_json::to_value(actor).unwrap_or_default();
    let (actor, key) = (actor.as_str().unwrap_or_default(), key.as_deref());
    let address = address.map(tracing::field::display);
    let changes = Value::Object(changes.clone()).to_string();
    tracing::info!(target: AUDIT, action, subject, tenant, actor, key, peer = address, request_id, changes, "audit");
}

/// Returns the fields that two values of the same type do not have in common, each with its value before and after.
pub(crate) fn difference(
    before: Option<&impl Serialize>,
    after: Option<&impl Serialize>,
) -> Result<Map<String, Value>, Error> {
    fn fields(value: Option<&impl Serialize>) -> Result<Map<String, Value>, Error> {
        let value = value.map(serde_json::to_value).transpose().map_err(Error::internal)?;
        Ok(match value {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        })
    }
    let (mut before, after) = (fields(before)?, fields(after)?);
    let mut changes = Map::new();
    for (name, to) in after {
        let from = before.remove(&name).unwrap_or_default();
        if from != to {
            changes.insert(name, json!({ "from": from, "to": to }));
        }
    }
    let gone = before.into_iter().filter(|(_, from)| !from.is_null());
    changes.extend(gone.map(|(name, from)| (name, json!({ "from": from, "to": null }))));
    Ok(changes)
}

fn bounded(changes: Map<String, Value>) -> Map<String, Value> {
    if Value::Object(changes.clone()).to_string().len() <= LARGEST_CHANGES {
        return changes;
    }
    let names = changes.into_iter().map(|(name, _)| (name.chars().take(64).collect(), json!("changed")));
    names.take(32).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_what_was_added_changed_and_removed() {
        let before = json!({"same": 1, "changed": "a", "gone": true, "nothing": null});
        let after = json!({"same": 1, "changed": "b", "new": [1]});
        let expected = json!({
            "changed": {"from": "a", "to": "b"}, "new": {"from": null, "to": [1]}, "gone": {"from": true, "to": null},
        });
        assert_eq!(Value::Object(difference(Some(&before), Some(&after)).unwrap()), expected);
        let made = difference(None::<&Value>, Some(&json!({"a": 1}))).unwrap();
        assert_eq!(Value::Object(made), json!({"a": {"from": null, "to": 1}}));
    }

    #[test]
    fn large_changes_keep_their_names() {
        let large: Map<String, Value> =
            (0..100).map(|at| (format!("{at:03}"), json!("x".repeat(100)))).collect();
        let kept = bounded(large);
        assert_eq!((kept.len(), &kept["000"]), (32, &json!("changed")));
    }
}
