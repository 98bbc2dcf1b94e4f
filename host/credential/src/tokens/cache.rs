//! The tokens of the process, in a cache of bounded size that is divided among tenants.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::error::AuthorizeError;
use super::handle::TokenId;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;

/// Bytes of all tokens of a kind.
const MOST_BYTES: usize = 32 << 20;
/// Bytes of an entry in addition to the text of its token.
const OVERHEAD: usize = 512;
/// Values of a removed tenant that are kept, if they must be.
const KEPT_OF_REMOVED: usize = 64;

/// Values by digest. Tenants that need the same token own it together.
pub(crate) struct TokenCache<T>(RwLock<FairCache<TenantId, TokenId, Arc<Mutex<T>>>>);

impl<T: Default> TokenCache<T> {
    pub(crate) fn new() -> Self {
        Self::with_capacity(MOST_BYTES)
    }

    fn with_capacity(bytes: usize) -> Self {
        Self(RwLock::new(FairCache::new(bytes)))
    }

    /// The value of this key, new if there is none. `may_go` says whether a value that is not in use may be
    /// evicted to make room; if none may, the newcomer is refused.
    pub(crate) fn entry(
        &self,
        tenant: &TenantId,
        key: &TokenId,
        may_go: impl Fn(&T) -> bool,
    ) -> Result<Arc<Mutex<T>>, AuthorizeError> {
        {
            let known = self.0.read();
            if let Some(value) = known.get_owned(tenant, key) {
                return Ok(value.clone());
            }
        }
        // In use: somebody holds it outside, and is perhaps about to store a token in it.
        let unused = |value: &Arc<Mutex<T>>| {
            Arc::strong_count(value) == 1 && value.try_lock().is_some_and(|value| may_go(&value))
        };
        let mut known = self.0.write();
        let found = known.get_or_insert_with(tenant, key, OVERHEAD, unused, Arc::default);
        found.map(|(value, _evicted)| value).map_err(|_| AuthorizeError::TooManyTokens)
    }

    /// The value of this key, if it is still there.
    pub(crate) fn get(&self, key: &TokenId) -> Option<Arc<Mutex<T>>> {
        self.0.read().get(key).cloned()
    }

    /// The tenant is removed, and so are its values, except for a few of those that `must_stay`: if its key is soon
    /// used again, a service that limits how often a new token is shown gets the old one.
    pub(super) fn release(&self, tenant: &TenantId, must_stay: impl Fn(&T) -> bool) {
        let must_stay = |value: &Arc<Mutex<T>>| value.try_lock().is_some_and(|value| must_stay(&value));
        let mut known = self.0.write();
        known.release(tenant, KEPT_OF_REMOVED, must_stay);
    }

    /// Notes how long the text of the token is that is now stored under this key.
    pub(crate) fn stored(&self, key: &TokenId, bytes: usize) {
        self.0.write().set_weight(key, OVERHEAD + bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(number: u32) -> TokenId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn of_a_removed_tenants_values_the_latest_few_that_must_stay_are_kept() {
        let cache = TokenCache::<u32>::new();
        let (gone, other) = (TenantId::new("acme"), TenantId::new("other"));
        for number in 0..200 {
            *cache.entry(&gone, &key(number), |_| true).unwrap().lock() = number;
        }
        cache.entry(&other, &key(0), |_| true).unwrap();
        cache.release(&gone, |value| value % 2 == 0);
        let kept: Vec<u32> = (0..200).filter(|number| cache.get(&key(*number)).is_some()).collect();
        let latest_even = (72..=199).filter(|number| number % 2 == 0);
        assert_eq!(kept, [0].into_iter().chain(latest_even).collect::<Vec<_>>(), "0 is another tenant's too");
    }

    #[test]
    fn what_is_held_or_must_stay_is_not_evicted() {
        let cache = TokenCache::<u32>::with_capacity(8 * OVERHEAD);
        let tenant = TenantId::new("acme");
        let held = cache.entry(&tenant, &key(1), |_| true).unwrap();
        *cache.entry(&tenant, &key(2), |_| true).unwrap().lock() = 2;
        assert_eq!(cache.entry(&tenant, &key(3), |_| false).unwrap_err(), AuthorizeError::TooManyTokens);
        assert!(cache.entry(&TenantId::new("other"), &key(3), |_| false).is_ok(), "others have room");
        cache.entry(&tenant, &key(4), |value| *value == 2).unwrap();
        assert!(cache.get(&key(1)).is_some_and(|value| Arc::ptr_eq(&value, &held)));
        assert!(cache.get(&key(2)).is_none());
    }
}
