//! The versions of one tenant's provider: which is active, which comes back when it fails, which go.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::provider::Provider;
use crate::registry::Version as Stored;
use crate::tenant::TenantId;

/// One version.
#[derive(Clone)]
pub(super) struct Version {
    pub stored: Stored,
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
    pub fn loaded(&mut self) -> impl Iterator<Item = &mut Version> {
        self.0.iter_mut().rev().take(LOADED)
    }

    /// Adds one that was kept from an earlier run.
    pub fn restore(&mut self, stored: Stored) {
        self.0.push(Version { stored, provider: None, fault: None });
        self.0.sort_by_key(|version| version.stored.activated);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn stored(digest: &str, activated: u64) -> Stored {
        Stored {
            tenant: TenantId::default_tenant(),
            name: "acme".into(),
            digest: digest.into(),
            size: 1,
            uploaded: at(1),
            activated: at(activated),
        }
    }

    fn version(digest: &str, activated: u64) -> Version {
        Version { stored: stored(digest, activated), provider: None, fault: None }
    }

    fn digests(versions: &Versions) -> Vec<&str> {
        versions.latest_first().map(|version| version.stored.digest.as_str()).collect()
    }

    #[test]
    fn the_one_activated_last_is_active_also_after_a_restart() {
        let mut versions = Versions::default();
        ["a", "b"].iter().zip(1..).for_each(|(digest, time)| versions.activate(version(digest, time)));
        versions.activate(version("a", 3));
        assert_eq!(digests(&versions), ["a", "b"]);
        let mut restored = Versions::default();
        [stored("a", 3), stored("c", 1), stored("b", 2)].into_iter().for_each(|kept| restored.restore(kept));
        assert_eq!(digests(&restored), ["a", "b", "c"]);
    }

    #[test]
    fn those_activated_longest_ago_go() {
        let mut versions = Versions::default();
        ["a", "b", "c"].iter().zip(1..).for_each(|(digest, time)| versions.activate(version(digest, time)));
        versions.activate(version("a", 4));
        let gone: Vec<_> = versions.excess(2).into_iter().map(|version| version.stored.digest).collect();
        assert_eq!((gone, digests(&versions)), (vec!["b".to_owned()], vec!["a", "c"]));
        assert!(versions.excess(2).is_empty());
    }

    #[test]
    fn activations_are_in_order_when_the_clock_goes_back() {
        let mut versions = Versions::default();
        versions.activate(version("a", 100));
        assert_eq!(versions.next(at(50)), at(100) + Duration::from_millis(1));
        assert_eq!(versions.next(at(200)), at(200));
    }
}
