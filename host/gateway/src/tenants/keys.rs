//! API keys: several at a time, so that a new one can be given out before an old one ends.

use std::time::{Duration, SystemTime};

use pushlet_credential::{API_KEY_PREFIX, ApiKey, KeyHasher, KeyId};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_registry::{KeyRecord, TenantRecord};

/// Keys of one tenant at a time.
const MOST_KEYS: usize = 10;

/// A key that was just created; the only time that it is shown.
pub struct NewKey {
    pub key: ApiKey,
    pub expires: Option<SystemTime>,
}

/// How a new key is created.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyRequest {
    /// The new key ends after this time.
    pub expires_in: Option<Duration>,
    /// All older keys end after this time, unless they end sooner.
    pub others_expire_in: Option<Duration>,
}

/// What may be shown of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyView {
    pub id: KeyId,
    pub created: SystemTime,
    pub expires: Option<SystemTime>,
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
    expires_in: Option<Duration>,
) -> Result<NewKey, Error> {
    let key = ApiKey::generate().map_err(Error::internal)?;
    let created = SystemTime::now();
    let expires = expires_in.and_then(|wait| created.checked_add(wait));
    let hash = hasher.hash(id.as_str(), key.reveal());
    record.keys.push(KeyRecord { id: key.id(), hash, created, expires });
    Ok(NewKey { key, expires })
}

/// Makes room for one more key in a record: drops those that have expired, and lets the others end as requested.
pub(super) fn make_room(record: &mut TenantRecord, request: KeyRequest) -> Result<(), Error> {
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
    good.map(|key| KeyView { id: key.id, created: key.created, expires: key.expires }).collect()
}
