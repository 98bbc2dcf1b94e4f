//! `Idempotency-Key`: the repeat of a send gets the first response, and is not sent.
//!
//! A response is stored if something may have been delivered. If the first request is known not to have delivered
//! anything, the repeat is sent. While the first request is in flight, a repeat waits for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::body::{BodyLimits, read_body};
use crate::caller::permit_of;
use crate::in_flight::InFlightPermit;
use crate::response;
use pushlet_gateway::{AnswerStore, StoredAnswer};
use pushlet_model::digest::DigestParts;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};
use pushlet_settings::LimitsConfig;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const LONGEST_KEY: usize = 255;
/// How long a repeat waits for the first request.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// About how many bytes an entry takes in addition to its body.
const OVERHEAD: usize = 512;

/// Marks, in a response's extensions, that something may have been delivered.
#[derive(Clone, Copy)]
pub struct MayHaveBeenDelivered;

/// A response, and the digest of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// SHA-256 of the request.
    pub request: [u8; 32],
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}

/// Performs each request with a key once. Cheap to clone.
#[derive(Clone)]
pub struct Idempotency {
    stored: Arc<ResponseStore>,
    /// Requests in flight; the receivers are woken when the sender is dropped.
    in_flight: Arc<Mutex<HashMap<(TenantId, String), watch::Receiver<()>>>>,
    body_limits: BodyLimits,
}

/// A key that one request has taken. It is released when this is dropped.
struct KeyClaim {
    idempotency: Idempotency,
    name: (TenantId, String),
    _wakes: watch::Sender<()>,
}

impl Idempotency {
    pub fn new(stored: ResponseStore, body_limits: BodyLimits) -> Self {
        Self { stored: Arc::new(stored), in_flight: Arc::default(), body_limits }
    }

    /// Returns the same for bodies of at most `size` bytes.
    pub fn with_body_size(&self, size: usize) -> Self {
        Self { body_limits: self.body_limits.with_size(size), ..self.clone() }
    }

    /// Drops all responses of a tenant that was deleted.
    pub fn forget(&self, tenant: &TenantId) {
        lock(&self.stored.tenants).remove(tenant);
    }

    /// Performs the request, unless it is the repeat of one.
    pub async fn once<F>(
        self,
        tenant: &TenantId,
        request: Request,
        perform: impl FnOnce(Request) -> F,
    ) -> Response
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let answered = match key(&request) {
            Ok(None) => return perform(request).await,
            Ok(Some(key)) => Box::pin(run(self, (tenant.clone(), key), request, perform)).await,
            Err(error) => Err(error),
        };
        answered.unwrap_or_else(response::error_with_field)
    }

    /// Takes the key, or returns what to wait for.
    fn claim(&self, name: &(TenantId, String)) -> Result<KeyClaim, watch::Receiver<()>> {
        let mut in_flight = lock(&self.in_flight);
        if let Some(first) = in_flight.get(name) {
            return Err(first.clone());
        }
        let (wakes, receiver) = watch::channel(());
        in_flight.insert(name.clone(), receiver);
        Ok(KeyClaim { idempotency: self.clone(), name: name.clone(), _wakes: wakes })
    }
}

impl Drop for KeyClaim {
    fn drop(&mut self) {
        lock(&self.idempotency.in_flight).remove(&self.name);
    }
}

fn key(request: &Request) -> Result<Option<String>, Error> {
    let mut all = request.headers().get_all(KEY).iter();
    let Some(key) = all.next() else { return Ok(None) };
    let plain = key.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len()));
    match (plain, all.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => {
            let message =
                format!("Idempotency-Key must be one text of 1 to {LONGEST_KEY} printable characters");
            Err(Error::field("invalid_idempotency_key", "Idempotency-Key", message))
        }
    }
}

