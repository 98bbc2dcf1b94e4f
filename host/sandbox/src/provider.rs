//! From the bytes of a component to a [`Provider`] that can be called, by the shortest way: loaded already, compiled
//! already, or compiled now.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre};

use super::artefacts::{ArtefactCache, CodeFolder};
use super::call_log::GuestLog;
use super::compiled::CompiledArtefact;
use super::compiler::{CompileOutcome, ComponentCompiler};
use super::error::{LoadError, ProviderError, excerpt, invalid};
use super::guest::GuestState;
use super::inspect::{self, ComponentInterfaces, digest};
use super::instance::WorldFunctions;
use super::instances::{Instances, LoadedComponent};
use super::limits::{CallBounds, ComponentTrust};
use super::management::CollectionManager;
use super::sandbox::Sandbox;
use super::{contract, type_difference};
use pushlet_model::contract::Context;
use pushlet_model::contract::management::Collection;
use pushlet_model::contract::manifest::{GuestIndices, ProviderManifest};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse, Work};

/// One component: compiled, its manifest read and checked.
pub struct Provider {
    pub(super) loaded: Arc<LoadedComponent>,
    tenants: RwLock<HashMap<TenantId, Arc<Instances>>>,
    /// It was seen to make different requests of two spellings of a token.
    tells_spellings_apart: AtomicBool,
}

impl Provider {
    /// Checks, compiles and asks for its manifest here and now. What it prints, and the frames of a trap, go to `log`.
    pub fn load(
        sandbox: &Arc<Sandbox>,
        bytes: &[u8],
        trust: ComponentTrust,
        log: &Arc<GuestLog>,
    ) -> Result<Arc<Self>, LoadError> {
        let interfaces = inspect::check(bytes, sandbox.limits.component)?;
        let component = Component::from_binary(&sandbox.engine, bytes).map_err(invalid)?;
        Self::of(sandbox, &component, interfaces, digest(bytes), trust, log, None)
            .map_err(|error| naming_types(error, bytes))
    }

    /// The same, without compiling if the folder has the code. A folder that cannot be used costs only time.
    pub fn load_through(
        folder: &CodeFolder,
        sandbox: &Arc<Sandbox>,
        bytes: &[u8],
        trust: ComponentTrust,
        log: &Arc<GuestLog>,
    ) -> Result<Arc<Self>, LoadError> {
        let interfaces = inspect::check(bytes, sandbox.limits.component)?;
        let (digest, tenant) = (digest(bytes), Some(&folder.tenant));
        let cache = ArtefactCache::open(&folder.directory, None, folder.most, &sandbox.engine).ok();
        let kept = cache.as_ref().filter(|_| !folder.anew).and_then(|cache| cache.get(tenant, &digest));
        let artefact = match kept {
            Some(kept) => kept,
            None => {
                let code = sandbox.engine.precompile_component(bytes).map_err(invalid)?;
                let code = CompiledArtefact::compiled(code);
                let _ = cache.map(|cache| cache.put(tenant, &digest, &code));
                code
            }
        };
        let component = artefact.load(&sandbox.engine).map_err(invalid)?;
        let provider = Self::of(sandbox, &component, interfaces, digest, trust, log, None);
        provider.map_err(|error| naming_types(error, bytes))
    }

    /// Creates a provider of a component that is checked and compiled.
    pub(super) fn of(
        sandbox: &Arc<Sandbox>,
        component: &Component,
        interfaces: ComponentInterfaces,
        digest: String,
        trust: ComponentTrust,
        log: &Arc<GuestLog>,
        code: Option<MemoryReservation>,
    ) -> Result<Arc<Self>, LoadError> {
        let component = sandbox.linker.instantiate_pre(component).map_err(invalid)?;
        let manager = match interfaces.management {
            true => Some(CollectionManager::load(sandbox, component.clone(), log)?),
            false => None,
        };
        let functions = WorldFunctions::of(&component, interfaces)?;
        let context = Context { now: 0, entropy: Vec::new() };
        let manifest = describe(sandbox, &component, &functions, &context, log)?;
        if trust == ComponentTrust::BuiltIn {
            // Before any upload can take the name.
            sandbox.usages.of_built_in(&manifest.name);
        }
        let sandbox = sandbox.clone();
        let loaded = Arc::new(LoadedComponent {
            #[cfg(feature = "native")]
            native: crate::native::linked(&manifest.name),
            sandbox,
            component,
            functions,
            manifest,
            manager,
            trust,
            digest,
            _code: code,
        });
        Ok(Arc::new(Self {
            loaded,
            tenants: RwLock::default(),
            tells_spellings_apart: AtomicBool::new(false),
        }))
    }

    pub fn trust(&self) -> ComponentTrust {
        self.loaded.trust
    }

    pub fn manifest(&self) -> &ProviderManifest {
        &self.loaded.manifest
    }

    /// Asks a new instance for the manifest in another context, on which it must not depend.
    pub fn describe(&self, context: &Context, log: &Arc<GuestLog>) -> Result<ProviderManifest, LoadError> {
        let LoadedComponent { sandbox, component, functions, .. } = &*self.loaded;
        describe(sandbox, component, functions, context, log)
    }

