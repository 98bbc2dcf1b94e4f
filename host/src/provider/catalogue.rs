//! The providers that there are, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{GuestLog, LoadError, Provider, Sandbox, Trust};

/// Name and component file of each built-in provider, made by `build.rs` from `providers/`.
pub const BUILT_IN: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// All providers that requests can name.
pub struct Catalogue {
    providers: BTreeMap<String, Arc<Provider>>,
}

impl Catalogue {
    /// Loads the built-in components, each on a thread of its own: compiling takes its time.
    pub fn built_in(sandbox: &Arc<Sandbox>) -> Result<Self, (String, LoadError)> {
        let loaded: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = BUILT_IN
                .iter()
                .map(|(name, bytes)| (*name, scope.spawn(move || load(sandbox, bytes))))
                .collect();
            threads.into_iter().map(|(name, thread)| (name, thread.join())).collect()
        });
        let mut providers = BTreeMap::new();
        for (name, provider) in loaded {
            let provider = provider
                .unwrap_or_else(|_| Err(LoadError::Invalid("compiling it panicked".into())))
                .map_err(|error| (name.to_owned(), error))?;
            providers.insert(provider.manifest().name.clone(), provider);
        }
        Ok(Self { providers })
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }

    /// In the order of their names.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values()
    }
}

fn load(sandbox: &Arc<Sandbox>, bytes: &[u8]) -> Result<Arc<Provider>, LoadError> {
    Provider::load(sandbox, bytes, Trust::BuiltIn, &Arc::new(GuestLog::default()))
}
