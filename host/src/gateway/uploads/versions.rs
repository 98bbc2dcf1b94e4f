//! The versions of one tenant's provider: which is active, which comes back when it fails, which go.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::provider::{Provider, StoredVersion};
use crate::tenant::TenantId;

/// One version.
#[derive(Clone)]
pub(super) struct Version {
    pub stored: StoredVersion,
    /// Loaded are the active version and the one before it.
    pub provider: Option<Arc<Provider>>,
    /// Why it could not be loaded.
    pub fault: Option<String>,
}

/// All versions, in the order of their last activation; the last one is active.
#[derive(Clone, Default)]
pub(super) struct Versions(Vec<Version>);

/// How many versions are loaded: the active one, and the one that comes back when it fails.
const LOADED: usize = 2;

impl Versions {
    pub fn active(&self) -> Option<&Version> {
        self.0.last()
    }

    pub fn get(&self, digest: &str) -> Option<&Version> {
        self.0.iter().find(|version| version.stored.digest == digest)
    }

    /// The active one first.
    pub fn latest_first(&self) -> impl Iterator<Item = &Version> {
        self.0.iter().rev()
    }

    /// Those that must be loaded.
    pub fn to_load(&mut self) -> impl Iterator<Item = &mut Version> {
        self.0.iter_mut().rev().take(LOADED)
    }

    /// Adds one that was kept from an earlier run.
    pub fn restore(&mut self, stored: StoredVersion) {
        self.0.push(Version { stored, provider: None, fault: None });
        self.0.sort_by(|one, other| one.stored.activated.cmp(&other.stored.activated));
    }

    /// The time of the next activation: now, but after the last one, whatever the clock says.
    pub fn next(&self, now: SystemTime) -> SystemTime {
        let last = self.active().map(|version| version.stored.activated);
        last.map_or(now, |last| now.max(last + Duration::from_millis(1)))
    }

    /// Adds a version, or has an old one again; it is active from now on.
    pub fn activate(&mut self, version: Version) {
        self.0.retain(|other| other.stored.digest != version.stored.digest);
        self.0.push(version);
        let old = self.0.len().saturating_sub(LOADED);
        self.0.iter_mut().take(old).for_each(|version| version.provider = None);
    }

    /// Those beyond the `most` that may be kept; they are out of the list now.
    pub fn excess(&mut self, most: usize) -> Vec<Version> {
        self.0.drain(..self.0.len().saturating_sub(most)).collect()
    }

    /// What takes the place of the active version when that is quarantined: the version before it that is
    /// loaded and not quarantined itself.
    pub fn fallback(&self, tenant: &TenantId) -> Option<Version> {
        let healthy = |version: &&Version| {
            let provider = version.provider.as_ref();
            provider.is_some_and(|provider| provider.instances(tenant).quarantined().is_none())
        };
        self.latest_first().skip(1).find(healthy).cloned()
    }
}