    /// Returns true if it is of the world `stream-provider`.
    pub fn speaks_stream(&self) -> bool {
        matches!(self.loaded.functions, WorldFunctions::Stream(_))
    }

    /// Returns the collections that the service keeps for an application in addition to its devices.
    pub fn collections(&self) -> &[Collection] {
        self.loaded.manager.as_ref().map(CollectionManager::collections).unwrap_or_default()
    }

    /// Returns SHA-256 of the component file, in hex.
    pub fn digest(&self) -> &str {
        &self.loaded.digest
    }

    /// Returns true if the component has been seen to treat another spelling of a token as another token.
    pub fn tells_spellings_apart(&self) -> bool {
        self.tells_spellings_apart.load(Ordering::Relaxed)
    }

    /// Records that it made different requests of two spellings of a token.
    pub fn told_spellings_apart(&self) {
        self.tells_spellings_apart.store(true, Ordering::Relaxed);
    }

    /// Returns the instances that belong to one tenant.
    pub fn instances(&self, tenant: &TenantId) -> Arc<Instances> {
        // With the shared lock first: nearly every call finds the instances.
        let known = self.tenants.read().get(tenant).cloned();
        known.unwrap_or_else(|| {
            let mut tenants = self.tenants.write();
            tenants
                .entry(tenant.clone())
                .or_insert_with(|| Arc::new(Instances::new(self.loaded.clone(), tenant)))
                .clone()
        })
    }

    /// Goes by what another server of the fleet says of it: for how long it is quarantined yet, and how long the pause was;
    /// None: it is no longer.
    pub fn impose_quarantine(&self, tenant: &TenantId, quarantine: Option<(Duration, Duration)>) {
        if let Some(instances) = self.tenants.read().get(tenant) {
            instances.impose(quarantine);
        }
    }

    /// Returns how many tenants have it in quarantine.
    pub fn quarantined(&self) -> usize {
        let tenants = self.tenants.read();
        tenants.values().filter(|instances| instances.quarantined().is_some()).count()
    }

    /// Returns the sandbox that it runs in.
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.loaded.sandbox
    }

    /// Drops the instances and the log of a tenant that is no more.
    pub fn forget(&self, tenant: &TenantId) {
        self.tenants.write().remove(tenant);
    }
}

fn describe(
    sandbox: &Sandbox,
    component: &InstancePre<GuestState>,
    world: &WorldFunctions,
    context: &Context,
    log: &Arc<GuestLog>,
) -> Result<ProviderManifest, LoadError> {
    let bounds = CallBounds::of(&sandbox.limits);
    let functions = GuestIndices::new(component).map_err(invalid)?;
    // Looking a function up compares its types: those of the world too, before anybody sends.
    let look_up = |store: &mut Store<GuestState>, instance: &_| {
        world.check(&mut *store, instance)?;
        functions.load(store, instance)
    };
    let mut instance = sandbox.instantiate(component, &bounds, log, look_up)?;
    instance.guest().observe_context(context);
    let manifest = sandbox
        .call(&mut instance, &bounds, 1, async |manifest, store| manifest.call_describe(store).await)?;
    contract::check_manifest(&manifest)
        .and_then(|()| contract::check_world(&manifest, matches!(world, WorldFunctions::Stream(_))))
        .map_err(|fault| LoadError::BadManifest(excerpt(&fault)))?;
    Ok(manifest)
}

/// Says which type is not the contract's, if that is why the component does not run. The engine names none.
pub(super) fn naming_types(error: LoadError, bytes: &[u8]) -> LoadError {
    match &error {
        LoadError::Broken(ProviderError::BadOutput(_)) => type_difference::difference(bytes)
            .map_or(error, |difference| LoadError::WrongTypes(excerpt(&difference))),
        _ => error,
    }
}

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

    /// Returns how many instances there may be at a time, all told.
    pub fn most_instances(&self) -> usize {
        self.sandbox.limits.instances.max(1) as usize
    }

    /// Returns the most bytes that a component may have.
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
        let interfaces = inspect::check(bytes, self.sandbox.limits.component)?;
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
                let unfit = |error: &LoadError| tracing::info!(%error, "the program's own code is for other machines");
                let run = |code| self.provider(component, &code).inspect_err(unfit).ok();
                if let Some(provider) = CompiledArtefact::precompiled(component.bytes).and_then(run) {
                    return Ok(provider);
                }
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
        let keep = |artefacts: &ArtefactCache| artefacts.put(tenant, &component.digest, &artefact);
        if let Some(Err(error)) = self.artefacts.as_ref().map(keep) {
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
        let reserve = |owner: &Arc<Account>| owner.reserve(MemoryUse::Code, artefact.bytes().len());
        let code =
            component.owner.map(reserve).transpose().map_err(|why| LoadError::NoRoom(Box::new(why)))?;
        let compiled = artefact.load(&self.sandbox.engine).map_err(invalid)?;
        let CheckedComponent { interfaces, digest, trust, log, .. } = component;
        let provider = Provider::of(&self.sandbox, &compiled, *interfaces, digest.clone(), *trust, log, code)
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
