//! One HTTP/2 connection and the task that drives it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use rustls::AlertDescription;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;
use tokio_rustls::client::TlsStream;

use super::observer::{Observed, Record};
use super::pool::Pool;
use super::state::ConnectionId;
use crate::dial::DialError;
use crate::error::Cause;

/// Bytes of a response's headers, as HPACK counts them.
const MAX_HEADER_LIST: u32 = 16 * 1024;

pub const CERTIFICATE_REFUSED: &str = "the server refused the client certificate";

type Driver = h2::client::Connection<Observed<TlsStream<TcpStream>>, Bytes>;

const PROBE: u8 = 1;
const FINISH: u8 = 2;
const KILL: u8 = 4;

/// What users of a connection hold.
pub struct Connection {
    pub id: ConnectionId,
    pub record: Arc<Record>,
    /// Gone once the connection is retired: h2 closes it when the last stream ends.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    orders: AtomicU8,
    ordered: Notify,
    /// Becomes true when the driver has ended: nothing more is read or written.
    ended: watch::Sender<bool>,
}

impl Connection {
    /// A handle that opens streams, unless the connection is retired.
    pub fn sender(&self) -> Option<SendRequest<Bytes>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn retire(&self) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(sender);
    }

    /// Send a PING now and close the connection if it is not answered.
    pub fn probe(&self) {
        self.order(PROBE);
    }

    /// No stream is left: give the orderly close its time, then cut.
    pub fn finish(&self) {
        self.order(FINISH);
    }

    /// Cut the connection now.
    pub fn kill(&self) {
        self.order(KILL);
    }

    /// Waits until nothing more is read or written.
    pub async fn ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Why the peer ended the connection, if it said so.
    pub fn failure(&self) -> Option<DialError> {
        if refuses_certificate(&self.record) {
            return Some(DialError::new(Cause::Tls, CERTIFICATE_REFUSED));
        }
        self.record.goaway().map(|goaway| DialError::new(goaway.cause(), ""))
    }

    fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::AcqRel);
        self.ordered.notify_one();
    }
}

/// Starts HTTP/2 on a TLS connection. The driver must be polled for anything to happen.
pub async fn start(
    id: ConnectionId,
    stream: TlsStream<TcpStream>,
) -> Result<(Arc<Connection>, Driver), h2::Error> {
    let record = Arc::new(Record::new());
    let (sender, driver) = h2::client::Builder::new()
        .initial_max_send_streams(1)
        .enable_push(false)
        .max_header_list_size(MAX_HEADER_LIST)
        .handshake(Observed::new(stream, record.clone()))
        .await?;
    let (sender, orders, ordered) = (Mutex::new(Some(sender)), AtomicU8::new(0), Notify::new());
    let ended = watch::Sender::new(false);
    Ok((Arc::new(Connection { id, record, sender, orders, ordered, ended }), driver))
}

/// Runs the connection to its end and keeps the pool informed.
pub async fn drive(pool: Arc<Pool>, connection: Arc<Connection>, driver: Driver) {
    let mut run = Run::new(&pool, &connection, driver);
    run.until_end().await;
    drop(run);
    connection.ended.send_replace(true);
    pool.closed(&connection);
}

/// Whether the peer ended the handshake because of our certificate. In TLS 1.3 we hear of it only after we
/// have written; as long as the peer has said nothing in HTTP/2, it has read nothing either.
pub fn refuses_certificate(record: &Record) -> bool {
    use AlertDescription as Alert;
    let about_certificate = |alert: Alert| {
        matches!(
            alert,
            Alert::NoCertificate
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::CertificateRequired
                | Alert::DecryptError
                | Alert::HandshakeFailure
        )
    };
    let refused = |error| matches!(error, rustls::Error::AlertReceived(alert) if about_certificate(alert));
    !record.heard_anything() && record.tls_error().is_some_and(refused)
}

struct Run<'a> {
    pool: &'a Arc<Pool>,
    connection: &'a Connection,
    driver: Driver,
    ping: Option<PingPong>,
    limit: usize,
    /// When the outstanding PING must have been answered.
    pong_by: Option<Instant>,
    finish_by: Option<Instant>,
}

impl<'a> Run<'a> {
    fn new(pool: &'a Arc<Pool>, connection: &'a Connection, mut driver: Driver) -> Self {
        let ping = driver.ping_pong();
        Run { pool, connection, driver, ping, limit: 1, pong_by: None, finish_by: None }
    }

    async fn until_end(&mut self) {
        loop {
            let due = self.due().into();
            let connection = self.connection;
            tokio::select! {
                biased;
                () = poll_fn(|cx| self.poll(cx)) => return,
                () = connection.ordered.notified() => if self.obey() { return },
                () = sleep_until(due) => if self.is_dead() { return },
            }
        }
    }

    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = Pin::new(&mut self.driver).poll(cx);
        if self.connection.record.goaway_came() {
            self.pool.retire(self.connection.id);
        }
        let limit = self.driver.max_concurrent_send_streams();
        if limit != self.limit {
            self.limit = limit;
            self.pool.limit(self.connection.id, limit);
        }
        if self.pong_by.is_some()
            && let Some(Poll::Ready(Ok(_))) = self.ping.as_mut().map(|ping| ping.poll_pong(cx))
        {
            self.pong_by = None;
            self.pool.trust(self.connection.id);
        }
        match end {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                tracing::debug!(origin = %self.pool.key().origin, %error, "connection ended");
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// True if the connection must be cut.
    fn obey(&mut self) -> bool {
        let orders = self.connection.orders.swap(0, Ordering::AcqRel);
        if orders & PROBE != 0 {
            self.send_ping();
        }
        if orders & FINISH != 0 {
            self.finish_by = Some(Instant::now() + self.pool.settings().ping_timeout);
        }
        orders & KILL != 0
    }

    fn send_ping(&mut self) {
        if self.pong_by.is_some() {
            return;
        }
        self.pong_by = Some(Instant::now() + self.pool.settings().ping_timeout);
        if let Some(Err(error)) = self.ping.as_mut().map(|ping| ping.send_ping(Ping::opaque())) {
            tracing::debug!(%error, "no PING can be sent");
        }
    }

    /// When [`Run::is_dead`] must be asked again.
    fn due(&self) -> Instant {
        let test = self.connection.record.heard_at() + self.pool.settings().ping_after;
        let due = self.pong_by.unwrap_or(test);
        self.finish_by.map_or(due, |by| due.min(by))
    }

    fn is_dead(&mut self) -> bool {
        let now = Instant::now();
        if self.finish_by.is_some_and(|by| by <= now) || self.pong_by.is_some_and(|by| by <= now) {
            return true;
        }
        if self.connection.record.heard_at() + self.pool.settings().ping_after <= now {
            self.send_ping();
        }
        false
    }
}
