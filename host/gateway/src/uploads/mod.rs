//! Uploaded providers: how a stranger's component gets into the catalogue, step by step, and out again.
//!
//! [`Uploads::begin`] takes a permit once the component has been read; [`Upload::finish`] checks it, compiles it in
//! a process of its own, checks its manifest against the operator's [`Policy`], tries it, keeps it, and then swaps it
//! in. Calls in flight finish with the version that they began with.

mod jobs;
mod loading;
mod policy;
mod state;
mod upload;
mod versions;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::tenants::Tenants;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Work;
use pushlet_registry::{ComponentVersion as Stored, Registry};
use pushlet_sandbox::{GuestLog, Provider, ProviderCatalogue, ProviderLoader, Sandbox, TenantProviders};

use jobs::CompileJobs;
pub use policy::{Policy, SecretHost, UploadRefusal, compile_limits};
use state::{Change, TenantUploads, UploadState, blocking, not_found};
pub use upload::{Upload, for_everybody};
use versions::{Code, Version, Versions};
pub use view::{ProviderEntry, ProviderLog, ProviderView, VersionLog};

/// Uploads in progress at the same time, of different tenants.
const PLACES: usize = 8;
/// How long an upload waits for a permit.
const WAIT: Duration = Duration::from_secs(10);

/// The uploaded providers of all tenants. Cheap to clone.
#[derive(Clone)]
pub struct Uploads(Arc<UploadState>);

impl Uploads {
    /// Creates the uploads of a server. `jobs`: components that may be compiled at a time.
    pub fn new(
        catalogue: ProviderCatalogue,
        loader: ProviderLoader,
        owners: Arc<Tenants>,
        registry: Arc<Registry>,
        policy: Policy,
        jobs: usize,
    ) -> Self {
        let sandbox = loader.sandbox().clone();
        let accounts = sandbox.accounts().clone();
        let uploads = Self(Arc::new(UploadState {
            catalogue: Arc::new(catalogue),
            loader: Arc::new(loader),
            owners,
            registry,
            policy,
            places: Arc::new(Semaphore::new(PLACES)),
            jobs: CompileJobs::new(jobs),
            accounts,
            busy: Mutex::default(),
            tenants: Mutex::default(),
        }));
        uploads.watch(&sandbox);
        let owners = Arc::downgrade(&uploads.0.owners);
        sandbox.limits_of(move |tenant| {
            owners.upgrade().and_then(|owners| owners.limits(tenant).ok()).unwrap_or_default()
        });
        uploads
    }

    /// Registers the fallback: when a version is quarantined, the version before it becomes active again. All servers of a
    /// fleet go by what one of them finds out.
    fn watch(&self, sandbox: &Sandbox) {
        let (shared, others) = (Arc::downgrade(&self.0), Arc::downgrade(&self.0));
        sandbox.on_quarantine(move |tenant, name, digest, pause| {
            let Some(shared) = shared.upgrade() else { return };
            shared.tell_quarantine(tenant, name, digest, pause);
            if pause.is_some() {
                shared.fall_back(tenant, name, digest);
            }
        });
        if let Some(fleet) = self.0.registry.fleet() {
            fleet.follow_quarantines(move |told| {
                others.upgrade().into_iter().for_each(|shared| shared.take_quarantine(&told));
            });
        }
    }

    pub(super) fn catalogue(&self) -> &Arc<ProviderCatalogue> {
        &self.0.catalogue
    }

    /// Returns the providers that all tenants share, with the names of their endpoints.
    pub fn shared_endpoints(&self) -> Vec<(String, Vec<String>)> {
        self.0.catalogue.shared_endpoints()
    }

    /// Loads the components of the operator's directory again: those that are new. Takes its time: not for an async
    /// thread. The error has the number of the component.
    pub(super) fn load_shared(
        &self,
        components: &[Vec<u8>],
    ) -> Result<Arc<TenantProviders>, (usize, Box<Error>)> {
        let Self(state) = self;
        let mut catalogue = state.catalogue.only_built_in();
        for (number, component) in components.iter().enumerate() {
            let known = Some(&*state.catalogue);
            let added = for_everybody(catalogue, known, &state.loader, &state.policy, component);
            catalogue = added.map_err(|error| (number, Box::new(error)))?;
        }
        Ok(catalogue.shared())
    }

