//! When uploaded components are loaded. Only active versions are. The server's start does not wait for them:
//! they are loaded one after the other in the background, and at once when a send needs one.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::state::UploadState;
use super::versions::{Code, Loading};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_registry::ComponentVersion as Stored;
use pushlet_sandbox::{GuestLog, Provider};

/// How long a caller waits for a component that is being loaded.
const WAIT: Duration = Duration::from_secs(5);
/// A component that could not be loaded is not tried again for this long.
const PAUSE: Duration = Duration::from_secs(5);

/// How often to check whether a change of this node's own has ended.
const LOOK: Duration = Duration::from_millis(100);

impl UploadState {
    /// Waits until a tenant's own provider of this name is loaded, if there is one. A provider that cannot be loaded at
    /// all is no error here: it is not in the catalogue.
    pub async fn ready(self: &Arc<Self>, tenant: &TenantId, name: &str) -> Result<(), Error> {
        let Some(mut loading) = self.begin_loading(tenant, name)? else { return Ok(()) };
        let landed = tokio::time::timeout(WAIT, loading.wait_for(Option::is_some)).await;
        match landed {
            Ok(Ok(landed)) => landed.clone().unwrap_or(Ok(())),
            _ => {
                let message = format!("the provider {name} is being loaded, try again later");
                Err(Error::new(Kind::Overloaded, "provider_loading", message).after(PAUSE))
            }
        }
    }

    /// Waits until all of a tenant's own providers are loaded.
    pub async fn all_ready(self: &Arc<Self>, tenant: &TenantId) -> Result<(), Error> {
        for name in self.names(tenant) {
            self.ready(tenant, &name).await?;
        }
        Ok(())
    }

    /// Returns how many active versions are not loaded yet.
    pub fn loading(&self) -> usize {
        let tenants = self.tenants.lock();
        let active =
            tenants.values().flat_map(|tenant| tenant.providers.values().filter_map(|own| own.active()));
        active.filter(|version| matches!(version.code, Code::Absent | Code::Loading(_))).count()
    }

    /// Loads what an earlier run left, one after the other. Needs a Tokio runtime.
    pub fn load_in_background(self: &Arc<Self>) {
        let (shared, all) = (Arc::downgrade(self), self.in_turn());
        if !all.is_empty() {
            tokio::spawn(load_all(shared, all));
        }
    }

    /// Takes on the versions of a provider that another node changed, and loads the active one. Needs a Tokio runtime.
    pub fn take_on(self: &Arc<Self>, tenant: TenantId, name: String) {
        let shared = self.clone();
        tokio::spawn(async move {
            // A change of this node's own ends with all versions in place.
            while shared.busy.lock().contains(&tenant) {
                tokio::time::sleep(LOOK).await;
            }
            {
                let stored = shared.registry.versions_of(&tenant, &name);
                let mut tenants = shared.tenants.lock();
                let own = tenants.entry(tenant.clone()).or_default();
                if !own.providers.entry(name.clone()).or_default().take_on(stored) {
                    own.providers.remove(&name);
                }
                shared.publish(&tenant, own);
            }
            // An error is logged where it happens.
            let _ = shared.begin_loading(&tenant, &name);
        });
    }

