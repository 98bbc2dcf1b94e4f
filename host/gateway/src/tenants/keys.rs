//! API keys: several at a time, so that a new one can be given out before an old one ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::tenant::Tenant;
use pushlet_credential::{API_KEY_PREFIX, ApiKey, KeyHasher, KeyId};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{Scopes, TenantId};
use pushlet_registry::{KeyRecord, TenantRecord};

/// Keys of one tenant at a time.
const MOST_KEYS: usize = 10;
/// Seconds to which the last use of a key is known.
const GRAIN: u64 = 60;

/// A key that was just created; the only time that it is shown.
pub struct NewKey {
    pub key: ApiKey,
    pub expires: Option<SystemTime>,
}

/// How a new key is created.
#[derive(Debug, Clone, Default)]
pub struct KeyRequest {
    pub label: Option<String>,
    pub scopes: Scopes,
    /// The new key ends after this time.
    pub expires_in: Option<Duration>,
    /// All older keys end after this time, unless they end sooner.
    pub others_expire_in: Option<Duration>,
}

/// What may be shown of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    pub id: KeyId,
    pub label: Option<String>,
    pub scopes: Scopes,
    /// To the minute; None: never, or before this was recorded.
    pub last_used: Option<SystemTime>,
    pub created: SystemTime,
    pub expires: Option<SystemTime>,
}

/// An API key that callers may use.
pub(super) struct LiveKey {
    pub tenant: Arc<Tenant>,
    /// When it was used last, and what of that is stored: seconds since the Unix epoch, 0 for never.
    used: AtomicU64,
    stored: AtomicU64,
}

impl LiveKey {
    pub fn new(tenant: Arc<Tenant>) -> Arc<Self> {
        Arc::new(Self { tenant, used: AtomicU64::new(0), stored: AtomicU64::new(0) })
    }

    /// Records a use. Only one in a minute writes, so that requests do not take the cache line from each other.
    pub fn record_use(&self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if now >= self.used.load(Ordering::Relaxed).saturating_add(GRAIN) {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    pub fn used(&self) -> Option<SystemTime> {
        at(self.used.load(Ordering::Relaxed))
    }

    /// Returns when it was used last, if that is not stored yet, and counts it as stored.
    pub fn take_use(&self) -> Option<SystemTime> {
        let used = self.used.load(Ordering::Relaxed);
        let stored = self.stored.swap(used, Ordering::Relaxed);
        at(used).filter(|_| used > stored)
    }
}

fn at(seconds: u64) -> Option<SystemTime> {
    (seconds > 0).then(|| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))).flatten()
}

/// Returns true if the text begins as API keys do.
pub fn looks_like_a_key(text: &[u8]) -> bool {
    text.starts_with(API_KEY_PREFIX.as_bytes())
}

/// Creates a key and adds it to a tenant's record.
pub(super) fn create(
    hasher: &KeyHasher,
    id: &TenantId,
    record: &mut TenantRecord,
    request: KeyRequest,
) -> Result<NewKey, Error> {
    let KeyRequest { label, scopes, expires_in, .. } = request;
    let key = ApiKey::generate().map_err(Error::internal)?;
    let created = SystemTime::now();
    let expires = expires_in.and_then(|wait| created.checked_add(wait));
    let hash = hasher.hash(id.as_str(), key.reveal());
    record.keys.push(KeyRecord { id: key.id(), hash, created, expires, label, scopes });
    Ok(NewKey { key, expires })
}

/// Makes room for one more key in a record: drops those that have expired, and lets the others end as requested.
pub(super) fn make_room(record: &mut TenantRecord, request: &KeyRequest) -> Result<(), Error> {
    let now = SystemTime::now();
    record.keys.retain(|key| key.is_good(now));
    if record.keys.len() >= MOST_KEYS {
        let message = format!("there are {MOST_KEYS} keys already, the most that is allowed; remove one");
        return Err(Error::new(Kind::Conflict, "too_many_keys", message));
    }
    if let Some(end) = request.others_expire_in.and_then(|wait| now.checked_add(wait)) {
        let sooner = |expires: SystemTime| expires.min(end);
        record.keys.iter_mut().for_each(|key| key.expires = Some(key.expires.map_or(end, sooner)));
    }
    Ok(())
}

/// Removes a key from a record.
pub(super) fn remove(record: &mut TenantRecord, key: &str) -> Result<(), Error> {
    let count = record.keys.len();
    record.keys.retain(|known| Some(known.id) != KeyId::parse(key));
    if record.keys.len() == count {
        return Err(Error::new(Kind::NotFound, "key_not_found", "there is no such key"));
    }
    Ok(())
}

/// Returns the keys of a record that are valid now, the oldest first.
pub(super) fn list(record: &TenantRecord) -> Vec<KeyView> {
    let now = SystemTime::now();
    let good = record.keys.iter().filter(|key| key.is_good(now));
    let view = |key: &KeyRecord| KeyView {
        id: key.id,
        label: key.label.clone(),
        scopes: key.scopes,
        last_used: None,
        created: key.created,
        expires: key.expires,
    };
    good.map(view).collect()
}
