//! The state of the gateway, which every operation uses, and the providers and limits of a tenant.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::endpoints::EndpointResolver;
use crate::meters::{Meters, RecentFailures};
use crate::tenants::{Held, Tenants, Usage};
use crate::uploads::Uploads;
use pushlet_credential::{Authorizer, ClockReading};
use pushlet_model::contract::management::Collection;
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_registry::{Registry, StorageError};
use pushlet_sandbox::{Provider, ProviderCatalogue, TenantProviders};
use pushlet_settings as config;
use pushlet_transport::Transport;

/// How long the result of a check is reused.
const FRESH: Duration = Duration::from_secs(3);
/// A storage that takes longer than this counts as failed.
const WAIT: Duration = Duration::from_secs(2);

/// Registers applications and sends for them. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub catalogue: Arc<ProviderCatalogue>,
    pub uploads: Uploads,
    pub registry: Arc<Registry>,
    pub transport: Transport,
    pub authorizer: Authorizer,
    pub destinations: EndpointResolver,
    pub delivery: config::DeliveryConfig,
    /// Most dead tokens kept for each application.
    pub feedback: usize,
    /// Most sends of one application at a time.
    pub places: usize,
    /// Most targets of one stream in flight.
    pub stream_window: usize,
    pub tenants: Arc<Tenants>,
    pub meters: Meters,
    pub recent: RecentFailures,
    pub storage_check: StorageCheck,
}

/// A provider's description of itself.
#[derive(Clone)]
pub struct Described {
    /// SHA-256 of the component.
    pub digest: String,
    pub manifest: ProviderManifest,
    pub collections: Vec<Collection>,
}

impl Gateway {
    /// Returns the descriptions of the providers that a tenant can use.
    pub fn described(&self, tenant: &TenantId) -> Vec<Described> {
        let providers = self.0.catalogue.of_tenant(tenant);
        let described = providers.all().map(|provider| Described {
            digest: provider.digest().to_owned(),
            manifest: provider.manifest().clone(),
            collections: provider.collections().to_vec(),
        });
        described.collect()
    }

    /// Returns the providers that a tenant can use, after loading the one with this name if that is possible.
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

    /// Returns the providers that a tenant can use, after loading all that can be loaded.
    pub(crate) async fn all_providers(&self, tenant: &TenantId) -> Result<Arc<TenantProviders>, Error> {
        let providers = self.0.catalogue.of_tenant(tenant);
        if !providers.lacks_some() {
            return Ok(providers);
        }
        Box::pin(self.0.uploads.all_ready(tenant)).await?;
        Ok(self.0.catalogue.of_tenant(tenant))
    }
}

impl Gateway {
    /// Returns how much of its limits a tenant uses.
    pub fn usage(&self, tenant: &TenantId) -> Result<Usage, Error> {
        let (components, component_bytes) = self.0.uploads.held_by(tenant);
        let held = Held { applications: self.0.registry.count(tenant) as u64, components, component_bytes };
        self.0.tenants.usage(tenant, held)
    }

    /// Removes a tenant with everything that belongs to it; its sends in flight finish. Must run to its end.
    pub async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        self.0.tenants.removable(tenant)?;
        // Held until the tenant is removed, so that nothing is registered or uploaded for it meanwhile.
        let _registrations = self.0.tenants.acquire_registration_permit(tenant).await?;
        let providers = self.0.uploads.change(tenant)?;
        self.0.tenants.end(tenant).await?;
        let entries = self.0.registry.list(tenant);
        let (tenants, id) = (self.0.tenants.clone(), tenant.clone());
        tokio::task::spawn_blocking(move || tenants.remove(&id)).await.map_err(Error::internal)??;
        providers.forget();
        self.0.catalogue.shared().all().for_each(|provider| provider.forget(tenant));
        self.0.meters.forget(tenant);
        self.0.recent.forget(tenant);
        self.0.authorizer.release(tenant, &ClockReading::now());
        for entry in entries {
            self.retire_connections(tenant.clone(), entry);
        }
        Ok(())
    }
}

/// Returns the provider that an application is registered for, if the tenant still has it.
pub(crate) fn provider_of(name: &str, providers: &TenantProviders) -> Result<Arc<Provider>, Error> {
    providers.get(name).cloned().ok_or_else(|| {
        let message = format!("the application's provider {name} is not there");
        Error::new(Kind::NotFound, "provider_not_found", message)
    })
}

/// Checks the registry's storage, one check at a time.
#[derive(Default)]
pub(super) struct StorageCheck(Mutex<StorageState>);

#[derive(Default)]
struct StorageState {
    last: Option<(Instant, Option<String>)>,
    /// A check that has not finished: a second one would only hang as well.
    looking: Option<JoinHandle<Result<(), StorageError>>>,
}

impl StorageCheck {
    /// Returns why the registry cannot be written now, or None if it can.
    pub async fn problem(&self, registry: &Arc<Registry>) -> Option<String> {
        let mut state = self.0.lock().await;
        if let Some((at, problem)) = &state.last
            && at.elapsed() < FRESH
        {
            return problem.clone();
        }
        let registry = registry.clone();
        let look = move || tokio::task::spawn_blocking(move || registry.check_storage());
        let looking = state.looking.get_or_insert_with(look);
        let problem = match timeout(WAIT, &mut *looking).await {
            Ok(ended) => {
                state.looking = None;
                match ended {
                    Ok(result) => result.err().map(|error| error.to_string()),
                    Err(error) => Some(error.to_string()),
                }
            }
            Err(_) => Some(format!("the disk did not answer within {WAIT:?}")),
        };
        state.last = Some((Instant::now(), problem.clone()));
        problem
    }
}
