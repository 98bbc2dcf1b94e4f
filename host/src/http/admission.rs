//! Which requests are taken on: not more at a time than there are places, and none that the server
//! turns away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::watch;

use crate::error::{Error, Kind};
use crate::tenants::RequestPlace;

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
    _tenants: Option<Arc<RequestPlace>>,
}

/// Why the server turns a request away; it puts this into the request's extensions.
#[derive(Clone, Copy)]
pub enum Refusal {
    ShuttingDown,
    TooManyConnections,
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

    /// None: all places are taken. `tenants`: the place among the tenant's own requests, if there is one.
    pub fn begin(&self, tenants: Option<Arc<RequestPlace>>) -> Option<Place> {
        let free = self.count.send_if_modified(|count| {
            let free = *count < self.most;
            *count += usize::from(free);
            free
        });
        free.then(|| Place(Arc::new(Occupied { under_way: self.clone(), _tenants: tenants })))
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

/// Gives the request its [`Place`], or answers 503.
pub async fn admit(State(under_way): State<UnderWay>, mut request: Request, next: Next) -> Response {
    let tenants = request.extensions_mut().remove();
    let Some(place) = under_way.begin(tenants) else {
        let message = "this server has too many requests, try again later";
        return Error::new(Kind::Overloaded, "too_many_requests", message).into_response();
    };
    request.extensions_mut().insert(place.clone());
    let response = next.run(request).await;
    drop(place);
    response
}

/// Answers 503 to a request that holds a [`Refusal`].
pub async fn turn_away(request: Request, next: Next) -> Response {
    let (code, message) = match request.extensions().get::<Refusal>() {
        None => return next.run(request).await,
        Some(Refusal::ShuttingDown) => ("shutting_down", "this server is stopping, try another"),
        Some(Refusal::TooManyConnections) => {
            ("too_many_connections", "this server has too many connections, try again later")
        }
    };
    Error::new(Kind::Overloaded, code, message).into_response()
}
