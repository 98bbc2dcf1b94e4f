//! Registered applications: listed, loaded, and removed. Those of an earlier run are loaded when they are
//! first used.
//!
//! Certificates expire: the log and the metrics warn in time. When an application is replaced or removed, its
//! connections are closed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use utoipa::ToSchema;

use crate::authorization;
use crate::gateway::{Gateway, provider_of};
use pushlet_credential::{CredentialPurpose, CredentialSummary};
use pushlet_model::contract::Environment;
use pushlet_model::error::Error;
use pushlet_model::error::RepeatedWarning;
use pushlet_model::tenant::TenantId;
use pushlet_registry::{ApplicationEntry, DeadToken, RegisteredApplication};
use pushlet_transport::ClientIdentity;

/// A warning is logged from this many days before a certificate expires.
const WARN_DAYS: i64 = 30;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How often to check whether the last send with a replaced credential has finished.
const LOOK: Duration = Duration::from_millis(250);

/// Whether reading a list of dead tokens clears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackRead {
    Keep,
    Clear,
}

/// What may be shown of an application.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = RegisteredApplication)]
pub struct ApplicationView {
    pub id: String,
    pub provider: String,
    /// `production` or `development`.
    pub environment: &'static str,
    pub settings: BTreeMap<String, String>,
    pub credential: Option<CredentialSummary>,
}

impl Gateway {
    /// Returns the tenant's applications, by id.
    pub fn applications(&self, tenant: &TenantId) -> Vec<ApplicationView> {
        self.0.registry.list(tenant).iter().map(|entry| ApplicationView::of(entry)).collect()
    }

    pub fn application(&self, tenant: &TenantId, id: &str) -> Result<ApplicationView, Error> {
        Ok(ApplicationView::of(&*self.0.registry.get(tenant, id)?))
    }

    /// Removes an application; its sends in flight finish.
    pub async fn remove_application(&self, tenant: &TenantId, id: &str) -> Result<(), Error> {
        let (registry, owner, id) = (self.0.registry.clone(), tenant.clone(), id.to_owned());
        let remove = move || registry.remove(&owner, &id);
        let removed = tokio::task::spawn_blocking(remove).await.map_err(Error::internal)??;
        self.retire_connections(tenant.clone(), removed);
        Ok(())
    }

    /// Returns the tokens that were reported dead since the list was last cleared.
    pub fn feedback(
        &self,
        tenant: &TenantId,
        application_id: &str,
        read: FeedbackRead,
    ) -> Result<Vec<DeadToken>, Error> {
        let entry = self.0.registry.get(tenant, application_id)?;
        Ok(match read {
            FeedbackRead::Keep => entry.feedback.list(),
            FeedbackRead::Clear => entry.feedback.take(),
        })
    }

    /// Returns a registered application with its credential, loading it first if necessary.
    pub(crate) async fn load_application(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<Arc<RegisteredApplication>, Error> {
        let entry = self.0.registry.get(tenant, id)?;
        entry.application(|| self.open_entry(tenant, entry.clone())).await
    }

    /// Reads the secrets of an application as they were read when it was registered, so nothing is checked
    /// again.
    async fn open_entry(
        &self,
        tenant: &TenantId,
        entry: Arc<ApplicationEntry>,
    ) -> Result<RegisteredApplication, Error> {
        let description = &entry.description;
        let provider =
            provider_of(&description.provider, &*self.providers(tenant, &description.provider).await?)?;
        let (registry, owner, kept) = (self.0.registry.clone(), tenant.clone(), entry.clone());
        let secrets = tokio::task::spawn_blocking(move || registry.secrets(&owner, &kept));
        let secrets = secrets.await.map_err(Error::internal)??;
        let record = description.record(&entry.id);
        let (environment, settings) = (record.environment, record.settings.clone());
        let purpose = CredentialPurpose { environment, now: description.updated(), settings };
        let (credential, _) = self.parse_credential(&provider, tenant, secrets, purpose).await?;
        Ok(RegisteredApplication {
            record,
            provider: description.provider.clone(),
            credential,
            feedback: entry.feedback.clone(),
            places: Arc::new(Semaphore::new(self.0.places)),
            identity: OnceLock::new(),
            unreached: RepeatedWarning::default(),
        })
    }
}

impl ApplicationView {
    fn of(entry: &ApplicationEntry) -> Self {
        let description = &entry.description;
        Self {
            id: entry.id.clone(),
            provider: description.provider.clone(),
            environment: match description.environment() {
                Environment::Production => "production",
                Environment::Development => "development",
            },
            settings: description.settings.iter().cloned().collect(),
            credential: description.credential.clone(),
        }
    }
}

/// A certificate that expires within 30 days, or has expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    pub tenant: TenantId,
    /// The application's id.
    pub application: String,
    /// Whole days that are left; negative once it has expired.
    pub days: i64,
}

