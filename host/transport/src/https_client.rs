//! One HTTPS exchange: the connector, which dials as all other connections are dialled; a request body that records
//! whether the HTTP library took it; and the limit for informational responses.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::Uri;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use hyper::ext::on_informational;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::time::timeout_at;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::TransportSettings;
use super::dial::{HostResolver, dial_any};
use super::error::{DialError, FailureCause, RequestState, SendError};
use super::frames::{MOST_INFORMATIONAL, ObservedStream};
use super::request::{ClientIdentity, Origin, PeerKey, Request};
use super::response::{AnswerBody, ConnectionHandle, Response};
use super::tls::TlsConfigs;

const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// How often a peer with requests in flight over HTTP/2 is tested.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// The HTTP library's client for one origin and identity.
pub(super) type HttpsClient = legacy::Client<TlsConnector, HandoverBody>;

/// Creates a client with connections of its own. Opens none.
pub(super) fn connect(
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

/// Sends one request and reads the response, until the deadline at most.
pub(super) async fn exchange(
    client: &HttpsClient,
    request: &Request,
    most: usize,
) -> Result<Response, SendError> {
    let (body, handover) = HandoverBody::new(request.body.clone());
    let result = match timeout_at(request.deadline, respond(client, request, body, most)).await {
        Ok(result) => result,
        Err(_) => Err(SendError::unknown(FailureCause::Deadline, "no answer came in time")),
    };
    // A request whose body was never taken is incomplete, whatever the library says of it.
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
        // One task reads the answers of many targets: it must not read all that have come at one go.
        consume_budget().await;
        body.push(&piece)
            .map_err(|cause| SendError::unknown(cause, format!("at most {most} bytes are read")))?;
    }
    let (body, reserved) = body.finish();
    let (waited, connection) = (Duration::ZERO, ConnectionHandle(None));
    Ok(Response { status, headers, body, reserved, waited, connection })
}

/// Returns the error of a send. A request that found no connection, or that the peer did not process, was not sent; of
/// any other one nothing is known here.
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

/// Returns an error and all its causes, with the one that `io::Error` holds inside.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

/// Opens connections to one origin as one identity.
#[derive(Clone)]
pub(super) struct TlsConnector(Arc<DialTarget>);

struct DialTarget {
    origin: Origin,
    tls: Arc<ClientConfig>,
    resolver: HostResolver,
    within: Duration,
}

impl TlsConnector {
    pub fn new(origin: Origin, tls: Arc<ClientConfig>, resolver: HostResolver, within: Duration) -> Self {
        Self(Arc::new(DialTarget { origin, tls, resolver, within }))
    }
}

impl Service<Uri> for TlsConnector {
    type Response = TokioIo<ObservedStream<TlsStream<TcpStream>>>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self(dialled) = self.clone();
        Box::pin(async move {
            let DialTarget { origin, tls, resolver, within } = &*dialled;
            let stream = dial_any(origin, tls, resolver, *within).await?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok(TokioIo::new(ObservedStream::counting(stream, is_http2)))
        })
    }
}

/// Notifies when more informational answers (1xx) came over HTTP/1.1 than there may be. Over HTTP/2 the connection
/// counts them itself.
pub(super) fn limit_informational<B>(request: &mut http::Request<B>) -> Arc<Notify> {
    let (too_many, came) = (Arc::new(Notify::new()), AtomicUsize::new(0));
    let notify = too_many.clone();
    on_informational(request, move |_| {
        if came.fetch_add(1, Ordering::Relaxed) >= usize::from(MOST_INFORMATIONAL) {
            notify.notify_one();
        }
    });
    too_many
}

impl Connection for ObservedStream<TlsStream<TcpStream>> {
    fn connected(&self) -> Connected {
        if self.is_http2() { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

const OURS: u8 = 0;
const TAKEN: u8 = 1;
const REVOKED: u8 = 2;

/// A body in one piece. As long as it has not been taken, the request is incomplete, and no peer processes it.
pub(super) struct HandoverBody {
    left: Option<Bytes>,
    whose: Arc<AtomicU8>,
}

/// The other end of a [`HandoverBody`].
pub(super) struct BodyHandover(Arc<AtomicU8>);

impl HandoverBody {
    pub fn new(bytes: Bytes) -> (Self, BodyHandover) {
        // hyper does not poll the body of a request that has none.
        let (whose, left) = if bytes.is_empty() { (TAKEN, None) } else { (OURS, Some(bytes)) };
        let whose = Arc::new(AtomicU8::new(whose));
        (HandoverBody { left, whose: whose.clone() }, BodyHandover(whose))
    }
}

impl BodyHandover {
    /// Takes the body back. False: it may have been sent.
    pub fn revoke(&self) -> bool {
        self.0.compare_exchange(OURS, REVOKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl hyper::body::Body for HandoverBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(bytes) = self.left.take() else { return Poll::Ready(None) };
        let taken = self.whose.compare_exchange(OURS, TAKEN, Ordering::AcqRel, Ordering::Acquire);
        Poll::Ready(Some(match taken {
            Ok(_) => Ok(Frame::data(bytes)),
            Err(_) => Err(io::Error::other("the request was taken back")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.as_ref().map_or(0, |left| left.len() as u64))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn it_belongs_to_the_one_who_takes_it_first() {
        let (body, handover) = HandoverBody::new(Bytes::from_static(b"abc"));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert!(!handover.revoke());

        let (body, handover) = HandoverBody::new(Bytes::from_static(b"abc"));
        assert!(handover.revoke());
        assert!(body.collect().await.is_err());

        let (_, handover) = HandoverBody::new(Bytes::new());
        assert!(!handover.revoke());
    }
}
