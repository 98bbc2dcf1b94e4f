//! The state of all uploads: which versions exist, and the one way to change that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::jobs::CompileJobs;
use super::policy::{Policy, SecretHost, UploadRefusal, secret_hosts, unconfirmed};
use super::versions::{Code, Version, Versions};
use super::view::{ProviderView, RefusedUpload};
use crate::tenants::Tenants;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Accounts;
use pushlet_registry::{ComponentVersion as Stored, Registry, SharedQuarantine};
use pushlet_sandbox::{GuestLog, OwnProvider, Provider, ProviderCatalogue, ProviderLoader};

/// The state behind [`Uploads`](super::Uploads).
pub(super) struct UploadState {
    pub catalogue: Arc<ProviderCatalogue>,
    pub loader: Arc<ProviderLoader>,
    pub owners: Arc<Tenants>,
    pub registry: Arc<Registry>,
    pub policy: Policy,
    pub places: Arc<Semaphore>,
    pub jobs: CompileJobs,
    pub accounts: Arc<Accounts>,
    /// Tenants with a change in progress.
    pub busy: Mutex<HashSet<TenantId>>,
    pub tenants: Mutex<HashMap<TenantId, TenantUploads>>,
}

#[derive(Default)]
pub(super) struct TenantUploads {
    pub providers: BTreeMap<String, Versions>,
    pub refused: Option<RefusedUpload>,
}

/// A change in progress: a tenant makes one at a time.
pub(in super::super) struct Change {
    pub(super) shared: Arc<UploadState>,
    pub(super) tenant: TenantId,
}

impl Change {
    /// Drops all providers of a tenant that has been removed.
    pub fn forget(&self) {
        self.shared.forget(&self.tenant);
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.shared.busy.lock().remove(&self.tenant);
    }
}

impl UploadState {
    /// Drops all providers of a tenant that has been removed.
    pub fn forget(&self, tenant: &TenantId) {
        self.tenants.lock().remove(tenant);
        self.catalogue.set_own(tenant, &[]);
    }

    /// Returns an error if the tenant may not have a provider of this name.
    pub fn may_upload(&self, tenant: &TenantId, name: &str) -> Result<(), Error> {
        self.may_shadow(name)?;
        let Some(most) = self.owners.limits(tenant)?.components else { return Ok(()) };
        let (count, known) = {
            let tenants = self.tenants.lock();
            let own = tenants.get(tenant).map(|own| &own.providers);
            (own.map_or(0, BTreeMap::len) as u64, own.is_some_and(|own| own.contains_key(name)))
        };
        if known || count < most {
            return Ok(());
        }
        let message = format!("there are {count} uploaded providers, and {most} are allowed");
        Err(self.owners.over_limit(tenant, "components", &message))
    }

    /// Returns an error if there is no room for a version of this size.
    pub fn has_room(&self, tenant: &TenantId, name: &str, digest: &str, size: usize) -> Result<(), Error> {
        let Some(most) = self.owners.limits(tenant)?.component_bytes else { return Ok(()) };
        let others: u64 = {
            let tenants = self.tenants.lock();
            let own = tenants.get(tenant).into_iter().flat_map(|own| &own.providers);
            let versions =
                own.flat_map(|(other, versions)| versions.latest_first().map(move |one| (other, one)));
            let others = versions.filter(|(other, one)| *other != name || one.stored.digest != digest);
            others.map(|(_, one)| one.stored.size).sum()
        };
        if others.saturating_add(size as u64) <= most {
            return Ok(());
        }
        let message = format!("all versions would have more than {most} bytes; remove a provider");
        Err(self.owners.over_limit(tenant, "component_bytes", &message))
    }

    /// Returns the hosts that get secrets of the tenant's applications of this provider now, or None if there
    /// is no such provider.
    fn secret_hosts(&self, tenant: &TenantId, name: &str) -> Option<BTreeSet<SecretHost>> {
        if let Some(versions) = self.tenants.lock().get(tenant).and_then(|own| own.providers.get(name)) {
            // Nothing is known about a version that cannot be loaded: all hosts of the next version are new.
            let loaded = versions.active().and_then(Version::provider);
            return Some(loaded.map(|provider| secret_hosts(provider.manifest())).unwrap_or_default());
        }
        self.catalogue.shared().get(name).map(|provider| secret_hosts(provider.manifest()))
    }

    /// Returns an error if a new version sends secrets to hosts that the version before did not use and the
    /// tenant did not confirm.
    pub fn check_hosts(
        &self,
        tenant: &TenantId,
        name: &str,
        provider: &Provider,
        confirmed: &[String],
    ) -> Result<(), UploadRefusal> {
        let Some(before) = self.secret_hosts(tenant, name) else { return Ok(()) };
        let added = unconfirmed(&before, &secret_hosts(provider.manifest()), confirmed);
        if added.is_empty() { Ok(()) } else { Err(UploadRefusal::HostsChanged(added)) }
    }

    pub fn may_shadow(&self, name: &str) -> Result<(), Error> {
        let shadows = self.catalogue.shared().get(name).is_some();
        if shadows && !self.policy.allow_shadowing { Err(name_taken(name)) } else { Ok(()) }
    }

