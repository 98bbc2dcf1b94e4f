//! The versions of one tenant's provider: which is active, which replaces it when it fails, and which are
//! dropped.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use pushlet_model::error::{Error, Kind};
use pushlet_registry::ComponentVersion as Stored;
use pushlet_sandbox::{GuestLog, Provider};

/// One version of a provider.
#[derive(Clone)]
pub(super) struct Version {
    pub stored: Stored,
    pub code: Code,
    /// What the version printed while it was loaded.
    log: Option<Arc<GuestLog>>,
    /// Another version replaced it because it was quarantined; it is not tried again before this time.
    quarantined_until: Option<Instant>,
}

/// What of a version is in memory. Only the active version is loaded, since code takes memory.
#[derive(Clone)]
pub(super) enum Code {
    /// Nothing; it is loaded when it is needed.
    Absent,
    Loading(Loading),
    Loaded(Arc<Provider>),
    /// Nothing: it could not be loaded, and is tried again at this time.
    Failed(Error, Instant),
    /// Nothing, and it cannot be loaded, for this reason.
    Unusable(String),
}

/// Receives the result of loading.
pub(super) type Loading = watch::Receiver<Option<Result<(), Error>>>;

/// All versions, in the order of their last activation; the last one is active.
#[derive(Clone, Default)]
pub(super) struct Versions(Vec<Version>);

impl Code {
    /// Returns the state after a failure to load. `until`: when to try again, if that makes sense.
    pub fn of_failure(error: Error, until: Instant) -> Self {
        match error.kind {
            Kind::Throttled | Kind::Overloaded | Kind::Internal => Self::Failed(error, until),
            _ => Self::Unusable(error.message.into_owned()),
        }
    }
}

impl Version {
    pub fn new(stored: Stored, code: Code) -> Self {
        Self { stored, code, log: None, quarantined_until: None }
    }

    pub fn provider(&self) -> Option<&Arc<Provider>> {
        match &self.code {
            Code::Loaded(provider) => Some(provider),
            _ => None,
        }
    }

    /// Returns what the version printed, or None if it was not loaded in this process.
    pub fn log(&self) -> Option<Arc<GuestLog>> {
        let loaded = self.provider().map(|provider| provider.instances(&self.stored.tenant).log().clone());
        loaded.or_else(|| self.log.clone())
    }

    /// Returns how long the version is still quarantined, if it is.
    pub fn quarantined(&self) -> Option<Duration> {
        match self.provider() {
            Some(provider) => provider.instances(&self.stored.tenant).quarantined(),
            None => self.quarantined_until?.checked_duration_since(Instant::now()),
        }
    }

    /// Drops the code; calls in flight finish.
    fn unload(&mut self) {
        self.log = self.log();
        self.quarantined_until = self.quarantined().map(|wait| Instant::now() + wait);
        if !matches!(self.code, Code::Unusable(_)) {
            self.code = Code::Absent;
        }
    }
}

impl Versions {
    pub fn active(&self) -> Option<&Version> {
        self.0.last()
    }

    pub fn active_mut(&mut self) -> Option<&mut Version> {
        self.0.last_mut()
    }

    pub fn get(&self, digest: &str) -> Option<&Version> {
        self.0.iter().find(|version| version.stored.digest == digest)
    }

    /// Returns the versions, the active one first.
    pub fn latest_first(&self) -> impl Iterator<Item = &Version> {
        self.0.iter().rev()
    }

    /// Adds a version of an earlier run.
    pub fn restore(&mut self, stored: Stored) {
        self.0.push(Version::new(stored, Code::Absent));
        self.0.sort_by_key(|version| version.stored.activated);
    }

    /// Takes on the versions that there are now. Returns false if there is none.
    pub fn take_on(&mut self, stored: Vec<Stored>) -> bool {
        self.0.retain(|version| stored.iter().any(|stored| stored.digest == version.stored.digest));
        for stored in stored {
            match self.0.iter_mut().find(|version| version.stored.digest == stored.digest) {
                Some(version) => version.stored = stored,
                None => self.0.push(Version::new(stored, Code::Absent)),
            }
        }
        self.0.sort_by_key(|version| version.stored.activated);
        let count = self.0.len();
        self.0.iter_mut().take(count.saturating_sub(1)).for_each(Version::unload);
        count > 0
    }

    /// Returns the time of the next activation: now, but after the last activation, whatever the clock says.
    pub fn next(&self, now: SystemTime) -> SystemTime {
        let last = self.active().map(|version| version.stored.activated);
        last.map_or(now, |last| now.max(last + Duration::from_millis(1)))
    }

    /// Adds a version, or an old one again; it is active from now on, and the others are unloaded.
    pub fn activate(&mut self, version: Version) {
        self.0.retain(|other| other.stored.digest != version.stored.digest);
        self.0.iter_mut().for_each(Version::unload);
        self.0.push(version);
    }

    /// Removes and returns the oldest versions beyond the `most` that may be kept.
    pub fn excess(&mut self, most: usize) -> Vec<Version> {
        self.0.drain(..self.0.len().saturating_sub(most)).collect()
    }

    /// Returns the version that replaces the active one when that is quarantined: the latest one before it
    /// that is not known to be unusable, and is not quarantined itself.
    pub fn fallback(&self) -> Option<Version> {
        let healthy = |version: &&Version| {
            version.quarantined().is_none() && !matches!(version.code, Code::Unusable(_))
        };
        self.latest_first().skip(1).find(healthy).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pushlet_model::tenant::TenantId;

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
        Version::new(stored(digest, activated), Code::Absent)
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

    #[test]
    fn the_version_before_comes_back_unless_it_is_quarantined_or_cannot_be_loaded() {
        let mut versions = Versions::default();
        ["a", "b", "c", "d"].iter().zip(1..).for_each(|(digest, time)| {
            versions.activate(version(digest, time));
        });
        let fallback = |versions: &Versions| versions.fallback().map(|version| version.stored.digest);
        assert_eq!(fallback(&versions), Some("c".to_owned()));
        versions.0[2].quarantined_until = Some(Instant::now() + Duration::from_secs(60));
        assert_eq!(fallback(&versions), Some("b".to_owned()));
        versions.0[1].code = Code::Unusable("it is too old".into());
        assert_eq!(fallback(&versions), Some("a".to_owned()));
        versions.0[0].quarantined_until = Some(Instant::now() + Duration::from_secs(60));
        assert_eq!(fallback(&versions), None);
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let soon = Instant::now();
        let code = |kind| Code::of_failure(Error::new(kind, "x", "why"), soon);
        assert!(matches!(code(Kind::Throttled), Code::Failed(..)));
        assert!(matches!(code(Kind::Overloaded), Code::Failed(..)));
        assert!(matches!(code(Kind::Invalid), Code::Unusable(why) if why == "why"));
        assert!(matches!(code(Kind::Conflict), Code::Unusable(_)));
    }
}
