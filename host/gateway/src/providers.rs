//! The providers that a tenant's applications can use.

use std::sync::Arc;

use crate::gateway::Gateway;
use pushlet_model::contract::management::Collection;
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_sandbox::{Provider, TenantProviders};

/// All that a provider says of itself.
#[derive(Clone)]
pub struct Described {
    /// SHA-256 of the component.
    pub digest: String,
    pub manifest: ProviderManifest,
    pub collections: Vec<Collection>,
}

impl Gateway {
    /// What the providers that a tenant has say of themselves.
    pub fn described(&self, tenant: &TenantId) -> Vec<Described> {
        let providers = self.0.catalogue.of_tenant(tenant);
        let described = providers.all().map(|provider| Described {
            digest: provider.digest().to_owned(),
            manifest: provider.manifest().clone(),
            collections: provider.collections().to_vec(),
        });
        described.collect()
    }

    /// The providers that a tenant has; that of this name is loaded, if it can be.
    pub(crate) async fn providers(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Arc<TenantProviders>, Error> {
        let providers = self.0.catalogue.of_tenant(tenant);
        if !providers.lacks(name) {
            return Ok(providers);
        }
        Box::pin(self.0.uploads.ready(tenant, name)).await?;
        Ok(self.0.catalogue.of_tenant(tenant))
    }

    /// The providers that a tenant has; all that can be are loaded.
    pub(crate) async fn all_providers(&self, tenant: &TenantId) -> Result<Arc<TenantProviders>, Error> {
        let providers = self.0.catalogue.of_tenant(tenant);
        if !providers.lacks_some() {
            return Ok(providers);
        }
        Box::pin(self.0.uploads.all_ready(tenant)).await?;
        Ok(self.0.catalogue.of_tenant(tenant))
    }
}

/// The provider that an application is registered for, among those that the tenant has.
pub(crate) fn provider_of(name: &str, providers: &TenantProviders) -> Result<Arc<Provider>, Error> {
    providers.get(name).cloned().ok_or_else(|| {
        let message = format!("the application's provider {name} is not there");
        Error::new(Kind::NotFound, "provider_not_found", message)
    })
}
