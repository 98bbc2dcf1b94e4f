//! `Idempotency-Key`: the repeat of a send gets the first response, and is not sent.
//!
//! A response is stored if something may have been delivered. If the first request is known not to have delivered
//! anything, the repeat is sent. While the first request is in flight, a repeat waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::body::{BodyLimits, read_body};
use crate::caller::permit_of;
use crate::in_flight::InFlightPermit;
use crate::response;
use crate::response_store::{ResponseStore, StoredResponse};
use pushlet_gateway::{Claim, ClaimedKey, Fleet};
use pushlet_model::digest::DigestParts;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Account;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const LONGEST_KEY: usize = 255;
/// How long a repeat waits for the first request.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often to ask whether another node has ended the first request.
const LOOK: Duration = Duration::from_millis(100);

/// Marks, in a response's extensions, that something may have been delivered.
#[derive(Clone, Copy)]
pub struct MayHaveBeenDelivered;

/// Performs each request with a key once. Cheap to clone.
#[derive(Clone)]
pub struct Idempotency {
    stored: Arc<ResponseStore>,
    /// Requests in flight; the receivers are woken when the sender is dropped.
    in_flight: Arc<Mutex<HashMap<(TenantId, String), watch::Receiver<()>>>>,
    body_limits: BodyLimits,
    fleet: Option<Fleet>,
}

/// A key that one request has taken. It is released when this is dropped.
struct KeyClaim {
    idempotency: Idempotency,
    name: (TenantId, String),
    /// The same in the fleet.
    shared: Option<(Fleet, ClaimedKey)>,
    _wakes: watch::Sender<()>,
}

impl Idempotency {
    /// `fleet`: with whom keys and responses are shared.
    pub fn new(stored: ResponseStore, body_limits: BodyLimits, fleet: Option<Fleet>) -> Self {
        Self { stored: Arc::new(stored), in_flight: Arc::default(), body_limits, fleet }
    }

    fn with_body_size(&self, size: usize) -> Self {
        Self { body_limits: self.body_limits.with_size(size), ..self.clone() }
    }

    /// Drops all responses of a tenant that was deleted.
    pub fn forget(&self, tenant: &TenantId) {
        self.stored.forget_tenant(tenant);
    }

    /// Performs the request, unless it is the repeat of one. `body_size`: the most bytes that its body may have.
    pub fn once<P, F>(
        &self,
        tenant: &TenantId,
        (request, body_size): (Request, usize),
        perform: P,
    ) -> impl Future<Output = Response> + Send + use<P, F>
    where
        P: FnOnce(Request) -> F + Send + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let key = match key(&request) {
            Ok(None) => return perform(request).left_future(),
            Ok(Some(key)) => Ok(key),
            Err(error) => Err(error),
        };
        // Boxed, since few requests have a key.
        let (idempotency, tenant) = (self.with_body_size(body_size), tenant.clone());
        let repeated = async move { run(idempotency, (tenant, key?), request, perform).await };
        repeated.map(|answered| answered.unwrap_or_else(response::error_with_field)).boxed().right_future()
    }

    /// Takes the key, or returns what to wait for.
    fn claim(&self, name: &(TenantId, String)) -> Result<KeyClaim, watch::Receiver<()>> {
        let mut in_flight = self.in_flight.lock();
        if let Some(first) = in_flight.get(name) {
            return Err(first.clone());
        }
        let (wakes, receiver) = watch::channel(());
        in_flight.insert(name.clone(), receiver);
        Ok(KeyClaim { idempotency: self.clone(), name: name.clone(), shared: None, _wakes: wakes })
    }
}

impl KeyClaim {
    /// Takes the key in the fleet too. Returns the first response, if another node has sent it; while another node
    /// handles the first request, waits for it.
    async fn share(&mut self, give_up: Instant) -> Result<Option<StoredResponse>, Error> {
        let Some(fleet) = self.idempotency.fleet.clone() else { return Ok(None) };
        loop {
            match fleet.claim(&self.name.0, &self.name.1).await? {
                Claim::Taken(key) => {
                    self.shared = Some((fleet, key));
                    return Ok(None);
                }
                Claim::Answered(answer) => {
                    let stored = StoredResponse::of(answer);
                    return stored.map(Some).ok_or_else(|| Error::internal("a stored response is not valid"));
                }
                Claim::Lost => {
                    let message = "the response to the first request with this Idempotency-Key is lost, and with it \
                                   what was sent; another key sends again";
                    return Err(Error::new(Kind::Conflict, "idempotency_response_lost", message));
                }
                Claim::InFlight if Instant::now() + LOOK > give_up => return Err(in_use()),
                Claim::InFlight => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Ends the claim: with a response that repeats get, or, if nothing was delivered, with a free key.
    async fn end(mut self, stored: Option<StoredResponse>, payer: Option<&Arc<Account>>) {
        let answer = stored.as_ref().map(StoredResponse::answer);
        if let Some((fleet, key)) = self.shared.take() {
            fleet.resolve(key, answer.as_ref()).await;
        }
        if let Some(stored) = stored {
            self.idempotency.stored.put(&self.name.0, &self.name.1, stored, payer).await;
        }
    }
}

impl Drop for KeyClaim {
    fn drop(&mut self) {
        self.idempotency.in_flight.lock().remove(&self.name);
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
    let mut claim = loop {
        let first = match idempotency.claim(&name) {
            Ok(claim) => break claim,
            Err(first) => first,
        };
        if !ended(first, give_up).await {
            return Ok(response::error(in_use()));
        }
    };
    // Only now: the request that held the key may just have stored its response.
    if let Some(stored) = idempotency.stored.get(&name.0, &name.1) {
        return Ok(replay(stored, &digest));
    }
    let payer = permit_of(&parts.extensions).and_then(InFlightPermit::account).cloned();
    let work = perform(Request::from_parts(parts, Body::from(body)));
    // A task of its own, since the response must be stored, and the key given back, even if the caller goes away.
    let work = tokio::spawn(async move {
        match claim.share(give_up).await? {
            Some(stored) => Ok(replay(stored, &digest)),
            None => store(claim, digest, work.await, payer.as_ref()).await,
        }
    });
    work.await.unwrap_or_else(|failure| Err(Error::internal(failure)))
}

/// Waits until the first request has ended. Returns false if that took too long.
async fn ended(mut first: watch::Receiver<()>, give_up: Instant) -> bool {
    // An error means that the sender was dropped: the first request has ended.
    timeout_at(give_up, async { while first.changed().await.is_ok() {} }).await.is_ok()
}

fn in_use() -> Error {
    let message = "the first request with this Idempotency-Key is still in flight";
    Error::new(Kind::Conflict, "idempotency_key_in_use", message).after(Duration::from_secs(1))
}

async fn store(
    claim: KeyClaim,
    request: [u8; 32],
    response: Response,
    payer: Option<&Arc<Account>>,
) -> Result<Response, Error> {
    if response.extensions().get::<MayHaveBeenDelivered>().is_none() {
        claim.end(None, payer).await;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(Error::internal)?.to_bytes();
    let content_type = parts.headers.get(CONTENT_TYPE).cloned();
    let stored = StoredResponse { request, status: parts.status, content_type, body: body.clone() };
    claim.end(Some(stored), payer).await;
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