    /// Returns the largest size of a component, in bytes.
    pub fn largest_component(&self) -> usize {
        self.0.loader.largest_component()
    }

    /// Finds the components of an earlier run, and has them loaded in the background. One that cannot be
    /// loaded is unusable, and the others are loaded. Needs a Tokio runtime.
    pub fn restore(&self) {
        let mut tenants: HashMap<TenantId, TenantUploads> = HashMap::new();
        for stored in self.0.registry.versions() {
            let tenant = tenants.entry(stored.tenant.clone()).or_default();
            tenant.providers.entry(stored.name.clone()).or_default().restore(stored);
        }
        tenants.iter().for_each(|(id, tenant)| self.0.publish(id, tenant));
        *self.0.tenants.lock() = tenants;
        self.0.load_in_background();
    }

    /// Takes on what another node made of a tenant's provider. Needs a Tokio runtime.
    pub(super) fn take_on(&self, tenant: TenantId, name: String) {
        self.0.take_on(tenant, name);
    }

    /// Drops what is left of a tenant that another node removed.
    pub(super) fn forget(&self, tenant: &TenantId) {
        self.0.forget(tenant);
    }

    /// Returns an error if a provider of this name may not be uploaded now; called before the component is
    /// read.
    pub fn may_upload(&self, tenant: &TenantId, name: &str) -> Result<(), Error> {
        self.0.may_upload(tenant, name)
    }

    /// Loads a component as an upload does, and changes nothing. If it is uploaded while the caller has the provider, it is
    /// not compiled again.
    pub async fn load(
        &self,
        tenant: &TenantId,
        component: Vec<u8>,
        log: &Arc<GuestLog>,
    ) -> Result<Arc<Provider>, Error> {
        upload::load(&self.0, tenant, &component.into(), log).await
    }

    /// Acquires a permit for an upload whose component has been read, so that a slow caller does not hold
    /// one.
    pub async fn begin(&self, tenant: &TenantId, name: &str) -> Result<Upload, Error> {
        self.0.may_upload(tenant, name)?;
        let change = self.change(tenant)?;
        let place = tokio::time::timeout(WAIT, self.0.places.clone().acquire_owned()).await;
        match place {
            Ok(Ok(place)) => Ok(Upload::new(change, name, place)),
            _ => {
                let message = "too many components are being uploaded, try again later";
                Err(Error::new(Kind::Overloaded, "too_many_uploads", message))
            }
        }
    }

    /// Makes a stored version the active one, and ends its quarantine.
    pub async fn activate(&self, tenant: &TenantId, name: &str, digest: &str) -> Result<ProviderView, Error> {
        let change = self.change(tenant)?;
        let kept =
            self.0.tenants.lock().get(tenant).and_then(|own| own.providers.get(name)?.get(digest).cloned());
        let Some(version) = kept else {
            self.view(tenant, name)?;
            let message = format!("there is no version {digest} of {name}");
            return Err(Error::new(Kind::NotFound, "version_not_found", message).about("digest"));
        };
        let provider = match version.provider() {
            Some(provider) => provider.clone(),
            None => {
                self.0.accounts.of(tenant).admit_work(Work::Compiling)?;
                self.0.load(&version.stored).await?
            }
        };
        let (name, mut stored) = (name.to_owned(), version.stored);
        blocking(move || {
            let shared = &change.shared;
            provider.instances(&change.tenant).release();
            stored.activated = shared.next_activation(&change.tenant, &name);
            let Stored { tenant, name, digest, activated, .. } = &stored;
            shared.registry.activate_component(tenant, name, digest, *activated)?;
            Ok(shared.swap_in(Version::new(stored, Code::Loaded(provider))))
        })
        .await
    }

    /// Waits until a tenant's own provider of this name is loaded, if there is one. A provider that cannot be loaded at
    /// all is no error here: it is not in the catalogue.
    pub async fn ready(&self, tenant: &TenantId, name: &str) -> Result<(), Error> {
        self.0.ready(tenant, name).await
    }

    /// Waits until all of a tenant's own providers are loaded.
    pub async fn all_ready(&self, tenant: &TenantId) -> Result<(), Error> {
        self.0.all_ready(tenant).await
    }

    /// Returns how many active versions are not loaded yet.
    pub fn loading(&self) -> usize {
        self.0.loading()
    }