impl Expiring {
    /// Returns None if the application has no certificate, or one that is valid for longer.
    pub(crate) fn of(tenant: &TenantId, entry: &ApplicationEntry, now: SystemTime) -> Option<Self> {
        let days = days_left(entry.description.certificate_ends?, now);
        let application = entry.id.clone();
        (days < WARN_DAYS).then(|| Self { tenant: tenant.clone(), application, days })
    }

    pub(crate) fn warn(&self) {
        let Self { tenant, application, days } = self;
        if *days < 0 {
            tracing::warn!(%tenant, application, days, "the application's certificate has ended");
        } else {
            tracing::warn!(%tenant, application, days, "the application's certificate ends soon");
        }
    }
}

fn days_left(ends_at: i64, now: SystemTime) -> i64 {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let left = ends_at.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    left.div_euclid(24 * 3600)
}

impl Gateway {
    /// Returns the certificates of all tenants that expire within 30 days, or have expired; the earliest
    /// first.
    pub fn expiring(&self) -> Vec<Expiring> {
        let now = SystemTime::now();
        let all = self.0.registry.all();
        let of = |(tenant, entry): &(TenantId, Arc<ApplicationEntry>)| Expiring::of(tenant, entry, now);
        let mut expiring: Vec<_> = all.iter().filter_map(of).collect();
        expiring.sort_by_key(|one| one.days);
        expiring
    }

    /// Logs warnings once a day, for as long as the gateway exists.
    pub(crate) fn watch_certificates(&self) {
        let gateway = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                sleep(DAY).await;
                let Some(gateway) = gateway.upgrade().map(Self) else { return };
                gateway.expiring().iter().for_each(Expiring::warn);
            }
        });
    }

    /// Closes the connections of an application that was replaced or removed once the last send with it has
    /// finished, unless another application has the same identity.
    pub(crate) fn retire_connections(&self, tenant: TenantId, entry: Arc<ApplicationEntry>) {
        let gateway = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let is_needed = || {
                // A send in flight holds the application; one that is still loading it holds the entry.
                let sends = entry.opened().map_or(0, Arc::strong_count);
                Arc::strong_count(&entry) > 1 || sends > 1
            };
            while is_needed() {
                sleep(LOOK).await;
            }
            let Some(application) = entry.opened() else { return };
            let Some(gateway) = gateway.upgrade().map(Self) else { return };
            if let Some(identity) = gateway.identity(&tenant, application)
                && !gateway.is_used(&identity)
            {
                gateway.0.transport.retire(&tenant, &identity);
            }
        });
    }

    fn identity(&self, tenant: &TenantId, application: &RegisteredApplication) -> Option<ClientIdentity> {
        let providers = self.0.catalogue.of_tenant(tenant);
        let provider = providers.get(&application.provider)?;
        Some(authorization::identity(tenant, application, provider.manifest()))
    }

    /// Returns true if an application in memory has this identity. One that was never loaded has no
    /// connections.
    fn is_used(&self, identity: &ClientIdentity) -> bool {
        let all = self.0.registry.all();
        let uses = |(tenant, entry): &(TenantId, Arc<ApplicationEntry>)| {
            let application = entry.opened();
            application.and_then(|application| self.identity(tenant, application)).as_ref() == Some(identity)
        };
        all.iter().any(uses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_days() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let day = 24 * 3600;
        for (seconds, days) in
            [(30 * day, 30), (30 * day - 1, 29), (day, 1), (day - 1, 0), (0, 0), (-1, -1), (-day - 1, -2)]
        {
            assert_eq!(days_left(1_000_000 + seconds, now), days, "{seconds}");
        }
    }
}