async fn run<F>(
    idempotency: Idempotency,
    name: (TenantId, String),
    request: Request,
    perform: impl FnOnce(Request) -> F,
) -> Result<Response, Error>
where
    F: Future<Output = Response> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let body = read_body(&parts, body, idempotency.body_limits).await?;
    let content_type = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    // With the content type: the same bytes may mean something else as another type.
    let digest = DigestParts::of(&[
        parts.uri.path().as_bytes(),
        parts.uri.query().unwrap_or_default().as_bytes(),
        content_type.unwrap_or_default(),
        &body,
    ]);
    let give_up = Instant::now() + LONGEST_WAIT;
    // A loop, since another repeat may take the key when a first request ends without a stored response.
    let claim = loop {
        let first = match idempotency.claim(&name) {
            Ok(claim) => break claim,
            Err(first) => first,
        };
        if !ended(first, give_up).await {
            let message = "the first request with this Idempotency-Key is still in flight";
            let error = Error::new(Kind::Conflict, "idempotency_key_in_use", message);
            return Ok(response::error(error.after(Duration::from_secs(1))));
        }
    };
    // Only now: the request that held the key may just have stored its response.
    if let Some(stored) = idempotency.stored.get(&name.0, &name.1) {
        return Ok(replay(stored, &digest));
    }
    let payer = permit_of(&parts.extensions).and_then(InFlightPermit::account).cloned();
    let work = perform(Request::from_parts(parts, Body::from(body)));
    // A task of its own, since the response must be stored even if the caller goes away.
    let work = tokio::spawn(async move { store(&claim, digest, work.await, payer.as_ref()).await });
    work.await.unwrap_or_else(|failure| Err(Error::internal(failure)))
}

/// Waits until the first request has ended. Returns false if that took too long.
async fn ended(mut first: watch::Receiver<()>, give_up: Instant) -> bool {
    // An error means that the sender was dropped: the first request has ended.
    timeout_at(give_up, async { while first.changed().await.is_ok() {} }).await.is_ok()
}

async fn store(
    claim: &KeyClaim,
    request: [u8; 32],
    response: Response,
    payer: Option<&Arc<Account>>,
) -> Result<Response, Error> {
    if response.extensions().get::<MayHaveBeenDelivered>().is_none() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(Error::internal)?.to_bytes();
    let content_type = parts.headers.get(CONTENT_TYPE).cloned();
    let stored = StoredResponse { request, status: parts.status, content_type, body: body.clone() };
    claim.idempotency.stored.put(&claim.name.0, &claim.name.1, stored, payer).await;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(stored: StoredResponse, request: &[u8; 32]) -> Response {
    if stored.request != *request {
        let message = "this Idempotency-Key was used with another request before";
        return response::with_status(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message);
    }
    let mut response = (stored.status, stored.body).into_response();
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.extend(stored.content_type.map(|value| (CONTENT_TYPE, value)));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    headers.remove(RETRY_AFTER);
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn get(&self, tenant: &TenantId, key: &str) -> Option<StoredResponse> {
        let mut tenants = lock(&self.tenants);
        let own = tenants.get_mut(tenant)?;
        self.forget(tenant, &own.expire());
        own.by_key.get(key).map(|(_, _, stored)| stored.clone())
    }

    /// Stores a response. If responses are durable, it is on the disk when this returns. If the disk fails, the response
    /// is stored until the process ends.
    async fn put(&self, tenant: &TenantId, key: &str, stored: StoredResponse, payer: Option<&Arc<Account>>) {
        let answer = StoredAnswer {
            at: SystemTime::now(),
            request: stored.request,
            status: stored.status.as_u16(),
            content_type: stored
                .content_type
                .as_ref()
                .map(|value| value.as_bytes().to_vec())
                .unwrap_or_default(),
            body: stored.body.to_vec(),
        };
        self.insert(tenant, key, stored, self.window, payer);
        if let Some(durable) = &self.durable
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
        let mut tenants = lock(&self.tenants);
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
    /// Returns None if the record is not valid.
    fn of(answer: StoredAnswer) -> Option<Self> {
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
#[path = "idempotency_tests.rs"]
mod tests;
