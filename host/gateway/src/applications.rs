//! Registered applications: shown, removed, and made ready to send for. Those of an earlier run are loaded when first
//! needed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::gateway::Gateway;
use crate::providers::provider_of;
use crate::request::FeedbackRead;
use pushlet_credential::{CredentialPurpose, CredentialSummary};
use pushlet_model::contract::Environment;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_model::warnings::RepeatedWarning;
use pushlet_registry::{ApplicationEntry, DeadToken, RegisteredApplication};

/// What may be told about an application.
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
    /// The tenant's applications, by id.
    pub fn applications(&self, tenant: &TenantId) -> Vec<ApplicationView> {
        self.0.registry.list(tenant).iter().map(|entry| ApplicationView::of(entry)).collect()
    }

    pub fn application(&self, tenant: &TenantId, id: &str) -> Result<ApplicationView, Error> {
        Ok(ApplicationView::of(&*self.0.registry.get(tenant, id)?))
    }

    /// Forgets an application; sends under way finish.
    pub async fn remove_application(&self, tenant: &TenantId, id: &str) -> Result<(), Error> {
        let (registry, owner, id) = (self.0.registry.clone(), tenant.clone(), id.to_owned());
        let remove = move || registry.remove(&owner, &id);
        let removed = tokio::task::spawn_blocking(remove).await.map_err(Error::internal)??;
        self.retire_connections(tenant.clone(), removed);
        Ok(())
    }

    /// The tokens that were reported dead since the list was cleared last.
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

    /// A registered application, ready to send for.
    pub(crate) async fn load_application(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<Arc<RegisteredApplication>, Error> {
        let entry = self.0.registry.get(tenant, id)?;
        entry.application(|| self.open_entry(tenant, entry.clone())).await
    }

    /// What was registered is checked already; its secrets are read as they were read then.
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
