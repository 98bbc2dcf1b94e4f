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
    shared: ArcSwap<TenantProviders>,
    /// Those of the program, also where the operator has another in place of one.
    built_in: Vec<Arc<Provider>>,
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

    /// Returns the tenant's own with these shared ones, but for those that one of its own stands in place of.
    fn over(&self, shared: &TenantProviders) -> Arc<Self> {
        let own: Vec<_> = self.all.iter().skip(self.shared).cloned().collect();
        let is_shadowed = |name: &str| self.lacks(name) || own.iter().any(|own| own.manifest().name == name);
        let mut all: Vec<_> =
            shared.all().filter(|provider| !is_shadowed(&provider.manifest().name)).cloned().collect();
        let shared = all.len();
        all.extend(own.iter().cloned());
        Arc::new(Self { all, missing: self.missing.clone(), shared })
    }

    /// Returns all providers, the shared ones first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.all.iter()
    }
}

impl Default for ProviderCatalogue {
    /// Without providers.
    fn default() -> Self {
        Self::of(Vec::new(), Vec::new())
    }
}

impl ProviderCatalogue {
    /// Loads the built-in components, each on a thread of its own: compiling takes its time.
    pub fn built_in(loader: &ProviderLoader) -> Result<Self, (String, LoadError)> {
        let load = |bytes| loader.load(bytes, ComponentTrust::BuiltIn, &Arc::default());
        let together = |group: &'static [(&'static str, &'static [u8])]| -> Vec<_> {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    group.iter().map(|(name, bytes)| (*name, scope.spawn(move || load(bytes)))).collect();
                threads.into_iter().map(|(name, thread)| (name, thread.join())).collect()
            })
        };
        let mut all = Vec::new();
        // Each needs an instance while it is asked for its manifest.
        for (name, provider) in BUILT_IN.chunks(loader.most_instances()).flat_map(together) {
            let provider = provider
                .unwrap_or_else(|_| Err(LoadError::Invalid("compiling it panicked".into())))
                .map_err(|error| (name.to_owned(), error))?;
            all.push(provider);
        }
        Ok(Self::of(all.clone(), all))
    }

    /// Creates a catalogue of shared providers.
    fn of(all: Vec<Arc<Provider>>, built_in: Vec<Arc<Provider>>) -> Self {
        let mut providers = TenantProviders { shared: all.len(), all, missing: Vec::new() };
        providers.all.sort_by(|one, other| one.manifest().name.cmp(&other.manifest().name));
        let shared = ArcSwap::from_pointee(providers);
        Self { shared, built_in, own: ArcSwap::default(), changes: Mutex::default() }
    }

    /// Adds a shared provider in place of one of the same name.
    pub fn with(self, provider: Arc<Provider>) -> Self {
        let name = &provider.manifest().name;
        let shared = self.shared();
        let others = shared.all().filter(|other| other.manifest().name != *name).cloned();
        let all = others.chain([provider.clone()]).collect();
        Self::of(all, self.built_in)
    }

    /// Returns a catalogue of the program's own providers alone.
    pub fn only_built_in(&self) -> Self {
        Self::of(self.built_in.clone(), self.built_in.clone())
    }

    /// Returns the providers that all tenants share.
    pub fn shared(&self) -> Arc<TenantProviders> {
        self.shared.load_full()
    }

    /// Replaces the providers that all tenants share. Calls in flight finish with those that they began with.
    pub fn set_shared(&self, shared: Arc<TenantProviders>) {
        let _one_at_a_time = self.changes.lock();
        let own = self.own.load();
        let own = own.iter().map(|(tenant, providers)| (tenant.clone(), providers.over(&shared)));
        let own = Arc::new(own.collect());
        self.shared.store(shared);
        self.own.store(own);
    }

    /// Returns the names of the shared providers, each with the names of its endpoints.
    pub fn shared_endpoints(&self) -> Vec<(String, Vec<String>)> {
        let of = |provider: &Arc<Provider>| {
            let manifest = provider.manifest();
            let endpoints = manifest.endpoints.iter().map(|endpoint| endpoint.name.clone());
            (manifest.name.clone(), endpoints.collect())
        };
        self.shared().all().map(of).collect()
    }

    /// Returns the providers of a tenant, shared ones included.
    pub fn of_tenant(&self, tenant: &TenantId) -> Arc<TenantProviders> {
        self.own.load().get(tenant).cloned().unwrap_or_else(|| self.shared())
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
        let mut all = HashMap::clone(&self.own.load());
        if own.is_empty() {
            all.remove(tenant);
        } else {
            let missing = own.iter().filter(|(_, provider)| provider.is_none());
            let missing = missing.map(|(name, _)| name.clone()).collect();
            let loaded = own.iter().filter_map(|(_, provider)| provider.clone()).collect();
            let alone = TenantProviders { all: loaded, missing, shared: 0 };
            all.insert(tenant.clone(), alone.over(&self.shared()));
        }
        self.own.store(Arc::new(all));
    }
}
