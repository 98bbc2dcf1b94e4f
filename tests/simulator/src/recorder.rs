//! A stand-in for any push service: it answers as a file says, and shows each exchange.
//!
//! It has an authority of its own, which signs a certificate for whatever name a client asks for, and takes any client
//! certificate. So it can stand in the place of every host that a provider names, its token endpoints included: a client
//! only has to trust [`Recorder::authority`] and to open all its connections to [`Recorder::address`].
//!
//! The first rule that fits a request gives the answer. Rules come from a file, which is read again for each request,
//! and from [`Recorder::answer_otherwise`]. Without one, a request for an access token (RFC 6749) gets a token, and
//! everything else 200 with `{}`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
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
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::error::StartError;
use crate::listen::accept_loop;
use crate::script::header;
use crate::{bind, tls};

const MAX_BODY: usize = 4 << 20;
const MAX_RULES: usize = 1000;
const MAX_FILE: u64 = 4 << 20;
const MAX_DELAY_MS: u64 = 600_000;
const BODY_DEADLINE: Duration = Duration::from_secs(30);
const HEAD_DEADLINE: Duration = Duration::from_secs(300);

/// An answer, and the requests that get it. In patterns, a `*` stands for any text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRule {
    /// Pattern of the host, without the port. Absent: any.
    #[serde(default)]
    pub host: Option<String>,
    /// Pattern of the path and query, as they are sent. Absent: any.
    #[serde(default)]
    pub path: Option<String>,
    /// A text that stands in the path, in a header or in the body, such as a device token. Absent: any.
    #[serde(default)]
    pub token: Option<String>,
    /// The status, 200 to 599; 200 if absent.
    #[serde(default)]
    pub status: Option<u16>,
    /// Headers of the answer.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body: a text is sent as it is, anything else as JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// Milliseconds to wait before the answer, at most 600,000.
    #[serde(default)]
    pub delay_ms: u64,
}

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

/// Is called with each exchange, before its answer is sent.
pub type ShowExchange = dyn Fn(&RecordedExchange) + Send + Sync;

/// A running recorder. It ends when it is dropped.
pub struct Recorder {
    address: SocketAddr,
    authority: CertificateDer<'static>,
    shared: Arc<RecorderShared>,
    _tasks: JoinSet<()>,
}

struct RecorderShared {
    answers: Option<PathBuf>,
    otherwise: Mutex<Vec<AnswerRule>>,
    show: Box<ShowExchange>,
}

impl Recorder {
    /// Listens on a free loopback port. `answers`: a JSON file with a list of rules; it may be missing.
    ///
    /// # Errors
    /// No port, or no key could be made.
    pub async fn start(answers: Option<PathBuf>, show: Box<ShowExchange>) -> Result<Self, StartError> {
        let (listener, address) = bind("recorder", SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let (acceptor, authority) = tls::any_name_config()?;
        let shared = Arc::new(RecorderShared { answers, otherwise: Mutex::default(), show });
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
        *self.shared.otherwise.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }
}

/// Reads rules, and checks that HTTP can send what they say.
///
/// # Errors
/// What is wrong, with the number of the rule.
pub fn read_rules(text: &[u8]) -> Result<Vec<AnswerRule>, String> {
    let rules: Vec<AnswerRule> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if rules.len() > MAX_RULES {
        return Err(format!("there are more than {MAX_RULES} rules"));
    }
    for (number, rule) in rules.iter().enumerate() {
        let wrong = |what: String| Err(format!("rule {number}: {what}"));
        if rule.status.is_some_and(|status| !(200..600).contains(&status)) {
            return wrong("status must be 200 to 599".to_owned());
        }
        if rule.delay_ms > MAX_DELAY_MS {
            return wrong(format!("delay_ms must be at most {MAX_DELAY_MS}"));
        }
        let headers = rule.headers.iter().map(|(name, value)| header(name, value));
        if let Err(error) = headers.collect::<Result<Vec<_>, _>>() {
            return wrong(error.to_string());
        }
    }
    Ok(rules)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<RecorderShared>) {
    accept_loop(listener, move |socket| connection(socket, acceptor.clone(), shared.clone())).await;
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, shared: Arc<RecorderShared>) {
    let Some(tls) = tls::handshake(&acceptor, socket).await else { return };
    let client = tls::identity(&tls).map(|identity| identity.certificate.subject);
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
    (shared.show)(&exchange);
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
        let host = self.host.rsplit_once(':').map_or(self.host, |(host, _)| host);
        let has = |token: &str| {
            contains(self.path.as_bytes(), token.as_bytes())
                || contains(self.body, token.as_bytes())
                || self.headers.values().any(|value| contains(value.as_bytes(), token.as_bytes()))
        };
        rule.host.as_ref().is_none_or(|pattern| matches(pattern, host))
            && rule.path.as_ref().is_none_or(|pattern| matches(pattern, self.path))
            && rule.token.as_ref().is_none_or(|token| has(token))
    }
}

impl RecorderShared {
    /// Returns the rule for a request, and why the file could not be used.
    async fn rule(&self, arrived: &Arrived<'_>) -> (AnswerRule, Option<String>) {
        let (rules, problem) = match self.rules_of_file().await {
            Ok(rules) => (rules, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let otherwise = self.otherwise.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = rules.iter().chain(otherwise.iter()).find(|rule| arrived.fits(rule));
        (rule.cloned().unwrap_or_else(|| usual(arrived.is_for_token())), problem)
    }

    async fn rules_of_file(&self) -> Result<Vec<AnswerRule>, String> {
        let Some(path) = &self.answers else { return Ok(Vec::new()) };
        let wrong = |why: String| format!("{}: {why}", path.display());
        match tokio::fs::metadata(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Ok(about) if about.len() > MAX_FILE => {
                return Err(wrong(format!("it has more than {MAX_FILE} bytes")));
            }
            _ => {}
        }
        let text = tokio::fs::read(path).await.map_err(|error| wrong(error.to_string()))?;
        read_rules(&text).map_err(wrong)
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

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// Returns true if a text is as a pattern says, in which each `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, fits) in [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/ab/c?d", true),
            ("*", "", true),
            ("/v1/*/send", "/v1/x/y/send", true),
            ("/v1/*/send", "/v1/send", false),
            ("/*a*b", "/xab", true),
            ("/*a*b", "/xba", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

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

    #[test]
    fn what_http_cannot_send_is_refused_with_its_place() {
        for (text, part) in [
            (r#"[{}, {"status": 99}]"#, "rule 1: status must be"),
            (r#"[{"headers": {"a b": "c"}}]"#, "rule 0: header"),
            (r#"[{"delay_ms": 600001}]"#, "rule 0: delay_ms"),
            (r#"[{"stauts": 200}]"#, "unknown field `stauts`"),
        ] {
            let error = read_rules(text.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
