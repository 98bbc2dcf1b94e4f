//! The APNs listener: TLS, HTTP/2, one task for each request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::channels::{self, Action};
use super::device;
use super::headers::Refusal;
use super::jwt::ProviderToken;
use super::settings::{Announcing, StreamLimit};
use crate::Environment;
use crate::connections::{Listener, OpenConnection};
use crate::listen::accept_loop;
use crate::record::Service;
use crate::state::{Arrived, Shared, Verdict};
use crate::tls::{self, ClientIdentity};

/// What Apple's servers announce, as observed: streams, header list, window.
const MAX_STREAMS: u32 = 1000;
const MAX_HEADER_LIST: u32 = 8000;
const WINDOW: u32 = 65_535;
/// Bodies are read up to here; what is longer than any payload needs no further look.
const MAX_BODY: usize = 16 * 1024;
const BODY_DEADLINE: Duration = Duration::from_secs(30);
const RAISE_AGAIN: Duration = Duration::from_millis(5);

/// One connection of a client.
pub(super) struct ApnsConnection {
    open: OpenConnection,
    pub environment: Environment,
    pub identity: Option<ClientIdentity>,
    /// The provider token in use; the first one pins the team.
    pub token: Mutex<Option<ProviderToken>>,
    /// Whether a request with a valid credential came.
    authenticated: AtomicBool,
    /// Whether such a request was answered: the client may open more streams than one.
    proven: AtomicBool,
    proven_now: Notify,
    /// Requests that are not answered yet.
    streams: AtomicUsize,
}

impl ApnsConnection {
    /// A request with a valid credential came.
    pub fn authenticated(&self) {
        self.authenticated.store(true, Ordering::Release);
    }

    /// A request was answered.
    fn answered(&self) {
        if self.authenticated.load(Ordering::Acquire) && !self.proven.swap(true, Ordering::AcqRel) {
            self.proven_now.notify_one();
        }
    }

    fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Acquire)
    }
}

/// Serves until it is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    environment: Environment,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
) {
    accept_loop(listener, move |socket| connection(socket, environment, acceptor.clone(), shared.clone()))
        .await;
}

async fn connection(socket: TcpStream, environment: Environment, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Some(tls) = tls::handshake(&acceptor, socket).await else {
        shared.connections.refused(Listener::Apns);
        return;
    };
    let identity = tls::identity(&tls);
    let certificate = identity.as_ref().map(|identity| identity.certificate.clone());
    let connection = Arc::new(ApnsConnection {
        open: shared.connections.open(Listener::Apns, Some(environment), certificate),
        environment,
        // A certificate is its own proof: all streams are there from the start.
        authenticated: AtomicBool::new(identity.is_some()),
        proven: AtomicBool::new(identity.is_some()),
        identity,
        token: Mutex::new(None),
        proven_now: Notify::new(),
        streams: AtomicUsize::new(0),
    });
    // The peer went away or broke the protocol; there is nobody to tell.
    let _ = exchange(tls, connection, shared).await;
}

async fn exchange(
    tls: TlsStream<TcpStream>,
    connection: Arc<ApnsConnection>,
    shared: Arc<Shared>,
) -> Result<(), h2::Error> {
    let mut raised = connection.is_proven();
    let limit = StreamLimit::new(if raised { MAX_STREAMS } else { 1 });
    let mut h2 = h2::server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_window_size(WINDOW)
        .handshake::<_, Bytes>(Announcing::new(tls, limit.clone()))
        .await?;
    let mut tasks = JoinSet::new();
    let mut opened: u32 = 0;
    let mut proven = false;
    loop {
        tokio::select! {
            accepted = h2.accept() => {
                let Some(accepted) = accepted else { return Ok(()) };
                let (request, mut respond) = accepted?;
                opened = opened.saturating_add(1);
                let running = connection.streams.fetch_add(1, Ordering::AcqRel);
                if running > 0 && !connection.is_proven() && limit.was_known_at(opened) {
                    connection.streams.fetch_sub(1, Ordering::AcqRel);
                    connection.open.connection.refused_streams.fetch_add(1, Ordering::Relaxed);
                    respond.send_reset(Reason::REFUSED_STREAM);
                    continue;
                }
                tasks.spawn(answer(request, respond, connection.clone(), shared.clone()));
            }
            () = connection.proven_now.notified(), if !raised => proven = true,
            // The client has not acknowledged the first SETTINGS yet, and h2 sends one at a time.
            () = tokio::time::sleep(RAISE_AGAIN), if proven && !raised => {}
            Some(_) = tasks.join_next() => {}
        }
        if proven && !raised {
            limit.announce(MAX_STREAMS);
            raised = h2.set_initial_window_size(WINDOW).is_ok();
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    connection: Arc<ApnsConnection>,
    shared: Arc<Shared>,
) {
    let stream = respond.stream_id().as_u32();
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_DEADLINE, read(body)).await {
        Ok(Ok(body)) => body,
        // Reset by the client, or not sent in time.
        _ => {
            connection.streams.fetch_sub(1, Ordering::AcqRel);
            return respond.send_reset(Reason::CANCEL);
        }
    };
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let verdict = route(&shared, &connection, &head, &body);
    let arrived = Arrived {
        service: Service::Apns,
        method: head.method,
        path,
        headers: head.headers,
        body,
        stream: Some(stream),
    };
    let answer = shared.finish(arrived, verdict, &connection.open.connection).await;
    // Before the answer: the client may open its next stream as soon as it has this one's.
    connection.streams.fetch_sub(1, Ordering::AcqRel);
    // The peer may have reset the stream meanwhile; then nobody waits for the answer.
    if let Ok(mut sending) = respond.send_response(answer.head(), answer.body.is_empty())
        && !answer.body.is_empty()
    {
        let _ = sending.send_data(answer.body, true);
    }
    connection.answered();
}

fn route(shared: &Shared, connection: &ApnsConnection, head: &http::request::Parts, body: &[u8]) -> Verdict {
    let path = head.uri.path();
    let token = path.strip_prefix("/3/device").filter(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(token) = token.map(|rest| rest.trim_start_matches('/')).filter(|token| !token.contains('/')) {
        return match head.method {
            Method::POST => device::push(&shared.apns, connection, token, &head.headers, body),
            _ => refused(Refusal("MethodNotAllowed")),
        };
    }
    match Action::of(&head.method, path) {
        Ok(action) => channels::request(&shared.apns, connection, action, &head.headers, body),
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Verdict {
    Verdict::refused(refusal.answer().header("apns-id", &uuid::Uuid::new_v4().to_string()))
}

/// The body, or its beginning where it is longer than any payload may be.
async fn read(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_BODY {
            break;
        }
    }
    Ok(bytes.freeze())
}
