//! HTTPS for peers that are not pinned to HTTP/2.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use h2::Reason;
use http::Uri;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{timeout, timeout_at};

use super::answer_body::AnswerBody;
use super::breaker::{BackoffPolicy, BreakerState, CircuitBreaker, jitter};
use super::connector::{TlsConnector, limit_informational};
use super::dial::HostResolver;
use super::error::{DialError, FailureCause, RequestState, SendError};
use super::guard;
use super::handover::HandoverBody;
use super::lookup::DnsLookups;
use super::message::{ClientIdentity, IdentityKey, PeerKey, Protocol, Request};
use super::response::{ConnectionHandle, Response};
use super::settings::TransportSettings;
use super::stats::{ConnectionStats, PeerLoad};
use super::tls::TlsConfigs;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;

const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// How often a peer with requests in flight over HTTP/2 is tested.
const PING_INTERVAL: Duration = Duration::from_secs(20);

type HttpsClient = legacy::Client<TlsConnector, HandoverBody>;

/// A client with connections of its own, and a bulkhead, for each origin and identity.
pub(super) struct HttpsPeers {
    tls: Arc<TlsConfigs>,
    settings: Arc<TransportSettings>,
    lookups: DnsLookups,
    peers: Arc<PeerTable>,
}

type PeerTable = RwLock<FairCache<TenantId, PeerKey, Arc<HttpsPeer>>>;

/// What keeps one origin and identity from taking more than its share. Streams of a connection are a share
/// too, which is why it has connections of its own.
struct HttpsPeer {
    key: PeerKey,
    tenant: TenantId,
    client: HttpsClient,
    permits: Semaphore,
    most: usize,
    waiting: AtomicUsize,
    fate: Mutex<PeerHealth>,
}

struct PeerHealth {
    breaker: CircuitBreaker,
    /// A probe is in flight that decides whether the peer is back.
    probing: bool,
    last_failure: Option<DialError>,
    used_at: Instant,
}

impl HttpsPeers {
    pub fn new(tls: Arc<TlsConfigs>, settings: Arc<TransportSettings>, lookups: DnsLookups) -> Self {
        let peers = Arc::new(RwLock::new(FairCache::new(settings.max_peers)));
        tokio::spawn(forget_idle(Arc::downgrade(&peers), settings.https_idle_timeout));
        HttpsPeers { tls, settings, lookups, peers }
    }

    pub async fn send(&self, key: &PeerKey, request: &Request) -> Result<Response, SendError> {
        if key.guarded && request.origin.address().is_some_and(|address| !guard::may_be_dialled(address)) {
            return Err(SendError::not_sent(FailureCause::ForbiddenAddress, request.origin.to_string()));
        }
        let peer = self.peer(key, request)?;
        let asked = Instant::now();
        let _permit = peer.enter(request.deadline, self.settings.max_waiting).await?;
        let waited = asked.elapsed();
        let mut attempt = 1;
        loop {
            let trial = peer.trial()?;
            let result = exchange(&peer.client, request, self.settings.max_response).await;
            trial.end(&result);
            match result {
                Err(error) if error.may_resend(attempt, request.deadline) => {
                    error.pause(attempt, request.deadline).await;
                }
                result => return result.map(|response| Response { waited, ..response }),
            }
            attempt += 1;
        }
    }

    pub fn snapshot(&self) -> Vec<ConnectionStats> {
        let now = Instant::now();
        let of = |peer: &Arc<HttpsPeer>| {
            ConnectionStats::new(&peer.tenant, &peer.key, Protocol::Https, peer.load(now))
        };
        self.all().iter().map(of).collect()
    }

    /// Forgets an identity; its connections close when its last request has ended.
    pub fn retire(&self, identity: &IdentityKey) {
        self.peers.write().retain(|key, _| key.identity != *identity);
    }

    /// Waits until no request is in flight, at most `within`.
    pub async fn drain(&self, within: Duration) {
        let peers = self.all();
        let all = async {
            for peer in &peers {
                let most = u32::try_from(peer.most).unwrap_or(u32::MAX);
                drop(peer.permits.acquire_many(most).await);
            }
        };
        // What is still in flight after that is left to its own deadline.
        let _ = timeout(within, all).await;
        peers.iter().for_each(|peer| peer.permits.close());
    }

    fn peer(&self, key: &PeerKey, request: &Request) -> Result<Arc<HttpsPeer>, SendError> {
        let tenant = &request.tenant;
        {
            let peers = self.peers.read();
            if let Some(peer) = peers.get_owned(tenant, key) {
                return Ok(peer.clone());
            }
        }
        // Made before the lock is taken, since that takes a while; it is dropped if another one was faster.
        let client = self.client(key, request)?;
        let mut peers = self.peers.write();
        let make = || Arc::new(HttpsPeer::new(key.clone(), tenant.clone(), client, &self.settings));
        let found = peers.get_or_insert_with(tenant, key, 1, |peer| !peer.is_busy(), make);
        let (peer, _evicted) = found.map_err(|_| SendError::too_many_peers(&request.origin))?;
        Ok(peer)
    }

