//! Which connections were accepted, which are open, and who is at the other end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::Environment;

/// This many connections are listed one by one; the oldest are dropped from the list, not from the counts.
const MAX_LISTED: usize = 1000;

/// A listener of the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    /// The APNs listener.
    Apns,
    /// The listener for all services but APNs.
    Google,
}

/// The certificate that a client presented.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate's DER, lower-case hex.
    pub sha256: String,
    /// The subject, as one line.
    pub subject: String,
}

/// Counts of one listener since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionCounts {
    /// Connections whose TLS handshake succeeded.
    pub accepted: u64,
    /// Those of them that are open now.
    pub open: u64,
    /// Connections whose TLS handshake failed.
    pub refused: u64,
}

/// One connection.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionInfo {
    /// Counts from 1 over all listeners since the start.
    pub number: u64,
    /// Where it was accepted.
    pub listener: Listener,
    /// The certificate that the client presented.
    #[serde(serialize_with = "shared_certificate")]
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// Whether it is open now.
    pub open: bool,
    /// Requests that came on it.
    pub requests: u64,
    /// APNs: streams that were refused because the client opened more than it was allowed to.
    pub refused_streams: u64,
}

/// All connections.
#[derive(Debug, Clone, Serialize)]
pub struct Connections {
    /// Counts of the APNs listener.
    pub apns: ConnectionCounts,
    /// Counts of the listener for all services but APNs.
    pub google: ConnectionCounts,
    /// The newest connections, oldest first, at most 1,000.
    pub list: Vec<ConnectionInfo>,
}

/// The live state of one connection.
pub(crate) struct Connection {
    pub number: u64,
    listener: Listener,
    /// Apple's environment that it was made to.
    pub environment: Option<Environment>,
    pub client_certificate: Option<Arc<ClientCertificate>>,
    open: AtomicBool,
    pub requests: AtomicU64,
    pub refused_streams: AtomicU64,
}

#[derive(Default)]
struct Counter {
    accepted: AtomicU64,
    open: AtomicU64,
    refused: AtomicU64,
}

/// The register of connections.
#[derive(Default)]
pub(crate) struct ConnectionLog {
    numbers: AtomicU64,
    apns: Counter,
    google: Counter,
    list: Mutex<VecDeque<Arc<Connection>>>,
}

/// Marks its connection closed when it is dropped.
pub(crate) struct OpenConnection {
    pub connection: Arc<Connection>,
    log: Arc<ConnectionLog>,
}

impl ConnectionLog {
    pub fn open(
        self: &Arc<Self>,
        listener: Listener,
        environment: Option<Environment>,
        certificate: Option<ClientCertificate>,
    ) -> OpenConnection {
        let connection = Arc::new(Connection {
            number: self.numbers.fetch_add(1, Ordering::Relaxed) + 1,
            listener,
            environment,
            client_certificate: certificate.map(Arc::new),
            open: AtomicBool::new(true),
            requests: AtomicU64::new(0),
            refused_streams: AtomicU64::new(0),
        });
        let counter = self.counter(listener);
        counter.accepted.fetch_add(1, Ordering::Relaxed);
        counter.open.fetch_add(1, Ordering::Relaxed);
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push_back(connection.clone());
        if list.len() > MAX_LISTED {
            list.pop_front();
        }
        OpenConnection { connection, log: self.clone() }
    }

    pub fn refused(&self, listener: Listener) {
        self.counter(listener).refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> Connections {
        let counts = |counter: &Counter| ConnectionCounts {
            accepted: counter.accepted.load(Ordering::Relaxed),
            open: counter.open.load(Ordering::Relaxed),
            refused: counter.refused.load(Ordering::Relaxed),
        };
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        Connections {
            apns: counts(&self.apns),
            google: counts(&self.google),
            list: list.iter().map(|connection| connection.info()).collect(),
        }
    }

    fn counter(&self, listener: Listener) -> &Counter {
        match listener {
            Listener::Apns => &self.apns,
            Listener::Google => &self.google,
        }
    }
}

/// serde wants a feature to see through an `Arc`.
pub(crate) fn shared_certificate<S: serde::Serializer>(
    certificate: &Option<Arc<ClientCertificate>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    certificate.as_deref().serialize(serializer)
}

impl Connection {
    fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            number: self.number,
            listener: self.listener,
            client_certificate: self.client_certificate.clone(),
            open: self.open.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            refused_streams: self.refused_streams.load(Ordering::Relaxed),
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connection.open.store(false, Ordering::Relaxed);
        self.log.counter(self.connection.listener).open.fetch_sub(1, Ordering::Relaxed);
    }
}
