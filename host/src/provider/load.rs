//! From the bytes of a component to a [`Provider`] that can be called.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use wasmtime::component::Component;

use super::guest::{ALLOWED_IMPORTS, Guest};
use super::log::GuestLog;
use super::management::Manager;
use super::usage::Usage;
use super::{Instances, ProviderError, Sandbox, Trust, manifest, shape};
use crate::contract::management::Collection;
use crate::contract::manifest::ProviderManifest;
use crate::contract::{HttpManagerPre, HttpProviderPre};
use crate::tenant::TenantId;

/// The version of `wit/provider.wit` that this host serves.
const CONTRACT: &str = "0.1.0";
/// What a component must export.
const EXPORTS: [&str; 2] = ["pushlet:provider/manifest", "pushlet:provider/codec"];

/// What it may export.
const MANAGEMENT: &str = "pushlet:provider/management";

/// Why a component is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("the component has {size} bytes, more than the {limit} allowed")]
    TooLarge { size: usize, limit: usize },
    #[error("the component has more than {limit} {what}")]
    TooComplex { what: &'static str, limit: usize },
    #[error("not a valid WebAssembly component: {0}")]
    Invalid(String),
    #[error("the component imports {0}, which a provider may not have")]
    ForbiddenImport(String),
    #[error("the component exports no {0}: it is not built for the world http-provider")]
    WrongWorld(&'static str),
    #[error("the component is built for version {built} of pushlet:provider; this server speaks {CONTRACT}")]
    WrongVersion { built: String },
    #[error("the component's manifest is not sound: {0}")]
    BadManifest(String),
    #[error("the component does not run: {0}")]
    Broken(#[from] ProviderError),
}

/// One component: compiled, its manifest read and checked.
pub struct Provider {
    pub(super) loaded: Arc<Loaded>,
    tenants: RwLock<HashMap<TenantId, Arc<Instances>>>,
}

/// What all instances of a component share.
pub(super) struct Loaded {
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) component: HttpProviderPre<Guest>,
    pub(super) manifest: ProviderManifest,
    pub(super) manager: Option<Manager>,
    pub(super) trust: Trust,
    pub(super) digest: String,
    pub(super) usage: Arc<Usage>,
}

impl Provider {
    /// Checks and compiles a component, and asks it for its manifest. What it prints meanwhile, and the
    /// frames of a trap, go to `log`.
    pub fn load(
        sandbox: &Arc<Sandbox>,
        bytes: &[u8],
        trust: Trust,
        log: &Arc<GuestLog>,
    ) -> Result<Arc<Self>, LoadError> {
        let limit = sandbox.limits.component;
        if bytes.len() > limit {
            return Err(LoadError::TooLarge { size: bytes.len(), limit });
        }
        shape::check(bytes)?;
        let component = Component::from_binary(&sandbox.engine, bytes).map_err(invalid)?;
        check_imports(sandbox, &component)?;
        check_exports(sandbox, &component)?;
        let pre = sandbox.linker.instantiate_pre(&component).map_err(invalid)?;
        let manager = match version_of(sandbox, &component, MANAGEMENT) {
            Some(version) => {
                ensure_served(version)?;
                Some(Manager::load(sandbox, HttpManagerPre::new(pre.clone()).map_err(invalid)?, log)?)
            }
            None => None,
        };
        let component = HttpProviderPre::new(pre).map_err(invalid)?;
        let manifest = describe(sandbox, &component, log)?;
        let digest = hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes));
        let usage = sandbox.usages.of(&manifest.name);
        let sandbox = sandbox.clone();
        let loaded = Arc::new(Loaded { sandbox, component, manifest, manager, trust, digest, usage });
        Ok(Arc::new(Self { loaded, tenants: RwLock::default() }))
    }

    pub fn manifest(&self) -> &ProviderManifest {
        &self.loaded.manifest
    }

    /// What the service keeps for an application beside its devices.
    pub fn collections(&self) -> &[Collection] {
        self.loaded.manager.as_ref().map(Manager::collections).unwrap_or_default()
    }

    /// SHA-256 of the component file, in hex.
    pub fn digest(&self) -> &str {
        &self.loaded.digest
    }

    /// The instances that belong to one tenant.
    pub fn instances(&self, tenant: &TenantId) -> Arc<Instances> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        known.unwrap_or_else(|| {
            let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
            tenants
                .entry(tenant.clone())
                .or_insert_with(|| Arc::new(Instances::new(self.loaded.clone(), tenant)))
                .clone()
        })
    }

    /// How many tenants have it in quarantine.
    pub fn quarantined(&self) -> usize {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.values().filter(|instances| instances.quarantined().is_some()).count()
    }

    /// The sandbox that it runs in.
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.loaded.sandbox
    }

    /// Drops the instances and the log of a tenant that is no more.
    pub fn forget(&self, tenant: &TenantId) {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }
}

fn invalid(error: wasmtime::Error) -> LoadError {
    LoadError::Invalid(excerpt(&format!("{error:#}")))
}

/// The beginning of a text that is the component's, in part or in whole.
fn excerpt(text: &str) -> String {
    text.chars().take(300).collect()
}

fn check_imports(sandbox: &Sandbox, component: &Component) -> Result<(), LoadError> {
    let component_type = component.component_type();
    for (name, _) in component_type.imports(&sandbox.engine) {
        if !ALLOWED_IMPORTS.iter().any(|allowed| name.starts_with(allowed)) {
            return Err(LoadError::ForbiddenImport(excerpt(name)));
        }
    }
    Ok(())
}

/// All of the world's exports must be there; others may be, since some toolchains add their own.
fn check_exports(sandbox: &Sandbox, component: &Component) -> Result<(), LoadError> {
    EXPORTS.into_iter().try_for_each(|wanted| {
        ensure_served(version_of(sandbox, component, wanted).ok_or(LoadError::WrongWorld(wanted))?)
    })
}

/// The version of an interface that the component exports.
fn version_of(sandbox: &Sandbox, component: &Component, interface: &str) -> Option<String> {
    let component_type = component.component_type();
    component_type
        .exports(&sandbox.engine)
        .find_map(|(name, _)| name.strip_prefix(interface)?.strip_prefix('@').map(str::to_owned))
}

fn ensure_served(version: String) -> Result<(), LoadError> {
    if serves(&version) { Ok(()) } else { Err(LoadError::WrongVersion { built: excerpt(&version) }) }
}

/// Below 1.0 a new minor version breaks, a new patch version does not.
fn serves(version: &str) -> bool {
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    minor(version).is_some() && minor(version) == minor(CONTRACT)
}

fn describe(
    sandbox: &Sandbox,
    component: &HttpProviderPre<Guest>,
    log: &Arc<GuestLog>,
) -> Result<ProviderManifest, LoadError> {
    let mut instance = sandbox.instantiate(component, log)?;
    instance.guest().observe(0, &[]);
    let manifest = instance.call(&sandbox.limits, 1, async |guest, store| {
        guest.pushlet_provider_manifest().call_describe(store).await
    })?;
    manifest::check(&manifest).map_err(|fault| LoadError::BadManifest(excerpt(&fault)))?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_versions_are_served_and_others_are_not() {
        assert!(serves("0.1.0") && serves("0.1.7"));
        assert!(!serves("0.2.0") && !serves("1.1.0") && !serves("0") && !serves(""));
    }
}