    fn client(&self, key: &PeerKey, request: &Request) -> Result<HttpsClient, SendError> {
        let (lookups, tenant, guarded) = (self.lookups.clone(), request.tenant.clone(), key.guarded);
        let resolver = HostResolver { lookups, tenant, guarded };
        client(&self.tls, &self.settings, key, &request.identity, resolver)
            .map_err(|error| SendError::not_sent(FailureCause::Tls, error))
    }

    fn all(&self) -> Vec<Arc<HttpsPeer>> {
        self.peers.read().values().cloned().collect()
    }
}

/// Forgets peers without requests, for as long as there is a transport. A client takes some kilobytes, and a tenant
/// that sent to thousands of origins may never send again.
async fn forget_idle(peers: Weak<PeerTable>, after: Duration) {
    loop {
        tokio::time::sleep(after / 6).await;
        let Some(peers) = peers.upgrade() else { return };
        let now = Instant::now();
        let is_used = |peer: &HttpsPeer| peer.is_busy() || peer.fate().used_at + after > now;
        peers.write().retain(|_, peer| is_used(peer));
    }
}

impl HttpsPeer {
    fn new(key: PeerKey, tenant: TenantId, client: HttpsClient, settings: &TransportSettings) -> Self {
        let backoff = BackoffPolicy {
            threshold: settings.breaker_failures,
            base: settings.backoff_base,
            max: settings.backoff_max,
        };
        let breaker = CircuitBreaker::new(backoff);
        let fate = PeerHealth { breaker, probing: false, last_failure: None, used_at: Instant::now() };
        let most = settings.max_requests.clamp(1, Semaphore::MAX_PERMITS);
        let (permits, waiting, fate) = (Semaphore::new(most), AtomicUsize::new(0), Mutex::new(fate));
        HttpsPeer { key, tenant, client, permits, most, waiting, fate }
    }

    /// Waits for this request's turn.
    async fn enter(
        &self,
        deadline: tokio::time::Instant,
        max_waiting: usize,
    ) -> Result<SemaphorePermit<'_>, SendError> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let place = QueuePlace::take(&self.waiting);
        if place.before >= max_waiting {
            let error = SendError::not_sent(FailureCause::Overloaded, "the wait queue is full");
            return Err(error.retry_after(Duration::from_secs(1)));
        }
        match timeout_at(deadline, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is closed when the transport has been drained.
            Ok(Err(_)) => Err(SendError::not_sent(FailureCause::ShuttingDown, "")),
            Err(_) => Err(SendError::not_sent(FailureCause::Deadline, "its turn did not come")),
        }
    }

    /// Asks the breaker; after a pause one request at a time passes.
    fn trial(&self) -> Result<RequestTrial<'_>, SendError> {
        let now = Instant::now();
        let mut fate = self.fate();
        fate.used_at = now;
        let pause = match fate.breaker.state(now) {
            BreakerState::Open(pause) => Some(pause),
            BreakerState::HalfOpen if fate.probing => Some(fate.breaker.probe_time()),
            BreakerState::HalfOpen => {
                fate.probing = true;
                return Ok(RequestTrial { peer: self, is_probe: true });
            }
            BreakerState::Closed => None,
        };
        match pause {
            Some(pause) => {
                let error = SendError::not_sent(FailureCause::PeerDown, "the last connects failed")
                    .retry_after(pause);
                Err(error.behind(fate.last_failure.clone()))
            }
            None => Ok(RequestTrial { peer: self, is_probe: false }),
        }
    }

    fn load(&self, now: Instant) -> PeerLoad {
        PeerLoad {
            connections: 0,
            streams: self.most - self.permits.available_permits(),
            waiting: self.waiting.load(Ordering::Relaxed),
            breaker: self.fate().breaker.state(now),
        }
    }

    fn is_busy(&self) -> bool {
        self.permits.available_permits() < self.most
    }

    fn fate(&self) -> MutexGuard<'_, PeerHealth> {
        self.fate.lock()
    }
}

/// A request in the queue.
struct QueuePlace<'a> {
    waiting: &'a AtomicUsize,
    before: usize,
}

