//! `Idempotency-Key`: the repeat of a send that was done gets the answer of the first, and is not sent.
//!
//! An answer is kept once it is known that something may have been delivered. What failed before that is
//! not kept, so its repeat is a new try. Between the two, a repeat waits for the first.

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

use super::admission::Place;
use super::{auth, form, response};
use pushlet_gateway::{self as gateway, StoredAnswer};
use pushlet_model::digest::DigestParts;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};
use pushlet_settings::LimitsConfig;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const LONGEST_KEY: usize = 255;
/// How long a repeat waits for the first.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// What an entry takes beside its body, about. Bytes.
const OVERHEAD: usize = 512;

/// Marks, in a response's extensions, that something may have been delivered.
#[derive(Clone, Copy)]
pub struct MayHaveBeenDelivered;

/// An answer, and what it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// SHA-256 of the request.
    pub request: [u8; 32],
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}

/// What the middleware needs. Cheap to clone.
#[derive(Clone)]
pub struct Idempotency {
    kept: Arc<Answers>,
    /// Requests under way; the receivers are woken when the sender is dropped.
    under_way: Arc<Mutex<HashMap<(TenantId, String), watch::Receiver<()>>>>,
    bounds: form::Bounds,
}

/// A key that is taken by one request. It is free again when this is dropped.
struct Claim {
    idempotency: Idempotency,
    name: (TenantId, String),
    _wakes: watch::Sender<()>,
}

impl Idempotency {
    /// `bounds`: of the requests' bodies.
    pub fn new(kept: Answers, bounds: form::Bounds) -> Self {
        Self { kept: Arc::new(kept), under_way: Arc::default(), bounds }
    }

    /// The same for larger or smaller bodies, in bytes.
    pub fn with_body(&self, body: usize) -> Self {
        Self { bounds: self.bounds.with_body(body), ..self.clone() }
    }

