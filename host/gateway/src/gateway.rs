//! The state of the gateway, which every operation uses, and the providers and limits of a tenant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex as SyncMutex;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::endpoints::EndpointResolver;
use crate::history::RecentFailures;
use crate::meters::Meters;
use crate::queue;
use crate::sessions::Sessions;
use crate::standing_capture::StandingCaptures;
use crate::tenants::{Held, Tenants, Usage};
use crate::uploads::Uploads;
use crate::webhooks::Webhooks;
use pushlet_credential::{Authorizer, ClockReading};
use pushlet_model::contract::management::Collection;
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_registry::{
    ApplicationEntry, AuditEntry, NodeView, Registry, RegistryChange, StorageError, UsageCounts,
};
use pushlet_sandbox::{Provider, ProviderCatalogue, TenantProviders};
use pushlet_settings as config;
use pushlet_transport::{CertificateDer, SetupError, Transport};

/// How long the result of a check is reused.
const FRESH: Duration = Duration::from_secs(3);
/// Callers that ask the fleet for an application at the same time.
pub(crate) const LOOK_UPS: usize = 16;
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
    /// What was counted and is not stored yet, because the storage failed.
    pub waiting_usage: SyncMutex<HashMap<TenantId, UsageCounts>>,
    /// Held by each open stream.
    pub open_streams: Arc<()>,
    pub captures: StandingCaptures,
    pub webhooks: Webhooks,
    pub webhook_settings: config::WebhooksConfig,
    pub storage_check: StorageCheck,
    /// Permits to ask the fleet for an application.
    pub look_ups: Semaphore,
    pub sessions: Sessions,
    pub queue: Arc<queue::Workers>,
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
    /// Returns the descriptions of the providers that a tenant can use, or, without a tenant, of those that all can use.
    pub fn described(&self, tenant: Option<&TenantId>) -> Vec<Described> {
        let providers = match tenant {
            Some(tenant) => self.0.catalogue.of_tenant(tenant),
            None => self.0.catalogue.shared(),
        };
        let described = providers.all().map(|provider| Described {
            digest: provider.digest().to_owned(),
            manifest: provider.manifest().clone(),
            collections: provider.collections().to_vec(),
        });
        described.collect()
    }

    /// Loads components for all tenants, those that are new, with the program's own. Takes its time: not for an async
    /// thread. The error has the number of the component that is wrong.
    pub fn load_shared(&self, components: &[Vec<u8>]) -> Result<Arc<TenantProviders>, (usize, Box<Error>)> {
        self.0.uploads.load_shared(components)
    }

    /// Replaces the providers that all tenants share, and returns those before.
    pub fn set_shared(&self, providers: Arc<TenantProviders>) -> Arc<TenantProviders> {
        let before = self.0.catalogue.shared();
        self.0.catalogue.set_shared(providers);
        before
    }

    /// Trusts the system's authorities and these, for connections that are opened from now on.
    pub fn set_extra_roots(&self, roots: &[CertificateDer<'static>]) -> Result<(), SetupError> {
        self.0.transport.set_extra_roots(roots)
    }

    /// Returns the providers that a tenant can use, after loading the one with this name if that is possible.
    pub(crate) async fn providers(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Arc<TenantProviders>, Error> {
        let providers = self.0.catalogue.of_tenant(tenant);
        if providers.get(name).is_none() && self.0.registry.has_newer_version(tenant, name) {
            return Err(StorageError::NewerRecord.into());
        }
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
    /// Returns the servers that do this work together: of a fleet, those that live; otherwise this one.
    pub fn nodes(&self) -> Vec<NodeView> {
        match self.0.registry.fleet() {
            Some(fleet) => fleet.nodes(),
            None => vec![NodeView {
                id: "local".to_owned(),
                name: "local".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                since: self.0.tenants.since(),
                in_flight: self.0.tenants.in_flight(),
            }],
        }
    }

    /// Returns how much of its limits a tenant uses.
    pub fn usage(&self, tenant: &TenantId) -> Result<Usage, Error> {
        let (components, component_bytes) = self.0.uploads.held_by(tenant);
        let held = Held { applications: self.0.registry.count(tenant) as u64, components, component_bytes };
        self.0.tenants.usage(tenant, held)
    }

    /// Stores an entry of the audit log.
    pub async fn add_audit_entry(&self, entry: AuditEntry) -> Result<(), Error> {
        let registry = self.0.registry.clone();
        tokio::task::spawn_blocking(move || registry.add_audit_entry(&entry))
            .await
            .map_err(Error::internal)?
    }

    /// Returns what a tenant changed, and what the operator changed of it, each with its time in microseconds since the
    /// Unix epoch; the oldest first. None: all that the operator changed.
    pub async fn audit_entries(&self, tenant: Option<TenantId>) -> Result<Vec<(u64, AuditEntry)>, Error> {
        let registry = self.0.registry.clone();
        let read = move || registry.audit_entries(tenant.as_ref());
        Ok(tokio::task::spawn_blocking(read).await.map_err(Error::internal)??)
    }

    /// Returns a file with all records of the registry as they are now; None: they are kept in no file.
    pub async fn copy_registry(&self) -> Result<Option<std::fs::File>, Error> {
        let registry = self.0.registry.clone();
        tokio::task::spawn_blocking(move || registry.copy()).await.map_err(Error::internal)?
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
        let removed =
            tokio::task::spawn_blocking(move || tenants.remove(&id)).await.map_err(Error::internal)?;
        if let Err(error) = removed {
            // It is still there, and goes on.
            self.take_on_tenant(tenant);
            return Err(error);
        }
        providers.forget();
        self.forget_tenant(tenant);
        for entry in entries {
            self.retire_connections(tenant.clone(), entry);
        }
        Ok(())
    }

    fn forget_tenant(&self, tenant: &TenantId) {
        self.0.catalogue.shared().all().for_each(|provider| provider.forget(tenant));
        self.0.meters.forget(tenant);
        self.0.recent.forget(tenant);
        self.0.captures.forget(tenant);
        self.0.webhooks.forget(tenant);
        self.0.authorizer.release(tenant, &ClockReading::now());
    }

    /// Takes on what other nodes of the fleet change. Needs a Tokio runtime.
    pub(crate) fn follow_registry(&self) {
        let (gateway, runtime) = (Arc::downgrade(&self.0), Handle::current());
        let followed = self.0.registry.follow(move |change| {
            let Some(gateway) = gateway.upgrade().map(Self) else { return };
            let _runtime = runtime.enter();
            gateway.take_on(change);
        });
        if let Err(error) = followed {
            tracing::error!(%error, "changes of other nodes are not seen until this server is started again");
        }
    }

    fn take_on(&self, change: RegistryChange) {
        match change {
            RegistryChange::Tenant(tenant) => self.take_on_tenant(&tenant),
            RegistryChange::Tenants => {
                let kept = self.0.registry.tenants().unwrap_or_default();
                let mut all: Vec<_> = kept.into_iter().map(|(tenant, _)| tenant).collect();
                all.extend(self.0.tenants.ids());
                all.iter().for_each(|tenant| self.take_on_tenant(tenant));
            }
            RegistryChange::Application(tenant, old) => {
                old.into_iter().for_each(|old| self.retire_connections(tenant.clone(), old));
            }
            RegistryChange::Webhooks(tenant) => {
                if let Err(error) = self.take_on_webhooks(Some(&tenant)) {
                    tracing::error!(%tenant, %error, "a change of a webhook is not taken on");
                }
            }
            RegistryChange::Provider(tenant, name) => self.0.uploads.take_on(tenant, name),
        }
    }

    fn take_on_tenant(&self, tenant: &TenantId) {
        match self.0.tenants.take_on(tenant) {
            Ok(true) => {}
            Ok(false) => {
                self.0.uploads.forget(tenant);
                self.forget_tenant(tenant);
            }
            Err(error) => tracing::error!(%tenant, %error, "a change of a tenant is not taken on"),
        }
    }

    /// Returns an application. One that this node does not know may have been registered on another a moment ago: then
    /// the fleet is asked, by a few callers at a time.
    pub(crate) async fn find_application(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<Arc<ApplicationEntry>, Error> {
        match self.0.registry.get(tenant, id) {
            // Boxed: every send holds the room for what is inline, and few get here.
            Err(unknown) if unknown.kind == Kind::NotFound && self.0.registry.is_shared() => {
                Box::pin(self.look_up_application(tenant, id, unknown)).await
            }
            known => known,
        }
    }

    async fn look_up_application(
        &self,
        tenant: &TenantId,
        id: &str,
        unknown: Error,
    ) -> Result<Arc<ApplicationEntry>, Error> {
        let Ok(Ok(_permit)) = timeout(WAIT, self.0.look_ups.acquire()).await else { return Err(unknown) };
        let (registry, tenant, id) = (self.0.registry.clone(), tenant.clone(), id.to_owned());
        let look_up = tokio::task::spawn_blocking(move || registry.look_up(&tenant, &id));
        look_up.await.map_err(Error::internal)?
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