impl<'a> QueuePlace<'a> {
    fn take(waiting: &'a AtomicUsize) -> Self {
        QueuePlace { waiting, before: waiting.fetch_add(1, Ordering::AcqRel) }
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request that the circuit breaker let pass.
struct RequestTrial<'a> {
    peer: &'a HttpsPeer,
    is_probe: bool,
}

impl RequestTrial<'_> {
    /// Notes whether the peer could be reached, if the request tells.
    fn end<T>(self, result: &Result<T, SendError>) {
        let mut fate = self.peer.fate();
        if result.is_ok() {
            fate.breaker.succeeded();
        } else if let Err(SendError { cause, detail, .. }) = result
            && cause.is_failed_connect()
        {
            fate.breaker.failed(Instant::now(), jitter());
            fate.last_failure = Some(DialError::new(cause.clone(), detail));
        }
    }
}

impl Drop for RequestTrial<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.peer.fate().probing = false;
        }
    }
}

fn client(
    tls: &TlsConfigs,
    settings: &TransportSettings,
    key: &PeerKey,
    identity: &ClientIdentity,
    resolver: HostResolver,
) -> Result<HttpsClient, String> {
    let tls = Arc::new(tls.config(identity, ALPN).map_err(|error| error.to_string())?);
    let connector = TlsConnector::new(key.origin.clone(), tls, resolver, settings.connect_timeout);
    let mut client = legacy::Client::builder(TokioExecutor::new());
    client
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(settings.https_idle_timeout)
        .http2_max_header_list_size(MAX_HEADER_LIST)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(settings.ping_timeout);
    Ok(client.build(connector))
}

async fn exchange(client: &HttpsClient, request: &Request, most: usize) -> Result<Response, SendError> {
    let (body, handover) = HandoverBody::new(request.body.clone());
    let result = match timeout_at(request.deadline, respond(client, request, body, most)).await {
        Ok(result) => result,
        Err(_) => Err(SendError::unknown(FailureCause::Deadline, "no answer came in time")),
    };
    result.map_err(|error| match handover.revoke() {
        true => SendError { delivery: RequestState::NotSent, ..error },
        false => error,
    })
}

async fn respond(
    client: &HttpsClient,
    request: &Request,
    body: HandoverBody,
    most: usize,
) -> Result<Response, SendError> {
    let invalid = |error: http::Error| SendError::not_sent(FailureCause::InvalidRequest, error.to_string());
    let url = format!("{}{}", request.origin, request.path);
    let url = Uri::try_from(url).map_err(|error| invalid(error.into()))?;
    let mut sent = http::Request::new(body);
    *sent.method_mut() = request.method.clone();
    *sent.uri_mut() = url;
    *sent.headers_mut() = request.all_headers();
    let too_many = limit_informational(&mut sent);
    let response = tokio::select! {
        biased;
        // The connection ends with the request that is given up here.
        () = too_many.notified() => {
            return Err(SendError::unknown(FailureCause::Protocol, "too many informational answers"));
        }
        response = client.request(sent) => response.map_err(|error| fate(&error))?,
    };
    let (head, mut incoming) = response.into_parts();
    let (status, headers) = (head.status.as_u16(), head.headers);
    let mut body = AnswerBody::new(most, request.payer.as_ref());
    while let Some(frame) = incoming.frame().await {
        let Ok(piece) = frame.map_err(|error| fate(&error))?.into_data() else { continue };
        body.push(&piece)
            .map_err(|cause| SendError::unknown(cause, format!("at most {most} bytes are read")))?;
    }
    let (body, reserved) = body.finish();
    let (waited, connection) = (Duration::ZERO, ConnectionHandle(None));
    Ok(Response { status, headers, body, reserved, waited, connection })
}

/// A request that found no connection, or that the peer says it did not process, was not sent; of any other
/// one nothing is known here.
fn fate(error: &(dyn Error + 'static)) -> SendError {
    let detail = chain(error).map(|error| error.to_string()).collect::<Vec<_>>().join(": ");
    if let Some(error) = find::<DialError>(error) {
        return SendError::not_sent(error.cause.clone(), error.detail.clone());
    }
    if find::<legacy::Error>(error).is_some_and(legacy::Error::is_connect) {
        return SendError::not_sent(FailureCause::Connect, detail);
    }
    if let Some(error) = find::<h2::Error>(error).filter(|error| error.is_remote()) {
        match error.reason() {
            Some(Reason::REFUSED_STREAM) if error.is_reset() => {
                return SendError::not_sent(FailureCause::Refused, detail);
            }
            // h2 tells it of the streams above the last one that the peer looked at.
            Some(Reason::NO_ERROR) if error.is_go_away() => {
                return SendError::not_sent(FailureCause::GoAway { code: 0, reason: None }, detail);
            }
            _ => {}
        }
    }
    SendError::unknown(FailureCause::ConnectionLost, detail)
}

/// An error and all that caused it, with what `io::Error` hides inside.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}
