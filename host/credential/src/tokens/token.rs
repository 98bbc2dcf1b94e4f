//! What all kinds of tokens share: ids, header values, the cache, clock readings, and errors.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use parking_lot::{Mutex, RwLock};
use zeroize::Zeroizing;

use pushlet_model::contract::manifest::Authentication;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;

/// A digest of everything that decides the token.
pub(crate) type TokenId = [u8; 32];

/// Identifies the token that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHandle {
    pub(crate) origin: TokenSource,
    pub(crate) id: TokenId,
    pub(crate) serial: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenSource {
    Minted,
    Fetched,
}

impl TokenHandle {
    pub(crate) fn minted(id: TokenId, serial: u64) -> Self {
        Self { origin: TokenSource::Minted, id, serial }
    }

    pub(crate) fn fetched(id: TokenId, serial: u64) -> Self {
        Self { origin: TokenSource::Fetched, id, serial }
    }
}

/// Creates a header value that is never shown, and wipes its text.
pub(crate) fn sensitive(text: String) -> Result<HeaderValue, AuthorizeError> {
    let text = Zeroizing::new(text);
    let mut value = HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| AuthorizeError::manifest("the token makes no header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The id of a credential's last token, and what it was found from: finding it takes some digests, comparing does
/// not, and nearly every exchange of an application needs the same.
#[derive(Default)]
pub(crate) struct TokenMemo(ArcSwapOption<RememberedToken>);

struct RememberedToken {
    authentication: Authentication,
    settings: Vec<(String, String)>,
    origin: String,
    id: TokenId,
}

impl TokenMemo {
    /// Returns the id of the token that an exchange with this authentication, settings and origin needs. `find` computes
    /// it from nothing but these three and the credential.
    pub(crate) fn id(
        &self,
        authentication: &Authentication,
        settings: &[(String, String)],
        origin: &str,
        find: impl FnOnce() -> Result<TokenId, AuthorizeError>,
    ) -> Result<TokenId, AuthorizeError> {
        if let Some(last) = &*self.0.load()
            && last.origin == origin
            && last.settings == settings
            && last.authentication == *authentication
        {
            return Ok(last.id);
        }
        let id = find()?;
        let last = RememberedToken {
            authentication: authentication.clone(),
            settings: settings.to_vec(),
            origin: origin.to_owned(),
            id,
        };
        self.0.store(Some(last.into()));
        Ok(id)
    }
}

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

    /// Returns the value of this key, or a new one. `may_go` says whether a value that is not in use may be
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
        // A value with another holder is in use: a token may be about to be stored in it.
        let unused = |value: &Arc<Mutex<T>>| {
            Arc::strong_count(value) == 1 && value.try_lock().is_some_and(|value| may_go(&value))
        };
        let mut known = self.0.write();
        let found = known.get_or_insert_with(tenant, key, OVERHEAD, unused, Arc::default);
        found.map(|(value, _evicted)| value).map_err(|_| AuthorizeError::TooManyTokens)
    }

    /// Returns the value of this key, if it is still there.
    pub(crate) fn get(&self, key: &TokenId) -> Option<Arc<Mutex<T>>> {
        self.0.read().get(key).cloned()
    }

    /// Removes the values of a removed tenant, except for a few of those that `must_stay`: if its key is soon
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

/// Why an exchange cannot be authenticated, sorted by who must act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeError {
    /// The caller must act: the application lacks a setting.
    #[error("the setting {0} is missing")]
    MissingSetting(String),
    /// The provider's author must act: its manifest asks for what the credential does not have.
    #[error("the provider's manifest does not fit the credential: {0}")]
    Manifest(String),
    /// The operator must act: the token endpoint refuses the credential. The description is the endpoint's own, made
    /// harmless.
    #[error("the token endpoint refused the credential: {code}{}", described(description.as_deref()))]
    Refused { code: String, description: Option<String> },
    /// Waiting may help. The detail is for the log.
    #[error("the token endpoint is not available: {reason}")]
    Unavailable { reason: String, detail: String, retry_after: Option<Duration> },
    /// The owner of the credential must act: requests to its token endpoint are not allowed. The detail is for the log.
    #[error("the token endpoint may not be asked: {reason}")]
    Forbidden { reason: String, detail: String },
    /// The operator of the token endpoint must act.
    #[error("the token endpoint cannot be understood: {0}")]
    Malformed(&'static str),
    /// The caller's deadline passed before there was a token.
    #[error("no token came in time")]
    DeadlineExceeded,
    /// The caller's tenant: its share of the tokens that are kept is in use, and none of them may be replaced yet.
    #[error(
        "this tenant uses as many tokens as its share of this server allows, and push services accept new ones \
         only after a while (limit tokens)"
    )]
    TooManyTokens,
    /// The system gives no random numbers.
    #[error("a token could not be signed")]
    Signing,
    /// The tenant, or this server, has too much work to sign one now.
    #[error("a token could not be signed now: {}", .0.message)]
    NoCapacity(Error),
}

impl AuthorizeError {
    pub(crate) fn manifest(why: &str) -> Self {
        Self::Manifest(why.to_owned())
    }

    pub(crate) fn unavailable(reason: &str, retry_after: Option<Duration>) -> Self {
        Self::Unavailable { reason: reason.to_owned(), detail: String::new(), retry_after }
    }
}

fn described(description: Option<&str>) -> String {
    description.map(|description| format!(" ({description})")).unwrap_or_default()
}

/// A reading of both clocks.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    /// What is written into tokens. It can jump.
    pub wall: SystemTime,
    /// Never jumps, but stands still while the machine sleeps.
    pub steady: Instant,
}

impl ClockReading {
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// Returns the time since `earlier` by the clock on which more has passed: neither a sleep nor a wall clock that is
    /// set back makes a token look younger than it is.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        wall.max(self.steady.saturating_duration_since(earlier.steady))
    }

    /// Returns true if the wall clock has been set back, so that a token of `earlier` claims to be from the future.
    pub(crate) fn precedes(&self, earlier: &Self) -> bool {
        /// Clock corrections smaller than this are normal.
        const SLACK: Duration = Duration::from_secs(60);
        earlier.wall.duration_since(self.wall).is_ok_and(|lead| lead > SLACK)
    }

    /// Returns the last time that is a whole number of `step`s after the Unix epoch.
    pub(crate) fn rounded_down(&self, step: Duration) -> Self {
        let since = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let whole = step.as_secs().max(1);
        let past =
            Duration::from_secs(since.as_secs() % whole) + Duration::from_nanos(since.subsec_nanos().into());
        let steady = self.steady.checked_sub(past).unwrap_or(self.steady);
        Self { wall: self.wall.checked_sub(past).unwrap_or(self.wall), steady }
    }

    pub(crate) fn unix_seconds(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    pub(crate) fn since_epoch(&self) -> Duration {
        self.wall.duration_since(UNIX_EPOCH).unwrap_or_default()
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