    /// Drops all answers of a tenant that is no more.
    pub fn forget(&self, tenant: &TenantId) {
        lock(&self.kept.tenants).remove(tenant);
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

    /// Takes the key, or tells whom to wait for.
    fn claim(&self, name: &(TenantId, String)) -> Result<Claim, watch::Receiver<()>> {
        let mut under_way = lock(&self.under_way);
        if let Some(first) = under_way.get(name) {
            return Err(first.clone());
        }
        let (wakes, receiver) = watch::channel(());
        under_way.insert(name.clone(), receiver);
        Ok(Claim { idempotency: self.clone(), name: name.clone(), _wakes: wakes })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.idempotency.under_way).remove(&self.name);
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
    let body = form::read_body(&parts, body, idempotency.bounds).await?;
    let content_type = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let digest = DigestParts::of(&[
        parts.uri.path().as_bytes(),
        parts.uri.query().unwrap_or_default().as_bytes(),
        content_type.unwrap_or_default(),
        &body,
    ]);
    let give_up = Instant::now() + LONGEST_WAIT;
    let claim = loop {
        let first = match idempotency.claim(&name) {
            Ok(claim) => break claim,
            Err(first) => first,
        };
        if !ended(first, give_up).await {
            let message = "the first request with this Idempotency-Key is still under way";
            let error = Error::new(Kind::Conflict, "idempotency_key_in_use", message);
            return Ok(response::error(error.after(Duration::from_secs(1))));
        }
    };
    if let Some(kept) = idempotency.kept.get(&name.0, &name.1) {
        return Ok(replay(kept, &digest));
    }
    let payer = auth::place_of(&parts.extensions).and_then(Place::account).cloned();
    let work = perform(Request::from_parts(parts, Body::from(body)));
    // To its end, also when the caller goes away: the answer must be kept.
    let work = tokio::spawn(async move { keep(&claim, digest, work.await, payer.as_ref()).await });
    work.await.unwrap_or_else(|failure| Err(Error::internal(failure)))
}

/// False: it took too long.
async fn ended(mut first: watch::Receiver<()>, give_up: Instant) -> bool {
    // An error says that the sender is gone, which is the end.
    timeout_at(give_up, async { while first.changed().await.is_ok() {} }).await.is_ok()
}

async fn keep(
    claim: &Claim,
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
    let kept = StoredResponse { request, status: parts.status, content_type, body: body.clone() };
    claim.idempotency.kept.put(&claim.name.0, &claim.name.1, kept, payer).await;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(kept: StoredResponse, request: &[u8; 32]) -> Response {
    if kept.request != *request {
        let message = "this Idempotency-Key came with another request before";
        return response::with_status(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message);
    }
    let mut response = (kept.status, kept.body).into_response();
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.extend(kept.content_type.map(|value| (CONTENT_TYPE, value)));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    headers.remove(RETRY_AFTER);
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps answers for a time, as many as there is room for; the oldest go first. One that is gone is as if
/// it had never been.
pub struct Answers {
    tenants: Mutex<HashMap<TenantId, Tenant>>,
    window: Duration,
    most: usize,
    /// Bytes per tenant.
    memory: usize,
    /// None: they end with the process.
    durable: Option<gateway::AnswerStore>,
}

#[derive(Default)]
struct Tenant {
    by_key: HashMap<String, (u64, Instant, StoredResponse)>,
    /// Number of the answer → key, oldest first.
    by_age: BTreeMap<u64, String>,
    next: u64,
    size: usize,
    /// The same on the tenant's account, from the first answer on that this process gave.
    reserved: Option<MemoryReservation>,
}

impl Answers {
    /// With those that an earlier process kept. Blocks where they are durable.
    pub fn open(limits: &LimitsConfig, durable: Option<gateway::AnswerStore>) -> Self {
        let answers = Self {
            tenants: Mutex::default(),
            window: limits.idempotency_window,
            most: limits.idempotency_keys,
            memory: limits.idempotency_memory,
            durable,
        };
        answers.restore();
        answers
    }

    fn get(&self, tenant: &TenantId, key: &str) -> Option<StoredResponse> {
        let mut tenants = lock(&self.tenants);
        let own = tenants.get_mut(tenant)?;
        self.forget(tenant, &own.expire());
        own.by_key.get(key).map(|(_, _, kept)| kept.clone())
    }

    /// It is on the disk when this returns, where answers are durable. If the disk fails, it is kept for as
    /// long as the process runs.
    async fn put(&self, tenant: &TenantId, key: &str, kept: StoredResponse, payer: Option<&Arc<Account>>) {
        let answer = StoredAnswer {
            at: SystemTime::now(),
            request: kept.request,
            status: kept.status.as_u16(),
            content_type: kept
                .content_type
                .as_ref()
                .map(|value| value.as_bytes().to_vec())
                .unwrap_or_default(),
            body: kept.body.to_vec(),
        };
        self.insert(tenant, key, kept, self.window, payer);
        if let Some(durable) = &self.durable
            && let Err(error) = durable.put(tenant, key, &answer).await
        {
            tracing::error!(%tenant, %error, "an answer could not be kept; it is forgotten when this server ends");
        }
    }

    fn restore(&self) {
        let Some(durable) = &self.durable else { return };
        let all = durable.all().unwrap_or_else(|error| {
            tracing::error!(%error, "the answers of an earlier run can not be read");
            Vec::new()
        });
        let now = SystemTime::now();
        for (tenant, key, answer) in all {
            let age = now.duration_since(answer.at).unwrap_or_default();
            match (self.window.checked_sub(age), StoredResponse::of(answer)) {
                (Some(left), Some(kept)) => self.insert(&tenant, &key, kept, left, None),
                _ => self.forget(&tenant, &[key]),
            }
        }
    }

    fn insert(
        &self,
        id: &TenantId,
        key: &str,
        kept: StoredResponse,
        left: Duration,
        payer: Option<&Arc<Account>>,
    ) {
        let mut tenants = lock(&self.tenants);
        let tenant = tenants.entry(id.clone()).or_default();
        tenant.remove(key);
        tenant.size += size(key, &kept);
        tenant.by_age.insert(tenant.next, key.to_owned());
        tenant.by_key.insert(key.to_owned(), (tenant.next, Instant::now() + left, kept));
        tenant.next += 1;
        let mut gone = tenant.expire();
        // The newest stays, whatever its size.
        while tenant.by_age.len() > 1
            && (tenant.by_age.len() > self.most || tenant.size > self.memory || !tenant.reserve(payer))
        {
            gone.extend(tenant.remove_oldest());
        }
        // Under the lock: before the same key is kept anew.
        self.forget(id, &gone);
    }

    fn forget(&self, tenant: &TenantId, keys: &[String]) {
        if let Some(durable) = self.durable.as_ref().filter(|_| !keys.is_empty()) {
            durable.forget(tenant, keys);
        }
    }
}

impl StoredResponse {
    /// None: it is none of ours.
    fn of(answer: StoredAnswer) -> Option<Self> {
        let content_type = match answer.content_type.as_slice() {
            [] => None,
            bytes => Some(HeaderValue::from_bytes(bytes).ok()?),
        };
        let status = StatusCode::from_u16(answer.status).ok()?;
        Some(Self { request: answer.request, status, content_type, body: answer.body.into() })
    }
}

impl Tenant {
    fn expire(&mut self) -> Vec<String> {
        let (mut gone, now) = (Vec::new(), Instant::now());
        while let Some((_, key)) = self.by_age.first_key_value()
            && self.by_key.get(key).is_none_or(|(_, end, _)| *end <= now)
        {
            gone.extend(self.remove_oldest());
        }
        gone
    }

    /// Counts all answers on the account. False: there is no room for them.
    fn reserve(&mut self, payer: Option<&Arc<Account>>) -> bool {
        let Some(payer) = payer else { return true };
        let reserved = self.reserved.get_or_insert_with(|| payer.reserve_nothing(MemoryUse::Idempotency));
        reserved.shrink_to(self.size);
        reserved.grow(self.size - reserved.bytes()).is_ok()
    }

    fn remove_oldest(&mut self) -> Option<String> {
        let (_, key) = self.by_age.pop_first()?;
        if let Some((_, _, kept)) = self.by_key.remove(&key) {
            self.size -= size(&key, &kept);
        }
        Some(key)
    }

    fn remove(&mut self, key: &str) {
        if let Some((number, _, kept)) = self.by_key.remove(key) {
            self.by_age.remove(&number);
            self.size -= size(key, &kept);
        }
    }
}

fn size(key: &str, kept: &StoredResponse) -> usize {
    2 * key.len() + kept.body.len() + OVERHEAD
}

#[cfg(test)]
#[path = "idempotency_tests.rs"]
mod tests;