    /// Stores a component that passed all steps, and makes it the active version.
    pub fn keep(
        &self,
        tenant: &TenantId,
        name: &str,
        provider: Arc<Provider>,
        component: &[u8],
    ) -> Result<ProviderView, Error> {
        // The tenant may have been removed meanwhile.
        self.owners.get(tenant)?;
        let known = self
            .tenants
            .lock()
            .get(tenant)
            .and_then(|own| Some(own.providers.get(name)?.get(provider.digest())?.stored.uploaded));
        let activated = self.next_activation(tenant, name);
        let stored = Stored {
            tenant: tenant.clone(),
            name: name.to_owned(),
            digest: provider.digest().to_owned(),
            size: component.len() as u64,
            uploaded: known.unwrap_or(activated),
            activated,
        };
        self.registry.put_component(&stored, component)?;
        provider.instances(tenant).release();
        Ok(self.swap_in(Version::new(stored, Code::Loaded(provider))))
    }

    pub fn next_activation(&self, tenant: &TenantId, name: &str) -> SystemTime {
        let now = SystemTime::now();
        let tenants = self.tenants.lock();
        let versions = tenants.get(tenant).and_then(|own| own.providers.get(name));
        versions.map_or(now, |versions| versions.next(now))
    }

    /// Makes a version active. Nothing else does.
    pub fn swap_in(&self, version: Version) -> ProviderView {
        let Stored { tenant, name, .. } = version.stored.clone();
        let mut tenants = self.tenants.lock();
        let own = tenants.entry(tenant.clone()).or_default();
        let versions = own.providers.entry(name.clone()).or_default();
        versions.activate(version);
        let excess = versions.excess(self.policy.versions);
        let view = ProviderView::own(&name, versions, &tenant);
        self.publish(&tenant, own);
        // Removing files takes time, and sends that load a provider wait for this lock.
        drop(tenants);
        for old in excess {
            if let Err(error) = self.registry.remove_component(&tenant, &name, &old.stored.digest) {
                tracing::error!(%tenant, name, %error, "an old version could not be removed");
            }
        }
        view
    }

    pub fn publish(&self, tenant: &TenantId, own: &TenantUploads) {
        let active = |versions: &Versions| versions.active().and_then(|version| version.provider().cloned());
        let own: Vec<OwnProvider> =
            own.providers.iter().map(|(name, versions)| (name.clone(), active(versions))).collect();
        self.catalogue.set_own(tenant, &own);
    }

    /// Activates the version before one that was quarantined.
    pub fn fall_back(&self, tenant: &TenantId, name: &str, digest: &str) {
        let version = {
            let tenants = self.tenants.lock();
            let versions = tenants.get(tenant).and_then(|own| own.providers.get(name));
            let is_active = |versions: &&Versions| {
                versions.active().is_some_and(|version| version.stored.digest == digest)
            };
            versions.filter(is_active).and_then(Versions::fallback)
        };
        let Some(mut version) = version else { return };
        version.stored.activated = self.next_activation(tenant, name);
        let Stored { digest, activated, .. } = &version.stored;
        tracing::warn!(%tenant, provider = name, digest, "the version before it is active again");
        if let Err(error) = self.registry.activate_component(tenant, name, digest, *activated) {
            tracing::error!(%tenant, provider = name, %error, "this could not be kept, and ends with a restart");
        }
        self.swap_in(version);
    }

    /// Tells the fleet that a component is quarantined for so long; None: it no longer is.
    pub fn tell_quarantine(&self, tenant: &TenantId, name: &str, digest: &str, pause: Option<Duration>) {
        let Some(fleet) = self.registry.fleet() else { return };
        let until = pause.and_then(|pause| Some((SystemTime::now().checked_add(pause)?, pause)));
        fleet.tell_quarantine(&SharedQuarantine {
            tenant: tenant.clone(),
            provider: name.to_owned(),
            digest: digest.to_owned(),
            until,
        });
    }

    /// Goes by what another server of the fleet says of a component.
    pub fn take_quarantine(&self, told: &SharedQuarantine) {
        let SharedQuarantine { tenant, provider: name, digest, until } = told;
        let quarantine = match until {
            Some((until, pause)) => match until.duration_since(SystemTime::now()) {
                Ok(remaining) => Some((remaining, *pause)),
                // It is over.
                Err(_) => return,
            },
            None => None,
        };
        tracing::info!(%tenant, provider = name, digest, ?quarantine, "another server says of a provider");
        self.loader.sandbox().impose_quarantine((tenant, name, digest), quarantine);
        if let Some(provider) = self.loaded(tenant, name, digest) {
            provider.impose_quarantine(tenant, quarantine);
        }
    }

    /// Returns the component with this digest, if it is loaded: one of the tenant's own, or one that all share.
    fn loaded(&self, tenant: &TenantId, name: &str, digest: &str) -> Option<Arc<Provider>> {
        let tenants = self.tenants.lock();
        let own =
            tenants.get(tenant).and_then(|own| own.providers.get(name)?.get(digest)?.provider().cloned());
        drop(tenants);
        let shared = || self.catalogue.shared().get(name).filter(|one| one.digest() == digest).cloned();
        own.or_else(shared)
    }

    pub fn refuse(&self, tenant: &TenantId, name: &str, digest: &str, error: &Error, log: &GuestLog) {
        self.tenants.lock().entry(tenant.clone()).or_default().refused = Some(RefusedUpload {
            name: name.to_owned(),
            digest: digest.to_owned(),
            error: error.code.clone().into_owned(),
            message: error.message.clone().into_owned(),
            log: log.text(),
        });
    }
}

pub(super) fn name_taken(name: &str) -> Error {
    let message = format!("{name} is the name of a provider that everybody has; choose another");
    Error::new(Kind::Conflict, "provider_name_taken", message)
}

pub(super) fn not_found(name: &str) -> Error {
    Error::new(Kind::NotFound, "provider_not_found", format!("there is no provider {name}"))
}

/// Runs work that takes long on a thread for blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|failure| Err(Error::internal(failure)))
}
