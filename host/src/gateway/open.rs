//! Registered applications, made ready to send for: those of an earlier run are opened when first needed.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Inner;
use super::send::provider_of;
use crate::credential::Credential;
use crate::error::Error;
use crate::registry::{Application, Entry};
use crate::tenant::TenantId;

impl Inner {
    /// A registered application, ready to send for.
    pub(super) async fn opened(&self, tenant: &TenantId, id: &str) -> Result<Arc<Application>, Error> {
        let entry = self.registry.get(tenant, id)?;
        entry.application(|| self.open_entry(tenant, entry.clone())).await
    }

    /// What was registered is checked already; its secrets are read as they were read then.
    async fn open_entry(&self, tenant: &TenantId, entry: Arc<Entry>) -> Result<Application, Error> {
        let description = &entry.description;
        let provider = provider_of(&description.provider, &self.catalogue.of_tenant(tenant))?;
        let (registry, tenant, kept) = (self.registry.clone(), tenant.clone(), entry.clone());
        let read = move || -> Result<_, Error> {
            let secrets = registry.secrets(&tenant, &kept)?;
            Ok(Credential::parse(&provider.manifest().credentials, &secrets, kept.description.updated())?)
        };
        let credential = tokio::task::spawn_blocking(read).await.map_err(Error::internal)??;
        Ok(Application {
            record: description.record(&entry.id),
            provider: description.provider.clone(),
            credential,
            feedback: entry.feedback.clone(),
            places: Arc::new(Semaphore::new(self.places)),
        })
    }
}
