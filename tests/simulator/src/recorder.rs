//! A stand-in for any push service: it answers as a file says, and shows each exchange.
//!
//! It has an authority of its own, which signs a certificate for whatever name a client asks for, and takes any client
//! certificate. So it can stand in the place of every host that a provider names, its token endpoints included: a client
//! only has to trust [`Recorder::authority`] and to open all its connections to [`Recorder::address`].
//!
//! The first rule that fits a request gives the answer. Rules come from a file, which is read again for each request,
//! and from [`Recorder::answer_otherwise`]. Without one, a request for an access token (RFC 6749) gets a token, and
//! everything else 200 with `{}`.
//!
//! A client that offers no protocol in its TLS handshake has a protocol of its own: it gets the bytes that rules say, and
//! none without a rule.
//!
//! - `rules`: which answer counts; `patterns`: bytes as rules write them
//! - `streams`: connections without HTTP

mod patterns;
mod rules;
mod streams;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::StartError;
use crate::listen::accept_loop;
use crate::script::header;
use crate::{bind, tls};
use rules::{Answers, contains, matches};
use streams::StreamConnection;

const MAX_BODY: usize = 4 << 20;
const BODY_DEADLINE: Duration = Duration::from_secs(30);
const HEAD_DEADLINE: Duration = Duration::from_secs(300);

pub use rules::{AnswerRule, read_rules};
pub use streams::{RecordedStream, StreamEvent};

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct RecordedExchange {
    pub method: http::Method,
    /// As the client meant it: `https://host/path`.
    pub url: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The subject of the client's certificate.
    pub client: Option<String>,
    /// Whether it was taken for a request for an access token.
    pub for_token: bool,
    pub status: StatusCode,
    pub answer_headers: HeaderMap,
    pub answer: Bytes,
    /// Why the file with the answers could not be used.
    pub problem: Option<String>,
}

/// What was recorded.
#[derive(Debug, Clone)]
pub enum Recorded {
    /// Before its answer is sent.
    Exchange(Box<RecordedExchange>),
    Stream(RecordedStream),
}

/// Is called with all that is recorded.
pub type Show = dyn Fn(&Recorded) + Send + Sync;

/// A running recorder. It ends when it is dropped.
pub struct Recorder {
    address: SocketAddr,
    authority: CertificateDer<'static>,
    shared: Arc<RecorderShared>,
    _tasks: JoinSet<()>,
}

struct RecorderShared {
    answers: Answers,
    /// Connections without HTTP so far.
    streams: AtomicU64,
    show: Box<Show>,
}

