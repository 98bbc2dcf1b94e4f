//! The least that a gateway can be, to compare with: HTTP/1.1 in, the codec natively, HTTP/2 over TLS out.
//!
//! No authentication, no registry, no limits, no deadlines, no retries, no log: what is beyond it in the product's
//! figures is what those and the sandbox cost. Its requests have the headers of the product's, an authorization of the
//! same length among them. Sharded, each processor has a runtime, a listener and a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use axum::routing::post;
use bytes::BytesMut;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use h2::client::SendRequest;
use pushlet_apns_native::Apns;
use pushlet_provider::{
    Alert, Answer, Application, Context, Disposition, Environment, Exchange, Message, Notification,
    Provider as _, Recipient, Response, Target,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use crate::failure::{Failure, at};

/// Bytes of a provider token as the product makes it (ES256).
const TOKEN: usize = 193;
/// Connections that the kernel accepts before the server does.
const BACKLOG: u32 = 1024;
/// Targets of a stream in one call of the codec.
const BATCH: usize = 120;
/// Targets of a stream in flight.
const WINDOW: usize = 1000;
/// Results of a stream in one chunk of the response.
const CHUNK: usize = 256;

/// What the process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    pub listen: SocketAddr,
    /// Port of the sink.
    pub apns: u16,
    pub ca: std::path::PathBuf,
    /// A runtime for each processor in place of one for all. Adapters leave it out.
    #[serde(default)]
    pub sharded: bool,
}

#[derive(Clone)]
struct Relay {
    sender: SendRequest<Bytes>,
    authority: Arc<str>,
    authorization: HeaderValue,
    application: Arc<Application>,
}

