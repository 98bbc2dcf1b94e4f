//! The least that a gateway can be, to compare with: HTTP/1.1 in, the codec natively, HTTP/2 over TLS out.
//!
//! No authentication, no registry, no limits, no deadlines, no retries, no log: what is beyond it in the
//! product's figures is what those and the sandbox cost.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use h2::client::SendRequest;
use pushlet_apns_native::Apns;
use pushlet_sdk::{
    Alert, Answer, Application, Context, Disposition, Environment, Notification, Provider as _, Response,
    Target,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::failure::{Failure, at};

/// What the process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    pub listen: String,
    /// Port of the sink.
    pub apns: u16,
    pub ca: std::path::PathBuf,
}

#[derive(Clone)]
struct Relay {
    sender: SendRequest<Bytes>,
    authority: Arc<str>,
    application: Arc<Application>,
}

/// Serves for ever.
pub fn run(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(at("relay"))?;
    runtime.block_on(async {
        let relay = Relay {
            sender: connect(options).await?,
            authority: format!("127.0.0.1:{}", options.apns).into(),
            application: Arc::new(Application {
                id: "bench".into(),
                environment: Environment::Production,
                settings: vec![("apns_topic".into(), "com.example.bench".into())],
                credential: Some("token".into()),
            }),
        };
        let router = Router::new().route("/send_notification", post(send)).with_state(relay);
        let listener = TcpListener::bind(&options.listen).await.map_err(at("relay"))?;
        axum::serve(listener, router).await.map_err(at("relay"))
    })
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

async fn send(State(relay): State<Relay>, body: Body) -> (StatusCode, &'static str) {
    match push(relay, &body).await {
        Some(Disposition::Delivered) => (StatusCode::OK, r#"{"response":"ok"}"#),
        _ => (StatusCode::BAD_GATEWAY, r#"{"error":"not_delivered"}"#),
    }
}

async fn push(relay: Relay, form: &[u8]) -> Option<Disposition> {
    let form = std::str::from_utf8(form).ok()?;
    let field = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let targets = [Target::Device(field("device_token")?.to_owned())];
    let alert = Alert {
        title: None,
        subtitle: None,
        body: Some(field("alert")?.replace('+', " ")),
        image: None,
        title_localized: None,
        subtitle_localized: None,
        body_localized: None,
    };
    let context = Context { now: 1_700_000_000_000, entropy: vec![7; 16] };
    let encoded = Apns::encode(&context, &relay.application, &notification(alert), &targets).ok()?;
    let (message, exchange) = (encoded.messages.into_iter().next()?, encoded.exchanges.into_iter().next()?);
    let mut head = http::Request::post(format!("https://{}{}", relay.authority, exchange.path));
    for (name, value) in message.headers.iter().chain(&exchange.headers) {
        head = head.header(name, value);
    }
    let mut sender = relay.sender.ready().await.ok()?;
    let (response, mut sending) = sender.send_request(head.body(()).ok()?, false).ok()?;
    sending.send_data(message.body.into(), true).ok()?;
    let (head, _) = response.await.ok()?.into_parts();
    let headers = head.headers.iter();
    let headers =
        headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    let response = Response { status: head.status.as_u16(), headers: headers.collect(), body: Vec::new() };
    let answer = Answer { targets: targets.into(), response };
    let reply = Apns::decode(&context, &relay.application, &answer, false);
    Some(reply.outcomes.into_iter().next()?.disposition)
}

fn notification(alert: Alert) -> Notification {
    Notification {
        alert: Some(alert),
        badge: None,
        sound: None,
        category: None,
        thread: None,
        data: None,
        collapse_key: None,
        time_to_live: None,
        priority: None,
        identifier: None,
        options: Vec::new(),
        native: None,
    }
}
