//! API keys: several at a time, so that a new one can be given out before an old one ends.

use std::time::{Duration, SystemTime};

use super::{Permission, Tenants};
use pushlet_credential::{API_KEY_PREFIX as PREFIX, ApiKey, KeyId};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_registry::{KeyRecord, TenantRecord};

/// Keys of one tenant at a time.
const MOST_KEYS: usize = 10;

/// A key that was just made; the only time that it is shown.
pub struct NewKey {
    pub key: ApiKey,
    pub expires: Option<SystemTime>,
}

/// What is wanted of a new key.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyRequest {
    /// The new one ends after this.
    pub expires_in: Option<Duration>,
    /// All older ones end after this, unless they end sooner.
    pub others_expire_in: Option<Duration>,
}

/// What may be told about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyView {
    pub id: KeyId,
    pub created: SystemTime,
    pub expires: Option<SystemTime>,
}

/// Is it written as our keys are?
pub fn looks_like_a_key(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

impl Tenants {
    /// What a key permits, if it is one that is good.
    pub fn by_key(&self, key: &str) -> Option<Permission> {
        let id = KeyId::of_key(key)?;
        let tenant = self.live().keys.get(&id).cloned()?;
        let state = tenant.state.load_full();
        let record = state.record.keys.iter().find(|record| record.id == id)?;
        let good = self.registry.hasher().matches(tenant.id.as_str(), key, &record.hash);
        (good && record.is_good(SystemTime::now())).then(|| Permission::with_key(tenant, id))
    }

    /// Makes one more key. Blocks.
    pub fn add_key(&self, id: &TenantId, request: KeyRequest) -> Result<NewKey, Error> {
        let _order = self.changing();
        let now = SystemTime::now();
        let mut record = self.get(id)?.state.load().record.clone();
        record.keys.retain(|key| key.is_good(now));
        if record.keys.len() >= MOST_KEYS {
            let message = format!("there are {MOST_KEYS} keys already, the most that is allowed; remove one");
            return Err(Error::new(Kind::Conflict, "too_many_keys", message));
        }
        if let Some(end) = request.others_expire_in.and_then(|wait| now.checked_add(wait)) {
            let sooner = |expires: SystemTime| expires.min(end);
            record.keys.iter_mut().for_each(|key| key.expires = Some(key.expires.map_or(end, sooner)));
        }
        let key = self.new_key(id, &mut record, request.expires_in)?;
        self.keep(id, record)?;
        Ok(key)
    }

    /// Those that are good, the oldest first.
    pub fn keys(&self, id: &TenantId) -> Result<Vec<KeyView>, Error> {
        let now = SystemTime::now();
        let state = self.get(id)?.state.load_full();
        let good = state.record.keys.iter().filter(|key| key.is_good(now));
        Ok(good.map(|key| KeyView { id: key.id, created: key.created, expires: key.expires }).collect())
    }

    /// Ends a key at once. Blocks.
    pub fn remove_key(&self, id: &TenantId, key: &str) -> Result<(), Error> {
        let _order = self.changing();
        let mut record = self.get(id)?.state.load().record.clone();
        let count = record.keys.len();
        record.keys.retain(|known| Some(known.id) != KeyId::parse(key));
        if record.keys.len() == count {
            return Err(Error::new(Kind::NotFound, "key_not_found", "there is no such key"));
        }
        self.keep(id, record)
    }

    /// Makes a key and adds it to a record.
    pub(super) fn new_key(
        &self,
        id: &TenantId,
        record: &mut TenantRecord,
        expires_in: Option<Duration>,
    ) -> Result<NewKey, Error> {
        let key = ApiKey::generate().map_err(Error::internal)?;
        let created = SystemTime::now();
        let expires = expires_in.and_then(|wait| created.checked_add(wait));
        let hash = self.registry.hasher().hash(id.as_str(), key.reveal());
        record.keys.push(KeyRecord { id: key.id(), hash, created, expires });
        Ok(NewKey { key, expires })
    }
}
