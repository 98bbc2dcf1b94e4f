//! Requests in flight: how many there may be, the memory that each reserves, work that outlives its caller, and
//! responses that are still being written.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use hyper::body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::response;
use pushlet_gateway::tenants::RequestPermit;
use pushlet_model::error::{Error, Kind};
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};

/// Routes that work when no permit is left: without them an operator cannot see that none is left.
const RESERVED_ROUTES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Permits for these routes, in addition to all others.
const RESERVED_PERMITS: usize = 8;

/// Counts the requests in flight and hands out the permits for them. Cheap to clone.
#[derive(Clone)]
pub struct InFlightRequests {
    count: Arc<RequestCount>,
    closing: Arc<watch::Sender<bool>>,
    leaving: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    max: usize,
}

/// Counted up and down for each push, by all threads, so it is no more than an atomic number.
#[derive(Default)]
struct RequestCount {
    count: AtomicUsize,
    /// Tells that it has fallen to 0.
    none_left: Notify,
}

/// Counts one connection of a caller until it is dropped.
pub struct ConnectionGuard(Arc<AtomicUsize>);

/// The permit of one request. It is returned when the last clone is dropped.
#[derive(Clone)]
pub struct InFlightPermit(Arc<PermitState>);

struct PermitState {
    in_flight: InFlightRequests,
    /// The permit among the tenant's own requests; None: it is the operator's request, or a health check.
    tenant: Option<RequestPermit>,
    reserved: Mutex<ReservedMemory>,
}

/// Memory that the request has reserved.
#[derive(Default)]
struct ReservedMemory {
    body: Option<MemoryReservation>,
    parsed: Option<MemoryReservation>,
}

/// Why the server refuses a request; the listener puts this into the request's extensions.
#[derive(Clone, Copy)]
pub enum Refusal {
    ShuttingDown,
    TooManyConnections,
    TooManyFromThisAddress,
    /// HTTP/1.1 without a `Host`, or a request with more than one.
    InvalidHost,
}

impl InFlightRequests {
    pub fn at_most(max: usize) -> Self {
        Self {
            count: Arc::default(),
            closing: Arc::new(watch::Sender::new(false)),
            leaving: Arc::default(),
            connections: Arc::default(),
            max,
        }
    }

    /// Takes a permit. `tenant`: the permit among the tenant's own requests.
    pub fn begin(&self, tenant: Option<RequestPermit>) -> Result<InFlightPermit, Error> {
        self.begin_within(self.max, tenant)
    }

    /// Takes a permit for a route that must work when all other permits are taken.
    pub fn begin_reserved(&self) -> Result<InFlightPermit, Error> {
        self.begin_within(self.max.saturating_add(RESERVED_PERMITS), None)
    }

    fn begin_within(&self, max: usize, tenant: Option<RequestPermit>) -> Result<InFlightPermit, Error> {
        let more = |count| (count < max).then_some(count + 1);
        if self.count.count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_err() {
            let message = "this server has too many requests, try again later";
            return Err(Error::new(Kind::Overloaded, "too_many_requests", message));
        }
        let state = PermitState { in_flight: self.clone(), tenant, reserved: Mutex::default() };
        Ok(InFlightPermit(Arc::new(state)))
    }

    /// The server will stop: it is not ready any more.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Asks requests without an end of their own, such as streams, to end.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits until no request is in flight.
    pub async fn ended(&self) {
        loop {
            // Before the look, so that a request that ends after it is not missed.
            let none_left = self.count.none_left.notified();
            if self.count() == 0 {
                return;
            }
            none_left.await;
        }
    }

    /// Counts a connection.
    pub fn connected(&self) -> ConnectionGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(self.connections.clone())
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn count(&self) -> usize {
        self.count.count.load(Ordering::Acquire)
    }
}

impl InFlightPermit {
    /// Returns the account of the tenant whose request it is; None: it is the operator's.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.0.tenant.as_ref().map(RequestPermit::account)
    }

    /// Raises the memory that is reserved for the request's body, or for what it was parsed to, to `bytes`. The
    /// reservation ends with the permit.
    pub fn reserve(&self, of: MemoryUse, bytes: usize) -> Result<(), Error> {
        let Some(account) = self.account() else { return Ok(()) };
        let mut reserved = self.0.reserved.lock();
        let slot = match of {
            MemoryUse::RequestBodies => &mut reserved.body,
            _ => &mut reserved.parsed,
        };
        let reservation = slot.get_or_insert_with(|| account.reserve_nothing(of));
        reservation.grow(bytes.saturating_sub(reservation.bytes()))
    }

    /// Returns whether the server is stopping.
    pub fn is_closing(&self) -> bool {
        *self.0.in_flight.closing.borrow()
    }

    /// Waits until the server is stopping.
    pub async fn closing(&self) {
        // Fails only when the sender is dropped, and `self` holds it.
        let _ = self.0.in_flight.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for PermitState {
    fn drop(&mut self) {
        let RequestCount { count, none_left } = &*self.in_flight.count;
        if count.fetch_sub(1, Ordering::AcqRel) == 1 {
            none_left.notify_waiters();
        }
    }
}

/// Returns whether the route has permits of its own.
pub(super) fn is_reserved(path: &str) -> bool {
    RESERVED_ROUTES.contains(&path)
}

/// Returns the response to a request that holds a [`Refusal`].
pub fn refused(request: &Request) -> Option<Response> {
    let (kind, code, message) = match request.extensions().get()? {
        Refusal::ShuttingDown => (Kind::Overloaded, "shutting_down", "this server is stopping, try another"),
        Refusal::InvalidHost => {
            (Kind::Invalid, "invalid_host", "a request needs one Host header, and must not have more")
        }
        // Health checks of an overloaded server must still see that it is alive.
        _ if is_reserved(request.uri().path()) => return None,
        Refusal::TooManyConnections => (
            Kind::Overloaded,
            "too_many_connections",
            "this server has too many connections, try again later",
        ),
        Refusal::TooManyFromThisAddress => (
            Kind::Overloaded,
            "too_many_connections",
            "this server has too many connections from your address, see limits.connections_per_address",
        ),
    };
    Some(response::error(Error::new(kind, code, message)))
}

/// Runs `work` to its end even if the caller goes away: it is polled in place while the caller waits, and moves to a
/// task of its own when this future is dropped. A caller that waits, as nearly all do, does not pay for a task.
pub fn detached<T, F>(permit: InFlightPermit, work: F) -> impl Future<Output = T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    Detached(Some((Box::pin(work), permit)))
}

/// None: it ended, or it panicked. The permit stands beside the work: a future of both would have room for the work twice.
struct Detached<T: Send + 'static>(Option<(BoxFuture<'static, T>, InFlightPermit)>);

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out for the poll: after a panic, nothing is left that `drop` could spawn.
        let Some((mut work, permit)) = self.0.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some((work, permit));
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the work ends with it.
        if let (Some((work, permit)), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                let _permit = permit;
                work.await
            });
        }
    }
}

/// Keeps `kept` until the response's body has been written or is dropped.
pub fn until_written<T: Send + Unpin + 'static>(response: Response, kept: T) -> Response {
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|body| Body::new(HoldingBody { body, kept: Some(kept) }))
}

struct HoldingBody<T> {
    body: Body,
    kept: Option<T>,
}

impl<T: Unpin> hyper::body::Body for HoldingBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // Not with the last piece, which is still being written: hyper drops the body after that.
        if frame.is_none() {
            self.kept = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "in_flight_tests.rs"]
mod tests;
