//! From the bytes of a component to a provider, by the shortest way: loaded already, compiled already, or
//! compiled now.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::artefacts::{ArtefactCache, CompiledArtefact};
use super::compiler::{CompileOutcome, ComponentCompiler};
use super::error::{LoadError, invalid};
use super::inspect::ComponentInterfaces;
use super::limits::ComponentTrust;
use super::load::{Provider, check, digest, naming_types};
use super::log::GuestLog;
use super::sandbox::Sandbox;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, MemoryUse, Work};

/// Loads components. One that is loaded is not loaded again for the same tenant; each tenant has code of its own,
/// and it counts on that tenant's account.
pub struct ProviderLoader {
    sandbox: Arc<Sandbox>,
    compiler: ComponentCompiler,
    artefacts: Option<ArtefactCache>,
    alive: Mutex<HashMap<(Option<TenantId>, String), Weak<Provider>>>,
}

/// A component that passed all checks that need no compiler.
struct CheckedComponent<'a> {
    bytes: &'a [u8],
    interfaces: ComponentInterfaces,
    digest: String,
    trust: ComponentTrust,
    /// None: the server's own.
    owner: Option<&'a Arc<Account>>,
    log: &'a Arc<GuestLog>,
}

impl ProviderLoader {
    pub fn new(sandbox: Arc<Sandbox>, compiler: ComponentCompiler) -> Self {
        Self { sandbox, compiler, artefacts: None, alive: Mutex::default() }
    }

    /// Keeps what is compiled in a folder of at most `most` bytes. `key`: what proves that it is ours; else
    /// one is kept in the same folder.
    pub fn keep_artefacts(
        &mut self,
        directory: &Path,
        key: Option<&[u8; 32]>,
        most: usize,
    ) -> Result<(), Error> {
        let opened =
            ArtefactCache::open(directory, key, most, &self.sandbox.engine).map_err(Error::internal)?;
        self.artefacts = Some(opened);
        Ok(())
    }

    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// Most bytes of a component.
    pub fn largest_component(&self) -> usize {
        self.sandbox.limits.component
    }

    /// Loads a component of the server's own: checks it, compiles it if need be, and asks it for its manifest. What
    /// it prints meanwhile, and the frames of a trap, go to `log`. May take long: not for an async thread.
    pub fn load(
        &self,
        bytes: &[u8],
        trust: ComponentTrust,
        log: &Arc<GuestLog>,
    ) -> Result<Arc<Provider>, LoadError> {
        let component = self.checked(bytes, trust, None, log)?;
        match self.found(&component)? {
            Some(provider) => Ok(provider),
            None => self.compiled(&component),
        }
    }

    /// Loads a tenant's component without compiling it; None: it must be compiled. Takes some milliseconds: not for
    /// an async thread.
    pub fn find(
        &self,
        owner: &Arc<Account>,
        bytes: &[u8],
        log: &Arc<GuestLog>,
    ) -> Result<Option<Arc<Provider>>, LoadError> {
        self.found(&self.checked(bytes, ComponentTrust::Uploaded, Some(owner), log)?)
    }

    /// Compiles a tenant's component, and loads it. `charge`: is it the tenant that made it necessary? May take long:
    /// not for an async thread.
    pub fn compile(
        &self,
        owner: &Arc<Account>,
        bytes: &[u8],
        log: &Arc<GuestLog>,
    ) -> Result<Arc<Provider>, LoadError> {
        self.compiled(&self.checked(bytes, ComponentTrust::Uploaded, Some(owner), log)?)
    }

    fn checked<'a>(
        &self,
        bytes: &'a [u8],
        trust: ComponentTrust,
        owner: Option<&'a Arc<Account>>,
        log: &'a Arc<GuestLog>,
    ) -> Result<CheckedComponent<'a>, LoadError> {
        let interfaces = check(&self.sandbox, bytes)?;
        Ok(CheckedComponent { bytes, interfaces, digest: digest(bytes), trust, owner, log })
    }

    fn found(&self, component: &CheckedComponent<'_>) -> Result<Option<Arc<Provider>>, LoadError> {
        let alive = {
            let alive = self.alive.lock();
            alive.get(&component.place()).and_then(Weak::upgrade)
        };
        if let Some(provider) = alive.filter(|provider| provider.trust() == component.trust) {
            return Ok(Some(provider));
        }
        let tenant = component.owner.map(|owner| owner.tenant());
        let kept = self.artefacts.as_ref().and_then(|artefacts| artefacts.get(tenant, &component.digest));
        kept.map(|artefact| self.provider(component, &artefact)).transpose()
    }

    fn compiled(&self, component: &CheckedComponent<'_>) -> Result<Arc<Provider>, LoadError> {
        let artefact = match component.trust {
            ComponentTrust::BuiltIn => {
                self.sandbox.engine.precompile_component(component.bytes).map_err(invalid)?
            }
            ComponentTrust::Uploaded => {
                let CompileOutcome { artefact, cpu } = self.compiler.compile(component.bytes);
                component.owner.iter().for_each(|owner| owner.charge_work(Work::Compiling, cpu));
                artefact?
            }
        };
        let artefact = CompiledArtefact::compiled(artefact);
        let provider = self.provider(component, &artefact)?;
        let tenant = component.owner.map(|owner| owner.tenant());
        let kept =
            self.artefacts.as_ref().map(|artefacts| artefacts.put(tenant, &component.digest, &artefact));
        if let Some(Err(error)) = kept {
            tracing::warn!(%error, "a compiled component could not be kept");
        }
        Ok(provider)
    }

    fn provider(
        &self,
        component: &CheckedComponent<'_>,
        artefact: &CompiledArtefact,
    ) -> Result<Arc<Provider>, LoadError> {
        // Counted before it is there.
        let reserve = |owner: &Arc<Account>| owner.reserve(MemoryUse::Code, artefact.size());
        let code =
            component.owner.map(reserve).transpose().map_err(|why| LoadError::NoRoom(Box::new(why)))?;
        let compiled = artefact.load(&self.sandbox.engine).map_err(invalid)?;
        let CheckedComponent { interfaces, digest, trust, log, .. } = component;
        let (interfaces, digest) = (*interfaces, digest.clone());
        let provider = Provider::of(&self.sandbox, &compiled, interfaces, digest, *trust, log, code)
            .map_err(|error| naming_types(error, component.bytes))?;
        let mut alive = self.alive.lock();
        alive.retain(|_, provider| provider.strong_count() > 0);
        alive.insert(component.place(), Arc::downgrade(&provider));
        Ok(provider)
    }
}

impl CheckedComponent<'_> {
    fn place(&self) -> (Option<TenantId>, String) {
        (self.owner.map(|owner| owner.tenant().clone()), self.digest.clone())
    }
}