/// Serves for ever.
pub fn run(options: &Options) -> Result<(), Failure> {
    if !options.sharded {
        return serve(Builder::new_multi_thread(), options);
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let shard = || serve(Builder::new_current_thread(), options);
    thread::scope(|scope| {
        let shards: Vec<_> = (0..processors).map(|_| scope.spawn(shard)).collect();
        let mut ended = shards.into_iter().map(|shard| shard.join());
        ended.try_for_each(|ended| ended.unwrap_or_else(|_| Err(Failure::new("a shard panicked"))))
    })
}

fn serve(mut builder: Builder, options: &Options) -> Result<(), Failure> {
    let runtime: Runtime = builder.enable_all().build().map_err(at("relay"))?;
    runtime.block_on(async {
        let mut authorization =
            HeaderValue::try_from(format!("bearer {}", "x".repeat(TOKEN))).map_err(at("relay"))?;
        authorization.set_sensitive(true);
        let relay = Relay {
            sender: connect(options).await?,
            authority: format!("127.0.0.1:{}", options.apns).into(),
            authorization,
            application: Arc::new(Application {
                id: "bench".into(),
                environment: Environment::Production,
                settings: vec![("apns_topic".into(), "com.example.bench".into())],
                credential: Some("token".into()),
            }),
        };
        let router = Router::new()
            .route("/send_notification", post(send))
            .route("/v1/notifications:stream", post(stream))
            .with_state(relay);
        axum::serve(listen(options)?, router).await.map_err(at("relay"))
    })
}

/// Returns a listener for the address, of which there may be several.
fn listen(options: &Options) -> Result<TcpListener, Failure> {
    let socket = TcpSocket::new_v4().map_err(at("relay"))?;
    socket.set_reuseaddr(true).map_err(at("relay"))?;
    socket.set_reuseport(options.sharded).map_err(at("relay"))?;
    socket.bind(options.listen).map_err(at("relay"))?;
    socket.listen(BACKLOG).map_err(at("relay"))
}

async fn connect(options: &Options) -> Result<SendRequest<Bytes>, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&options.ca).map_err(at("authority"))? {
        roots.add(root.map_err(at("authority"))?).map_err(at("authority"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(at("relay"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(("127.0.0.1", options.apns)).await.map_err(at("relay"))?;
    socket.set_nodelay(true).map_err(at("relay"))?;
    let name = ServerName::try_from("127.0.0.1").map_err(at("relay"))?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, socket).await.map_err(at("relay"))?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(at("relay"))?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn send(State(relay): State<Relay>, body: Bytes) -> (StatusCode, &'static str) {
    match push(relay, &body).await {
        Some(Disposition::Delivered) => (StatusCode::OK, r#"{"response":"ok"}"#),
        _ => (StatusCode::BAD_GATEWAY, r#"{"error":"not_delivered"}"#),
    }
}

async fn push(relay: Relay, form: &[u8]) -> Option<Disposition> {
    let form = std::str::from_utf8(form).ok()?;
    let field = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let recipient = recipient(Target::Device(field("device_token")?.to_owned()));
    let notification = notification(alert(None, field("alert")?.replace('+', " ")));
    let encoded =
        Apns::encode(&context(), &relay.application, &notification, std::slice::from_ref(&recipient)).ok()?;
    let (message, exchange) = (encoded.messages.into_iter().next()?, encoded.exchanges.into_iter().next()?);
    let body = message.body.clone().into();
    Some(relay.exchange(recipient.target, &message, body, &exchange).await?.0)
}

impl Relay {
    /// Sends one push. Returns what became of it, and its id.
    async fn exchange(
        &self,
        target: Target,
        message: &Message,
        body: Bytes,
        exchange: &Exchange,
    ) -> Option<(Disposition, Option<String>)> {
        let mut head = http::Request::post(format!("https://{}{}", self.authority, exchange.path));
        for (name, value) in message.headers.iter().chain(&exchange.headers) {
            head = head.header(name, value);
        }
        let head = head.header(AUTHORIZATION, self.authorization.clone());
        let mut sender = self.sender.clone().ready().await.ok()?;
        let (response, mut sending) = sender.send_request(head.body(()).ok()?, false).ok()?;
        sending.send_data(body, true).ok()?;
        let (head, _) = response.await.ok()?.into_parts();
        let headers = head.headers.iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        let response =
            Response { status: head.status.as_u16(), headers: headers.collect(), body: Vec::new() };
        let answer = Answer { targets: vec![target], response };
        let reply = Apns::decode(&context(), &self.application, &answer, false);
        let outcome = reply.outcomes.into_iter().next()?;
        Some((outcome.disposition, outcome.id))
    }
}

/// The first line of a stream.
#[derive(Deserialize)]
struct Shared {
    notification: SharedAlert,
}

#[derive(Deserialize)]
struct SharedAlert {
    title: String,
    body: String,
}

#[derive(Deserialize)]
struct Line {
    target: String,
}

#[derive(Serialize)]
struct StreamResult<'a> {
    index: usize,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Lines of JSON in, each a target; lines of JSON out, each a result.
async fn stream(State(relay): State<Relay>, body: Body) -> Body {
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(run_stream(relay, body.into_data_stream(), sender));
    Body::from_stream(futures_util::stream::unfold(receiver, async |mut chunks| {
        let chunk: Bytes = chunks.recv().await?;
        Some((Ok::<_, std::io::Error>(chunk), chunks))
    }))
}

async fn run_stream(relay: Relay, mut body: BodyDataStream, results: mpsc::Sender<Bytes>) -> Option<()> {
    let (mut read, mut text, mut index) = (BytesMut::new(), Vec::new(), 0);
    let (mut shared, mut is_open) = (None, true);
    let mut in_flight = FuturesUnordered::new();
    while is_open || !in_flight.is_empty() {
        tokio::select! {
            chunk = body.next(), if is_open && in_flight.len() < WINDOW => match chunk {
                Some(chunk) => read.extend_from_slice(&chunk.ok()?),
                None => is_open = false,
            },
            Some(result) = in_flight.next(), if !in_flight.is_empty() => {
                push_line(&mut text, result)?;
                let mut count = 1;
                while count < CHUNK && let Some(Some(result)) = in_flight.next().now_or_never() {
                    push_line(&mut text, result)?;
                    count += 1;
                }
                results.send(std::mem::take(&mut text).into()).await.ok()?;
            }
        }
        if shared.is_none() {
            let Some(line) = take_line(&mut read) else { continue };
            let Shared { notification: SharedAlert { title, body } } = serde_json::from_slice(&line).ok()?;
            shared = Some(notification(alert(Some(title), body)));
        }
        let targets: Vec<Recipient> = std::iter::from_fn(|| take_line(&mut read))
            .map(|line| Some(recipient(Target::Device(serde_json::from_slice::<Line>(&line).ok()?.target))))
            .collect::<Option<_>>()?;
        for targets in targets.chunks(BATCH) {
            let encoded = Apns::encode(&context(), &relay.application, shared.as_ref()?, targets).ok()?;
            let message = Arc::new(encoded.messages.into_iter().next()?);
            let body = Bytes::from(message.body.clone());
            for (target, exchange) in targets.iter().zip(encoded.exchanges) {
                let (relay, message, body) = (relay.clone(), message.clone(), body.clone());
                let (target, number) = (target.target.clone(), index);
                index += 1;
                in_flight
                    .push(async move { (number, relay.exchange(target, &message, body, &exchange).await) });
            }
        }
    }
    Some(())
}

fn push_line(
    text: &mut Vec<u8>,
    (index, outcome): (usize, Option<(Disposition, Option<String>)>),
) -> Option<()> {
    let (status, id) = match outcome {
        Some((Disposition::Delivered, id)) => ("delivered", id),
        _ => ("failed", None),
    };
    serde_json::to_writer(&mut *text, &StreamResult { index, status, id }).ok()?;
    text.push(b'\n');
    Some(())
}

fn take_line(read: &mut BytesMut) -> Option<BytesMut> {
    let end = read.iter().position(|byte| *byte == b'\n')?;
    let line = read.split_to(end + 1);
    Some(line)
}

fn recipient(target: Target) -> Recipient {
    Recipient { target, options: Vec::new() }
}

fn context() -> Context {
    Context { now: 1_700_000_000_000, entropy: vec![7; 16 * BATCH] }
}

fn alert(title: Option<String>, body: String) -> Alert {
    Alert {
        title,
        subtitle: None,
        body: Some(body),
        image: None,
        title_localized: None,
        subtitle_localized: None,
        body_localized: None,
    }
}

fn notification(alert: Alert) -> Notification {
    Notification { alert: Some(alert), ..Notification::default() }
}