    fn names(&self, tenant: &TenantId) -> Vec<String> {
        self.tenants.lock().get(tenant).map(|own| own.providers.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns all providers: the first one of each tenant, then the second one of each, so that no tenant
    /// waits for all providers of another.
    fn in_turn(&self) -> Vec<(TenantId, String)> {
        let tenants = self.tenants.lock();
        let mut all = BTreeMap::new();
        for (tenant, own) in tenants.iter() {
            for (number, name) in own.providers.keys().enumerate() {
                all.insert((number, tenant.clone()), name.clone());
            }
        }
        all.into_iter().map(|((_, tenant), name)| (tenant, name)).collect()
    }

    /// Begins to load a tenant's active version, if it is not loaded. Returns None if there is nothing to
    /// wait for. `Err`: it could not be loaded a moment ago.
    fn begin_loading(self: &Arc<Self>, tenant: &TenantId, name: &str) -> Result<Option<Loading>, Error> {
        let mut tenants = self.tenants.lock();
        let versions = tenants.get_mut(tenant).and_then(|own| own.providers.get_mut(name));
        let Some(version) = versions.and_then(|versions| versions.active_mut()) else { return Ok(None) };
        match &version.code {
            Code::Loaded(_) | Code::Unusable(_) => return Ok(None),
            // A closed channel means that the task that loads it was lost.
            Code::Loading(loading) if loading.has_changed().is_ok() => return Ok(Some(loading.clone())),
            Code::Failed(error, until) if Instant::now() < *until => return Err(error.clone()),
            Code::Loading(_) | Code::Failed(..) | Code::Absent => {}
        }
        let (landed, loading) = watch::channel(None);
        version.code = Code::Loading(loading.clone());
        let (shared, stored) = (self.clone(), version.stored.clone());
        tokio::spawn(async move {
            let loaded = shared.load(&stored).await;
            let result = loaded.as_ref().map(drop).map_err(Clone::clone);
            // The provider is in its place before the waiting tasks go on.
            shared.land(&stored, loaded);
            let _ = landed.send(Some(result));
        });
        Ok(Some(loading))
    }

    /// Puts a loaded version in its place, unless another version has become active.
    fn land(&self, stored: &Stored, loaded: Result<Arc<Provider>, Error>) {
        let Stored { tenant, name, digest, .. } = stored;
        let mut tenants = self.tenants.lock();
        let Some(own) = tenants.get_mut(tenant) else { return };
        let active = own.providers.get_mut(name).and_then(|versions| versions.active_mut());
        let Some(version) = active.filter(|version| version.stored.digest == *digest) else { return };
        if matches!(version.code, Code::Loaded(_)) {
            return;
        }
        version.code = match loaded {
            Ok(provider) => Code::Loaded(provider),
            Err(error) => {
                tracing::error!(%tenant, name, digest, %error, "an uploaded provider cannot be loaded");
                Code::of_failure(error, Instant::now() + PAUSE)
            }
        };
        self.publish(tenant, own);
    }

    /// Loads a version that passed all steps before. The operator's policy may have changed since.
    pub async fn load(self: &Arc<Self>, stored: &Stored) -> Result<Arc<Provider>, Error> {
        self.may_shadow(&stored.name)?;
        let account = self.accounts.of(&stored.tenant);
        let log = Arc::<GuestLog>::default();
        let find = {
            let (shared, stored, account, log) = (self.clone(), stored.clone(), account.clone(), log.clone());
            move || {
                let Stored { tenant, name, digest, .. } = &stored;
                let component = shared.registry.component(tenant, name, digest)?;
                let component = component.ok_or_else(|| Error::internal("the component's file is gone"))?;
                let provider = shared.loader.find(&account, &component, &log)?;
                Ok::<_, Error>((component, provider))
            }
        };
        let (component, found) = self.accounts.in_background(find).await??;
        let provider = match found {
            Some(provider) => provider,
            None => {
                let job = self.jobs.acquire(&stored.tenant).await?;
                let shared = self.clone();
                let compile = move || {
                    let _job = job;
                    shared.loader.compile(&account, &component, &log)
                };
                self.accounts.in_background(compile).await??
            }
        };
        self.policy.check(&stored.name, provider.manifest())?;
        Ok(provider)
    }
}

async fn load_all(shared: Weak<UploadState>, all: Vec<(TenantId, String)>) {
    for (tenant, name) in all {
        let Some(shared) = shared.upgrade() else { return };
        if let Ok(Some(mut loading)) = shared.begin_loading(&tenant, &name) {
            drop(shared);
            let _ = loading.wait_for(Option::is_some).await;
        }
    }
    tracing::info!("the uploaded providers are loaded");
}
