//! One HTTP/2 connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use parking_lot::Mutex;
use rustls::AlertDescription;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::client::TlsStream;

use super::heads::{HeadStream, PendingHeads};
use super::state::ConnectionId;
use crate::error::{DialError, FailureCause};
use crate::frames::{ConnectionRecord, ObservedStream};
use crate::request::Origin;

/// Bytes of a response's headers, as HPACK counts them.
const MAX_HEADER_LIST: u32 = 16 * 1024;

pub const CERTIFICATE_REFUSED: &str = "the server refused the client certificate";

pub(super) type ConnectionDriver =
    h2::client::Connection<HeadStream<ObservedStream<TlsStream<TcpStream>>>, Bytes>;

pub(super) const PROBE: u8 = 1;
pub(super) const FINISH: u8 = 2;
pub(super) const KILL: u8 = 4;

/// What users of a connection hold.
pub struct Http2Connection {
    pub id: ConnectionId,
    pub record: Arc<ConnectionRecord>,
    pub heads: Arc<PendingHeads>,
    /// Gone once the connection is retired: h2 closes it when the last stream ends.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    pub(super) orders: AtomicU8,
    pub(super) ordered: Notify,
    /// Becomes true when the driver has ended: nothing more is read or written.
    pub(super) ended: watch::Sender<bool>,
}

impl Http2Connection {
    /// Returns a handle that opens streams, unless the connection is retired.
    pub fn sender(&self) -> Option<SendRequest<Bytes>> {
        self.sender.lock().clone()
    }

    pub fn retire(&self) {
        let sender = self.sender.lock().take();
        drop(sender);
    }

    /// Sends a PING now, and closes the connection if it is not answered.
    pub fn probe(&self) {
        self.order(PROBE);
    }

    /// Closes a connection without streams in order, then cuts it after a time-out.
    pub fn finish(&self) {
        self.order(FINISH);
    }

    /// Cuts the connection now.
    pub fn kill(&self) {
        self.order(KILL);
    }

    /// Waits until nothing more is read or written.
    pub async fn ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Returns why the peer ended the connection, if it said so.
    pub fn failure(&self) -> Option<DialError> {
        if refuses_certificate(&self.record) {
            return Some(DialError::new(FailureCause::Tls, CERTIFICATE_REFUSED));
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
    origin: &Origin,
    stream: TlsStream<TcpStream>,
) -> Result<(Arc<Http2Connection>, ConnectionDriver), h2::Error> {
    let (record, heads) = (Arc::new(ConnectionRecord::new()), Arc::<PendingHeads>::default());
    let observed = ObservedStream::new(stream, record.clone());
    let (sender, driver) = h2::client::Builder::new()
        .initial_max_send_streams(1)
        .enable_push(false)
        .max_header_list_size(MAX_HEADER_LIST)
        .handshake(HeadStream::new(observed, origin.authority().to_string(), heads.clone()))
        .await?;
    let (sender, orders, ordered) = (Mutex::new(Some(sender)), AtomicU8::new(0), Notify::new());
    let ended = watch::Sender::new(false);
    Ok((Arc::new(Http2Connection { id, record, heads, sender, orders, ordered, ended }), driver))
}

/// Returns true if the peer ended the handshake because of our certificate. In TLS 1.3 we hear of it only after we
/// have written; as long as the peer has said nothing in HTTP/2, it has read nothing either.
pub fn refuses_certificate(record: &ConnectionRecord) -> bool {
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
