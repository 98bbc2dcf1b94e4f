//! The responses to requests with an `Idempotency-Key`, for as long as a repeat may come.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use pushlet_gateway::{AnswerStore, StoredAnswer};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};
use pushlet_settings::LimitsConfig;

/// About how many bytes an entry takes in addition to its body.
const OVERHEAD: usize = 512;

/// A response, and the digest of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// SHA-256 of the request.
    pub request: [u8; 32],
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}

/// Stores responses for a time, as many as there is room for; the oldest are removed first. The repeat of a removed
/// one is sent.
pub struct ResponseStore {
    tenants: Mutex<HashMap<TenantId, TenantResponses>>,
    window: Duration,
    /// Per tenant.
    max_responses: usize,
    /// Bytes per tenant.
    max_bytes: usize,
    /// None: responses are lost at the end of the process.
    durable: Option<AnswerStore>,
}

#[derive(Default)]
struct TenantResponses {
    by_key: HashMap<String, (u64, Instant, StoredResponse)>,
    /// Number of the response → key, oldest first.
    by_age: BTreeMap<u64, String>,
    next: u64,
    size: usize,
    /// `size` on the tenant's account, once this process has stored a response.
    reserved: Option<MemoryReservation>,
}

impl ResponseStore {
    /// Drops all responses of a tenant that was deleted.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        self.tenants.lock().remove(tenant);
    }

    /// Opens the store, with the responses of an earlier process if they are durable. Then it blocks.
    pub fn open(limits: &LimitsConfig, durable: Option<AnswerStore>) -> Self {
        let store = Self {
            tenants: Mutex::default(),
            window: limits.idempotency_window,
            max_responses: limits.idempotency_keys,
            max_bytes: limits.idempotency_memory,
            durable,
        };
        store.restore();
        store
    }

    pub fn get(&self, tenant: &TenantId, key: &str) -> Option<StoredResponse> {
        let mut tenants = self.tenants.lock();
        let own = tenants.get_mut(tenant)?;
        self.forget(tenant, &own.expire());
        own.by_key.get(key).map(|(_, _, stored)| stored.clone())
    }

    /// Stores a response. If responses are durable, it is on the disk when this returns. If the disk fails, the response
    /// is stored until the process ends.
    pub async fn put(
        &self,
        tenant: &TenantId,
        key: &str,
        stored: StoredResponse,
        payer: Option<&Arc<Account>>,
    ) {
        let answer = self.durable.is_some().then(|| stored.answer());
        self.insert(tenant, key, stored, self.window, payer);
        if let Some((durable, answer)) = self.durable.as_ref().zip(answer)
            && let Err(error) = durable.put(tenant, key, &answer).await
        {
            tracing::error!(%tenant, %error, "a response could not be stored on the disk; it is lost when this server ends");
        }
    }

    fn restore(&self) {
        let Some(durable) = &self.durable else { return };
        let all = durable.all().unwrap_or_else(|error| {
            tracing::error!(%error, "the responses of an earlier run cannot be read");
            Vec::new()
        });
        let now = SystemTime::now();
        for (tenant, key, answer) in all {
            let age = now.duration_since(answer.at).unwrap_or_default();
            match (self.window.checked_sub(age), StoredResponse::of(answer)) {
                (Some(left), Some(stored)) => self.insert(&tenant, &key, stored, left, None),
                _ => self.forget(&tenant, &[key]),
            }
        }
    }

    fn insert(
        &self,
        id: &TenantId,
        key: &str,
        stored: StoredResponse,
        left: Duration,
        payer: Option<&Arc<Account>>,
    ) {
        let mut tenants = self.tenants.lock();
        let tenant = tenants.entry(id.clone()).or_default();
        tenant.remove(key);
        tenant.size += size(key, &stored);
        tenant.by_age.insert(tenant.next, key.to_owned());
        tenant.by_key.insert(key.to_owned(), (tenant.next, Instant::now() + left, stored));
        tenant.next += 1;
        let mut gone = tenant.expire();
        // The newest stays whatever its size, since its push may have been delivered.
        while tenant.by_age.len() > 1
            && (tenant.by_age.len() > self.max_responses
                || tenant.size > self.max_bytes
                || !tenant.reserve(payer))
        {
            gone.extend(tenant.remove_oldest());
        }
        // Under the lock, so that it cannot remove a key that is stored again.
        self.forget(id, &gone);
    }

    fn forget(&self, tenant: &TenantId, keys: &[String]) {
        if let Some(durable) = self.durable.as_ref().filter(|_| !keys.is_empty()) {
            durable.forget(tenant, keys);
        }
    }
}

impl StoredResponse {
    pub fn answer(&self) -> StoredAnswer {
        let content_type = self.content_type.as_ref().map(|value| value.as_bytes().to_vec());
        StoredAnswer {
            at: SystemTime::now(),
            request: self.request,
            status: self.status.as_u16(),
            content_type: content_type.unwrap_or_default(),
            body: self.body.to_vec(),
        }
    }

    /// Returns None if the record is not valid.
    pub fn of(answer: StoredAnswer) -> Option<Self> {
        let content_type = match answer.content_type.as_slice() {
            [] => None,
            bytes => Some(HeaderValue::from_bytes(bytes).ok()?),
        };
        let status = StatusCode::from_u16(answer.status).ok()?;
        Some(Self { request: answer.request, status, content_type, body: answer.body.into() })
    }
}

impl TenantResponses {
    /// Removes the responses whose time is over, and returns their keys.
    fn expire(&mut self) -> Vec<String> {
        let (mut gone, now) = (Vec::new(), Instant::now());
        while let Some((_, key)) = self.by_age.first_key_value()
            && self.by_key.get(key).is_none_or(|(_, end, _)| *end <= now)
        {
            gone.extend(self.remove_oldest());
        }
        gone
    }

    /// Reserves `size` on the account. Returns false if there is no room.
    fn reserve(&mut self, payer: Option<&Arc<Account>>) -> bool {
        let Some(payer) = payer else { return true };
        let reserved = self.reserved.get_or_insert_with(|| payer.reserve_nothing(MemoryUse::Idempotency));
        reserved.shrink_to(self.size);
        reserved.grow(self.size - reserved.bytes()).is_ok()
    }

    fn remove_oldest(&mut self) -> Option<String> {
        let (_, key) = self.by_age.pop_first()?;
        if let Some((_, _, stored)) = self.by_key.remove(&key) {
            self.size -= size(&key, &stored);
        }
        Some(key)
    }

    fn remove(&mut self, key: &str) {
        if let Some((number, _, stored)) = self.by_key.remove(key) {
            self.by_age.remove(&number);
            self.size -= size(key, &stored);
        }
    }
}

fn size(key: &str, stored: &StoredResponse) -> usize {
    // Two maps hold the key.
    2 * key.len() + stored.body.len() + OVERHEAD
}

#[cfg(test)]
#[path = "response_store_tests.rs"]
mod tests;
