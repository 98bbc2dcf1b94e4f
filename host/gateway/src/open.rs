//! Registered applications, made ready to send for: those of an earlier run are opened when first needed.

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use super::Inner;
use super::send::provider_of;
use pushlet_credential::CredentialPurpose;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_model::warnings::RepeatedWarning;
use pushlet_registry::{ApplicationEntry, RegisteredApplication};
use pushlet_sandbox::TenantProviders;

impl Inner {
    /// The providers that a tenant has; that of this name is loaded, if it can be.
    pub(super) async fn providers(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Arc<TenantProviders>, Error> {
        let providers = self.catalogue.of_tenant(tenant);
        if !providers.lacks(name) {
            return Ok(providers);
        }
        Box::pin(self.uploads.ready(tenant, name)).await?;
        Ok(self.catalogue.of_tenant(tenant))
    }

    /// The providers that a tenant has; all that can be are loaded.
    pub(super) async fn all_providers(&self, tenant: &TenantId) -> Result<Arc<TenantProviders>, Error> {
        let providers = self.catalogue.of_tenant(tenant);
        if !providers.lacks_some() {
            return Ok(providers);
        }
        Box::pin(self.uploads.all_ready(tenant)).await?;
        Ok(self.catalogue.of_tenant(tenant))
    }

    /// A registered application, ready to send for.
    pub(super) async fn opened(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<Arc<RegisteredApplication>, Error> {
        let entry = self.registry.get(tenant, id)?;
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
        let (registry, owner, kept) = (self.registry.clone(), tenant.clone(), entry.clone());
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
            places: Arc::new(Semaphore::new(self.places)),
            identity: OnceLock::new(),
            unreached: RepeatedWarning::default(),
        })
    }
}
