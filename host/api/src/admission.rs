//! Which requests are taken on: not more at a time than there are places, and none that the server
//! turns away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::response::Response;
use tokio::sync::watch;

use pushlet_gateway::tenants::RequestPermit;
use pushlet_model::error::{Error, Kind};
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};

/// Routes that answer when all places are taken: without them nobody sees that they are.
const KEPT_FREE: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Requests for these, beside all others.
const PLACES_KEPT_FREE: usize = 8;

/// How many requests are under way, of those that may be. Cheap to clone.
#[derive(Clone)]
pub struct UnderWay {
    count: Arc<watch::Sender<usize>>,
    closing: Arc<watch::Sender<bool>>,
    connections: Arc<AtomicUsize>,
    most: usize,
}

/// One caller's connection, for as long as this lives.
pub struct Connected(Arc<AtomicUsize>);

/// The place of one request. It is free again when the last clone is dropped.
#[derive(Clone)]
pub struct Place(Arc<Occupied>);

struct Occupied {
    under_way: UnderWay,
    /// The place among the tenant's own requests, which is free again when this one is.
    tenants: Option<RequestPermit>,
    held: Mutex<Held>,
}

/// Memory that the request has reserved.
#[derive(Default)]
struct Held {
    body: Option<MemoryReservation>,
    parsed: Option<MemoryReservation>,
}

/// Why the server turns a request away; it puts this into the request's extensions.
#[derive(Clone, Copy)]
pub enum Refusal {
    ShuttingDown,
    TooManyConnections,
    TooManyFromThisAddress,
    /// HTTP/1.1 without a `Host`, or a request with more than one.
    InvalidHost,
}

impl UnderWay {
    pub fn at_most(most: usize) -> Self {
        Self {
            count: Arc::new(watch::Sender::new(0)),
            closing: Arc::new(watch::Sender::new(false)),
            connections: Arc::default(),
            most,
        }
    }

    /// A place, unless all are taken. `tenants`: the place among the tenant's own requests, if it is a tenant's.
    pub fn begin(&self, tenants: Option<RequestPermit>) -> Result<Place, Error> {
        self.begin_within(self.most, tenants)
    }

    /// The same for routes that must answer when all other places are taken.
    pub fn begin_kept_free(&self) -> Result<Place, Error> {
        self.begin_within(self.most.saturating_add(PLACES_KEPT_FREE), None)
    }

    fn begin_within(&self, most: usize, tenants: Option<RequestPermit>) -> Result<Place, Error> {
        let free = self.count.send_if_modified(|count| {
            let free = *count < most;
            *count += usize::from(free);
            free
        });
        if !free {
            let message = "this server has too many requests, try again later";
            return Err(Error::new(Kind::Overloaded, "too_many_requests", message));
        }
        Ok(Place(Arc::new(Occupied { under_way: self.clone(), tenants, held: Mutex::default() })))
    }

    /// Tells what runs without an end of its own that it must come to one.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits until nothing is under way.
    pub async fn ended(&self) {
        // Fails only when the sender is gone, and we hold it.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Counts a connection.
    pub fn connected(&self) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self.connections.clone())
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn count(&self) -> usize {
        *self.count.borrow()
    }
}

impl Place {
    /// The account of the tenant whose request it is; None: it is the operator's.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.0.tenants.as_ref().map(RequestPermit::account)
    }

    /// Sees to it that at least so many bytes are reserved for the request's body, or for what it was parsed to,
    /// until the place is free again.
    pub fn reserve(&self, of: MemoryUse, bytes: usize) -> Result<(), Error> {
        let Some(account) = self.account() else { return Ok(()) };
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match of {
            MemoryUse::RequestBodies => &mut held.body,
            _ => &mut held.parsed,
        };
        let reservation = slot.get_or_insert_with(|| account.reserve_nothing(of));
        reservation.grow(bytes.saturating_sub(reservation.bytes()))
    }

    /// Does the server want to stop?
    pub fn is_closing(&self) -> bool {
        *self.0.under_way.closing.borrow()
    }

    /// Waits until the server wants to stop.
    pub async fn closing(&self) {
        // Fails only when the sender is gone, and we hold it.
        let _ = self.0.under_way.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.under_way.count.send_modify(|count| *count -= 1);
    }
}

/// Is this one of the routes that answer when all places are taken?
pub(super) fn is_kept_free_for(path: &str) -> bool {
    KEPT_FREE.contains(&path)
}

/// What a request that holds a [`Refusal`] is answered.
pub fn refused(request: &Request) -> Option<Response> {
    let (kind, code, message) = match request.extensions().get()? {
        Refusal::ShuttingDown => (Kind::Overloaded, "shutting_down", "this server is stopping, try another"),
        Refusal::InvalidHost => {
            (Kind::Invalid, "invalid_host", "a request needs one Host header, and must not have more")
        }
        _ if is_kept_free_for(request.uri().path()) => return None,
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
    Some(crate::response::error(Error::new(kind, code, message)))
}