impl Recorder {
    /// Listens on a free loopback port. `answers`: a JSON file with a list of rules; it may be missing.
    ///
    /// # Errors
    /// No port, or no key could be made.
    pub async fn start(answers: Option<PathBuf>, show: Box<Show>) -> Result<Self, StartError> {
        let (listener, address) = bind("recorder", SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let (acceptor, authority) = tls::any_name_config()?;
        let answers = Answers { file: answers, otherwise: Mutex::default() };
        let shared = Arc::new(RecorderShared { answers, streams: AtomicU64::default(), show });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, shared.clone()));
        Ok(Self { address, authority, shared, _tasks: tasks })
    }

    /// Where all connections have to go.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority that a client has to trust.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// Replaces the rules for requests that no rule of the file fits.
    pub fn answer_otherwise(&self, rules: Vec<AnswerRule>) {
        *self.shared.answers.otherwise.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<RecorderShared>) {
    accept_loop(listener, move |socket| connection(socket, acceptor.clone(), shared.clone())).await;
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, shared: Arc<RecorderShared>) {
    let Some(tls) = tls::handshake(&acceptor, socket).await else { return };
    let client = tls::identity(&tls).map(|identity| identity.certificate.subject);
    // Every client that speaks HTTP over TLS says so; one with a protocol of its own has no name for it.
    if tls.get_ref().1.alpn_protocol().is_none() {
        return shared.converse(tls, client).await;
    }
    let service = service_fn(move |request| {
        let (shared, client) = (shared.clone(), client.clone());
        async move { Ok::<_, Infallible>(respond(request, &shared, client).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    // The peer went away or broke the protocol; there is nobody to tell.
    let _ = builder.serve_connection(TokioIo::new(tls), service).await;
}

async fn respond(
    request: Request<Incoming>,
    shared: &RecorderShared,
    client: Option<String>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => {
            let mut refused = Response::new(Full::default());
            *refused.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return refused;
        }
    };
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = head.uri.authority().map(http::uri::Authority::as_str).or(host).unwrap_or_default();
    let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let arrived = Arrived { host, path, headers: &head.headers, body: &body };
    let (rule, problem) = shared.rule(&arrived).await;
    tokio::time::sleep(Duration::from_millis(rule.delay_ms)).await;
    let response = answer(&rule);
    let exchange = RecordedExchange {
        url: format!("https://{host}{path}"),
        for_token: arrived.is_for_token(),
        method: head.method,
        version: head.version,
        headers: head.headers,
        body,
        client,
        status: response.status(),
        answer_headers: response.headers().clone(),
        answer: response.body().clone(),
        problem,
    };
    (shared.show)(&Recorded::Exchange(Box::new(exchange)));
    response.map(Full::new)
}

/// What rules look at.
struct Arrived<'a> {
    /// With the port, if there is one.
    host: &'a str,
    path: &'a str,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl Arrived<'_> {
    /// RFC 6749 section 4: each request for an access token has this parameter.
    fn is_for_token(&self) -> bool {
        contains(self.body, b"grant_type")
    }

    fn fits(&self, rule: &AnswerRule) -> bool {
        let has = |token: &str| {
            contains(self.path.as_bytes(), token.as_bytes())
                || contains(self.body, token.as_bytes())
                || self.headers.values().any(|value| contains(value.as_bytes(), token.as_bytes()))
        };
        !rule.is_for_streams()
            && rule.is_of_host(self.host)
            && rule.path.as_ref().is_none_or(|pattern| matches(pattern, self.path))
            && rule.token.as_ref().is_none_or(|token| has(token))
    }
}

impl RecorderShared {
    /// Returns the rule for a request, and why the file could not be used.
    async fn rule(&self, arrived: &Arrived<'_>) -> (AnswerRule, Option<String>) {
        let (rules, problem) = self.answers.rules().await;
        let rule = rules.into_iter().find(|rule| arrived.fits(rule));
        (rule.unwrap_or_else(|| usual(arrived.is_for_token())), problem)
    }

    async fn converse(&self, tls: TlsStream<TcpStream>, client: Option<String>) {
        let connection = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let host = tls.get_ref().1.server_name().unwrap_or("127.0.0.1").to_owned();
        let name = host.clone();
        let show = |event| {
            (self.show)(&Recorded::Stream(RecordedStream { connection, host: name.clone(), event }));
        };
        StreamConnection { tls, host, answers: &self.answers, show: &show }.serve(client).await;
    }
}

fn usual(for_token: bool) -> AnswerRule {
    let body = match for_token {
        true => json!({"access_token": "recorded-token", "token_type": "Bearer", "expires_in": 3600}),
        false => json!({}),
    };
    AnswerRule { body: Some(body), ..AnswerRule::default() }
}

fn answer(rule: &AnswerRule) -> Response<Bytes> {
    let status = rule.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
    let (kind, body) = match &rule.body {
        None => (None, Bytes::new()),
        Some(Value::String(text)) => (None, Bytes::from(text.clone())),
        Some(json) => (Some("application/json"), Bytes::from(json.to_string())),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let headers = rule.headers.iter().filter_map(|(name, value)| header(name, value).ok());
    for (name, value) in headers {
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = br#"[
            {"host": "login.example", "status": 401},
            {"path": "/v1/*", "token": "dead", "status": 410, "body": {"error": "gone"}},
            {"token": "busy", "status": 429, "headers": {"retry-after": "2"}, "body": "later"}
        ]"#;
        let rules = read_rules(rules).unwrap();
        let headers = HeaderMap::new();
        let status = |host: &str, path: &str, body: &str| {
            let arrived = Arrived { host, path, headers: &headers, body: body.as_bytes() };
            rules.iter().find(|rule| arrived.fits(rule)).map(|rule| answer(rule).status().as_u16())
        };
        assert_eq!(status("login.example:443", "/token", ""), Some(401));
        assert_eq!(status("push.example", "/v1/dead-1", ""), Some(410));
        assert_eq!(status("push.example", "/v2/dead-1", ""), None);
        assert_eq!(status("push.example", "/v2", "{\"to\": \"busy-1\"}"), Some(429));
        let later = answer(rules.last().unwrap());
        assert_eq!(
            (&later.headers()["retry-after"], &later.body()[..]),
            (&HeaderValue::from_static("2"), &b"later"[..])
        );
    }
}