    /// Removes all versions of a tenant's own provider. Its applications stay, but cannot be sent for.
    pub async fn remove(&self, tenant: &TenantId, name: &str) -> Result<(), Error> {
        let change = self.change(tenant)?;
        let versions = self.0.tenants.lock().get(tenant).and_then(|own| own.providers.get(name).cloned());
        let Some(versions) = versions else {
            self.view(tenant, name)?;
            let message = format!("{name} is there for everybody; only what was uploaded can be removed");
            return Err(Error::new(Kind::Conflict, "built_in_provider", message));
        };
        let name = name.to_owned();
        blocking(move || {
            let Change { shared, tenant } = &change;
            for version in versions.latest_first() {
                shared.registry.remove_component(tenant, &name, &version.stored.digest)?;
            }
            let mut tenants = shared.tenants.lock();
            if let Some(own) = tenants.get_mut(tenant) {
                own.providers.remove(&name);
                shared.publish(tenant, own);
            }
            Ok(())
        })
        .await
    }

    /// Returns the providers that a tenant can register applications for, by name.
    pub fn list(&self, tenant: &TenantId) -> Vec<ProviderEntry> {
        let tenants = self.0.tenants.lock();
        let own = tenants.get(tenant).map(|own| &own.providers);
        let is_own = |name: &String| own.is_some_and(|own| own.contains_key(name));
        let shared = self.0.catalogue.shared();
        let shared = shared.all().filter(|provider| !is_own(&provider.manifest().name));
        let shared = shared.map(|provider| ProviderView::shared(provider, tenant));
        let own = own.into_iter().flatten().map(|(name, versions)| ProviderView::own(name, versions, tenant));
        let mut all: Vec<_> = shared.chain(own).map(ProviderEntry::from).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    pub fn view(&self, tenant: &TenantId, name: &str) -> Result<ProviderView, Error> {
        if let Some(versions) = self.0.tenants.lock().get(tenant).and_then(|own| own.providers.get(name)) {
            return Ok(ProviderView::own(name, versions, tenant));
        }
        let shared = self.0.catalogue.shared();
        shared.get(name).map(|provider| ProviderView::shared(provider, tenant)).ok_or_else(|| not_found(name))
    }

    /// Returns what the tenant's instances of a provider printed, and where they trapped.
    pub fn log(&self, tenant: &TenantId, name: &str) -> Result<ProviderLog, Error> {
        let tenants = self.0.tenants.lock();
        let own = tenants.get(tenant);
        let refused = own.and_then(|own| own.refused.clone()).filter(|refused| refused.name == name);
        let versions = own.and_then(|own| own.providers.get(name));
        let logs: Vec<(String, Arc<GuestLog>)> = match versions {
            Some(versions) => {
                let loaded = |version: &Version| Some((version.stored.digest.clone(), version.log()?));
                versions.latest_first().filter_map(loaded).collect()
            }
            None => {
                let shared = self.0.catalogue.shared();
                let shared = shared.get(name).into_iter();
                let log = |provider: &Arc<Provider>| provider.instances(tenant).log().clone();
                shared.map(|provider| (provider.digest().to_owned(), log(provider))).collect()
            }
        };
        if versions.is_none() && logs.is_empty() && refused.is_none() {
            return Err(not_found(name));
        }
        let versions = logs.into_iter().map(|(digest, log)| VersionLog::of(digest, &log));
        Ok(ProviderLog { versions: versions.collect(), refused_upload: refused })
    }

    /// Returns how many providers a tenant uploaded, and the bytes of all their versions.
    pub(super) fn held_by(&self, tenant: &TenantId) -> (u64, u64) {
        let tenants = self.0.tenants.lock();
        let Some(own) = tenants.get(tenant) else { return (0, 0) };
        let versions = own.providers.values().flat_map(Versions::latest_first);
        (own.providers.len() as u64, versions.map(|version| version.stored.size).sum())
    }

    pub(super) fn change(&self, tenant: &TenantId) -> Result<Change, Error> {
        let mut busy = self.0.busy.lock();
        if busy.insert(tenant.clone()) {
            return Ok(Change { shared: self.0.clone(), tenant: tenant.clone() });
        }
        let message = "another change of your providers is in progress";
        Err(Error::new(Kind::Conflict, "change_under_way", message))
    }
}
