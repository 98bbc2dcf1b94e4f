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
use pushlet_registry::{ApplicationEntry, FeedbackPage, RegisteredApplication};
use pushlet_transport::ClientIdentity;

/// A warning is logged from this many days before a certificate expires.
const WARN_DAYS: i64 = 30;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How often to check whether the last send with a replaced credential has finished.
const LOOK: Duration = Duration::from_millis(250);

/// How dead tokens are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackRead {
    /// Those after a cursor, which stay; 0: all.
    After(u64),
    /// All, and the list is cleared.
    Take,
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
    /// True: a file of the server describes it, and it is changed there. Otherwise it is left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub from_file: bool,
}

/// Which of a tenant's applications are wanted.
#[derive(Debug, Clone, Default)]
pub struct ApplicationQuery {
    /// Only those whose id, provider, subject or topics contain this, in letters of either case.
    pub search: Option<String>,
    pub order: ApplicationOrder,
    /// Only those after this [`ApplicationPage::next`].
    pub after: Option<String>,
    /// The most that are wanted.
    pub limit: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ApplicationOrder {
    #[default]
    Id,
    /// By the end of the certificate, the first to end first; then those without an end.
    Expiry,
}

/// Some of a tenant's applications.
#[derive(Debug)]
pub struct ApplicationPage {
    pub applications: Vec<ApplicationView>,
    /// How many there are on all pages.
    pub total: usize,
    /// The `after` of the next page.
    pub next: Option<String>,
}

impl Gateway {
    /// Returns a page of the tenant's applications. Fails if `after` is not a `next` of the same order.
    pub fn applications(
        &self,
        tenant: &TenantId,
        query: &ApplicationQuery,
    ) -> Result<ApplicationPage, Error> {
        let mut all = self.0.registry.list(tenant);
        if let Some(search) = query.search.as_deref().map(str::to_lowercase) {
            all.retain(|entry| contains(entry, &search));
        }
        let total = all.len();
        all.sort_by(|one, other| query.order.key(one).cmp(&query.order.key(other)));
        let after = query.after.as_deref().map(|after| query.order.parse(after)).transpose()?;
        let start = all.partition_point(|entry| after.is_some_and(|after| query.order.key(entry) <= after));
        let rest = all.get(start..).unwrap_or_default();
        let (page, others) = rest.split_at(rest.len().min(query.limit));
        let next = page.last().filter(|_| !others.is_empty()).map(|last| query.order.cursor(last));
        Ok(ApplicationPage {
            applications: page.iter().map(|entry| ApplicationView::of(entry)).collect(),
            total,
            next,
        })
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

    /// Returns the tokens that were reported dead, after asking the provider's feedback service if it has one.
    pub async fn feedback(
        &self,
        tenant: &TenantId,
        application_id: &str,
        read: FeedbackRead,
    ) -> Result<FeedbackPage, Error> {
        let entry = self.find_application(tenant, application_id).await?;
        self.read_feedback_service(tenant, &entry).await?;
        let all = |tokens| FeedbackPage { tokens, cursor: 0 };
        Ok(match (self.0.registry.fleet(), read) {
            (None, FeedbackRead::After(cursor)) => entry.feedback.after(cursor),
            (None, FeedbackRead::Take) => all(entry.feedback.take()),
            (Some(fleet), FeedbackRead::After(cursor)) => {
                fleet.feedback(tenant, application_id, cursor).await?
            }
            (Some(fleet), FeedbackRead::Take) => all(fleet.take_feedback(tenant, application_id).await?),
        })
    }

    /// Drops the reports of dead tokens up to a cursor, inclusive.
    pub async fn drop_feedback(
        &self,
        tenant: &TenantId,
        application_id: &str,
        until: u64,
    ) -> Result<(), Error> {
        let entry = self.find_application(tenant, application_id).await?;
        match self.0.registry.fleet() {
            None => entry.feedback.drop_until(until),
            Some(fleet) => fleet.drop_feedback(tenant, application_id, until).await?,
        }
        Ok(())
    }

    /// Returns a registered application with its credential, loading it first if necessary.
    pub(crate) async fn load_application(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<Arc<RegisteredApplication>, Error> {
        let entry = self.find_application(tenant, id).await?;
        // Boxed, since most are loaded.
        entry.application(|| Box::pin(self.open_entry(tenant, entry.clone()))).await
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
            from_file: description.is_from_file(),
        }
    }
}

/// Returns true if the entry has the text, which is in small letters.
fn contains(entry: &ApplicationEntry, search: &str) -> bool {
    let description = &entry.description;
    let credential = description.credential.iter();
    let names = credential.flat_map(|credential| credential.subject.iter().chain(&credential.topics));
    let mut texts = [&entry.id, &description.provider].into_iter().chain(names);
    texts.any(|text| text.to_lowercase().contains(search))
}

impl ApplicationOrder {
    /// Returns what applications are sorted by: the end of the certificate, if that matters, and the id.
    fn key(self, entry: &ApplicationEntry) -> (i64, &str) {
        let end = match self {
            Self::Id => 0,
            Self::Expiry => entry.description.certificate_ends.unwrap_or(i64::MAX),
        };
        (end, &entry.id)
    }

    /// Returns the text of an entry's key. The id alone would not do: its application may be gone by the next page.
    fn cursor(self, entry: &ApplicationEntry) -> String {
        match self.key(entry) {
            (_, id) if self == Self::Id => id.to_owned(),
            (end, id) => format!("{end}~{id}"),
        }
    }

    fn parse(self, cursor: &str) -> Result<(i64, &str), Error> {
        if self == Self::Id {
            return Ok((0, cursor));
        }
        let parts = cursor.split_once('~').and_then(|(end, id)| Some((end.parse().ok()?, id)));
        parts.ok_or_else(|| {
            Error::field("invalid_after", "after", "after must be the next of a page in this order")
        })
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
        self.0.sessions.retire(&tenant, &entry.id);
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
