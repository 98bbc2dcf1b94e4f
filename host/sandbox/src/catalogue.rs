//! The providers that there are, by tenant and name.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::BUILT_IN;
use super::error::LoadError;
use super::limits::ComponentTrust;
use super::provider::{Provider, ProviderLoader};
use pushlet_model::tenant::TenantId;

/// All providers that requests can name. Looking one up takes no lock.
pub struct ProviderCatalogue {
    /// The providers that all tenants share.
    shared: Arc<TenantProviders>,
    /// The providers of the tenants that have some of their own.
    own: ArcSwap<HashMap<TenantId, Arc<TenantProviders>>>,
    changes: Mutex<()>,
}

/// The providers that one tenant sees.
#[derive(Default)]
pub struct TenantProviders {
    /// The shared ones in the order of their names, then the tenant's own in the order of theirs.
    all: Vec<Arc<Provider>>,
    /// Names of the tenant's own that have nothing behind them that can be called now.
    missing: Vec<String>,
    /// How many of them are shared.
    shared: usize,
}

/// A tenant's name, and the component behind it; None: it cannot be called now, and nothing else is in its place.
pub type OwnProvider = (String, Option<Arc<Provider>>);

impl TenantProviders {
    pub fn get(&self, name: &str) -> Option<&Arc<Provider>> {
        self.all.iter().find(|provider| provider.manifest().name == name)
    }

    /// Returns true if the provider of this name is not loaded.
    pub fn lacks(&self, name: &str) -> bool {
        self.missing.iter().any(|missing| missing == name)
    }

    /// Returns true if any provider is not loaded.
    pub fn lacks_some(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Returns true if the tenant uploaded the provider of this name.
    pub fn is_own(&self, name: &str) -> bool {
        self.all.iter().skip(self.shared).any(|provider| provider.manifest().name == name)
    }

    /// Returns all providers, the shared ones first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.all.iter()
    }
}

impl Default for ProviderCatalogue {
    /// Without providers.
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl ProviderCatalogue {
    /// Loads the built-in components, each on a thread of its own: compiling takes its time.
    pub fn built_in(loader: &ProviderLoader) -> Result<Self, (String, LoadError)> {
        let load = |bytes| loader.load(bytes, ComponentTrust::BuiltIn, &Arc::default());
        let loaded: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                BUILT_IN.iter().map(|(name, bytes)| (*name, scope.spawn(move || load(bytes)))).collect();
            threads.into_iter().map(|(name, thread)| (name, thread.join())).collect()
        });
        let mut all = Vec::new();
        for (name, provider) in loaded {
            let provider = provider
                .unwrap_or_else(|_| Err(LoadError::Invalid("compiling it panicked".into())))
                .map_err(|error| (name.to_owned(), error))?;
            all.push(provider);
        }
        Ok(Self::of(all))
    }

    /// Creates a catalogue of shared providers.
    fn of(all: Vec<Arc<Provider>>) -> Self {
        let mut providers = TenantProviders { shared: all.len(), all, missing: Vec::new() };
        providers.all.sort_by(|one, other| one.manifest().name.cmp(&other.manifest().name));
        Self { shared: Arc::new(providers), own: ArcSwap::default(), changes: Mutex::default() }
    }

    /// Adds a shared provider in place of one of the same name.
    pub fn with(self, provider: Arc<Provider>) -> Self {
        let name = &provider.manifest().name;
        let others = self.shared.all().filter(|other| other.manifest().name != *name).cloned();
        let all = others.chain([provider.clone()]).collect();
        Self::of(all)
    }

    /// Returns the providers that all tenants share.
    pub fn shared(&self) -> &Arc<TenantProviders> {
        &self.shared
    }

    /// Returns the names of the shared providers, each with the names of its endpoints.
    pub fn shared_endpoints(&self) -> Vec<(String, Vec<String>)> {
        let of = |provider: &Arc<Provider>| {
            let manifest = provider.manifest();
            let endpoints = manifest.endpoints.iter().map(|endpoint| endpoint.name.clone());
            (manifest.name.clone(), endpoints.collect())
        };
        self.shared.all().map(of).collect()
    }

    /// Returns the providers of a tenant, shared ones included.
    pub fn of_tenant(&self, tenant: &TenantId) -> Arc<TenantProviders> {
        self.own.load().get(tenant).unwrap_or(&self.shared).clone()
    }

    /// Returns the providers that tenants uploaded.
    pub fn uploaded(&self) -> Vec<Arc<Provider>> {
        let own = self.own.load();
        let all = own.values().flat_map(|providers| providers.all());
        all.filter(|provider| provider.trust() == ComponentTrust::Uploaded).cloned().collect()
    }

    /// Sets all providers of a tenant's own, in the order of their names. Calls in flight finish with those
    /// that they began with.
    pub fn set_own(&self, tenant: &TenantId, own: &[OwnProvider]) {
        let _one_at_a_time = self.changes.lock();
        let shadowed = |name: &str| own.iter().any(|(other, _)| other == name);
        let mut all = HashMap::clone(&self.own.load());
        if own.is_empty() {
            all.remove(tenant);
        } else {
            let mut providers: Vec<_> =
                self.shared.all().filter(|provider| !shadowed(&provider.manifest().name)).cloned().collect();
            let shared = providers.len();
            providers.extend(own.iter().filter_map(|(_, provider)| provider.clone()));
            let missing = own.iter().filter(|(_, provider)| provider.is_none());
            let missing = missing.map(|(name, _)| name.clone()).collect();
            all.insert(tenant.clone(), Arc::new(TenantProviders { all: providers, missing, shared }));
        }
        self.own.store(Arc::new(all));
    }
}
