#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::Mutex;

use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::connection::ConnectionState;
use super::*;
use pushlet_api::refused;
use pushlet_settings::{ConfigLayers, TlsConfig};

/// A server whose `/slow` waits until it is told, and whose `/echo` answers with the body.
struct RunningSimulator {
    address: SocketAddr,
    slow_began: Arc<Notify>,
    go_on: Arc<Notify>,
    in_flight: InFlightRequests,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    served: JoinHandle<()>,
}

fn limits() -> LimitsConfig {
    ConfigLayers::new().unwrap().finish().unwrap().limits
}

async fn start(limits: LimitsConfig, drain: Duration, tls: Option<TlsAcceptor>) -> RunningSimulator {
    let (slow_began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (began, going_on) = (slow_began.clone(), go_on.clone());
    let slow = async move || {
        began.notify_one();
        going_on.notified().await;
        "slow"
    };
    let router = Router::new()
        .route("/slow", get(slow))
        .route("/echo", post(async |body: Bytes| body))
        .route("/big", get(async || vec![0_u8; 64 << 20]))
        .route("/version", get(async |request: Request<Body>| format!("{:?}", request.version())))
        .layer(middleware::from_fn(turn_away));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let in_flight = InFlightRequests::at_most(10);
    let (in_flight_too, lame_duck) = (in_flight.clone(), Duration::ZERO);
    let server = Server { router, in_flight: in_flight_too, tls, limits, lame_duck, drain, shards: None };
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(server.run(listener, async {
        let _ = stopped.await;
    }));
    RunningSimulator { address, slow_began, go_on, in_flight, stop: Mutex::new(Some(stop)), served }
}

async fn start_plain() -> RunningSimulator {
    start(limits(), PATIENT, None).await
}

/// Longer than any test may take.
const PATIENT: Duration = Duration::from_secs(30);

impl RunningSimulator {
    fn stop(&self) {
        let _ = self.stop.lock().unwrap().take().unwrap().send(());
    }

    async fn http1(&self) -> http1::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn http2(&self) -> http2::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn ended(self) {
        timeout(PATIENT, self.served).await.unwrap().unwrap();
    }
}

fn request(method: &str, path: &str, body: &'static str) -> Request<Full<Bytes>> {
    let uri = format!("http://localhost{path}");
    Request::builder().method(method).uri(uri).header("host", "localhost").body(Full::from(body)).unwrap()
}

async fn read(response: Response<Incoming>) -> (StatusCode, HeaderMap, String) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

/// Lets everybody in whom the server does not refuse.
async fn turn_away(request: Request<Body>, next: Next) -> Response<Body> {
    if let Some(peer) = request.extensions().get::<Arc<Peer>>()
        && request.uri().path() != "/stranger"
    {
        peer.authenticate();
    }
    match refused(&request) {
        Some(refused) => refused,
        None => next.run(request).await,
    }
}

#[tokio::test]
async fn both_protocols_on_one_port() {
    let server = start_plain().await;
    let mut one = server.http1().await;
    for _ in 0..2 {
        let answer = read(one.send_request(request("GET", "/version", "")).await.unwrap()).await;
        assert_eq!(answer.2, "HTTP/1.1");
    }
    let mut two = server.http2().await;
    let answer = read(two.send_request(request("GET", "/version", "")).await.unwrap()).await;
    assert_eq!(answer.2, "HTTP/2.0");
    let answer = read(two.send_request(request("POST", "/echo", "hello")).await.unwrap()).await;
    assert_eq!(answer.2, "hello");
}

/// Else a caller sends its next request into a connection that ends.
#[tokio::test]
async fn who_is_refused_with_a_large_body_is_told_that_the_connection_ends() {
    let server = start_plain().await;
    let large: &str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    for (body, ends) in [("small", false), (large, true)] {
        let mut caller = server.http1().await;
        let answer = caller.send_request(request("POST", "/nowhere", body)).await.unwrap();
        let (status, headers, _) = read(answer).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(headers.get("connection").is_some_and(|value| value == "close"), ends);
    }
}

#[tokio::test]
async fn tls_chooses_the_protocol_by_alpn() {
    let files = Certificate::new();
    let acceptor = acceptor(&files.tls).unwrap().unwrap();
    let server = start(limits(), PATIENT, Some(acceptor)).await;
    for (offered, version) in
        [(&["h2", "http/1.1"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")]
    {
        let stream = files.connect(server.address, offered).await;
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(chosen.as_deref(), offered.first().map(|name| name.as_bytes()));
        let answer = if version == "HTTP/2.0" {
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            read(sender.send_request(request("GET", "/version", "")).await.unwrap()).await
        } else {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            read(sender.send_request(request("GET", "/version", "")).await.unwrap()).await
        };
        assert_eq!(answer.2, version);
    }
}

#[test]
fn wrong_certificates_are_told() {
    let files = Certificate::new();
    let told = |cert: Option<&PathBuf>, key: Option<&PathBuf>| {
        let tls = TlsConfig { cert: cert.cloned(), key: key.cloned(), extra_roots: Vec::new() };
        acceptor(&tls).err().unwrap().to_string()
    };
    let (cert, key) = (files.tls.cert.as_ref(), files.tls.key.as_ref());
    assert!(told(cert, None).contains("belong together"));
    assert!(told(key, key).contains("holds no certificate"));
    assert!(told(cert, cert).starts_with("tls.key: "));
    assert!(told(Some(&"/nonexistent".into()), key).contains("/nonexistent"));
    assert!(told(cert, Certificate::new().tls.key.as_ref()).starts_with("tls.cert and tls.key: "));
}

#[tokio::test]
async fn what_is_under_way_at_shutdown_is_finished() {
    let server = start_plain().await;
    let mut one = server.http1().await;
    let mut two = server.http2().await;
    let slow_one = tokio::spawn(one.send_request(request("GET", "/slow", "")));
    server.slow_began.notified().await;
    let slow_two = tokio::spawn(two.send_request(request("GET", "/slow", "")));
    server.slow_began.notified().await;
    let (place, address) = (server.in_flight.begin(None), server.address);
    server.stop();
    let closed = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENT, closed).await.expect("the listener is closed");
    server.go_on.notify_waiters();
    assert_eq!(read(slow_one.await.unwrap().unwrap()).await.2, "slow");
    assert_eq!(read(slow_two.await.unwrap().unwrap()).await.2, "slow");
    assert!(!server.served.is_finished());
    drop(place);
    server.ended().await;
}

#[tokio::test]
async fn what_does_not_finish_is_left_behind() {
    let server = start(limits(), Duration::from_millis(50), None).await;
    let mut one = server.http1().await;
    let slow = tokio::spawn(one.send_request(request("GET", "/slow", "")));
    server.slow_began.notified().await;
    let _place = server.in_flight.begin(None);
    server.stop();
    server.ended().await;
    assert!(slow.await.unwrap().is_err());
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let server = start_plain().await;
    let mut idle = server.http1().await;
    read(idle.send_request(request("GET", "/version", "")).await.unwrap()).await;
    let mut idle_two = server.http2().await;
    read(idle_two.send_request(request("GET", "/version", "")).await.unwrap()).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    server.stop();
    server.ended().await;
}

#[tokio::test]
async fn a_request_that_comes_after_the_end_began_is_turned_away() {
    let router = Router::new().route("/", get(async || "served")).layer(middleware::from_fn(turn_away));
    let shared = shared_by(router, true);
    let answers = refused_by(&shared).await;
    for (version, (status, headers, body)) in answers {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("\"error\":\"shutting_down\""), "{body}");
        assert!(headers.contains_key("retry-after"));
        assert_eq!(headers.get("connection").is_some(), version == Version::HTTP_11, "{version:?}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away() {
    let server = start(LimitsConfig { connections: 1, ..limits() }, PATIENT, None).await;
    let mut first = server.http1().await;
    let slow = tokio::spawn(first.send_request(request("GET", "/slow", "")));
    server.slow_began.notified().await;
    let mut second = server.http1().await;
    let (status, headers, body) =
        read(second.send_request(request("GET", "/version", "")).await.unwrap()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("\"error\":\"too_many_connections\""), "{body}");
    assert_eq!(headers["connection"], "close");
    server.go_on.notify_waiters();
    assert_eq!(read(slow.await.unwrap().unwrap()).await.2, "slow");
    let served_again = async {
        loop {
            let mut again = server.http1().await;
            let answer = read(again.send_request(request("GET", "/version", "")).await.unwrap()).await;
            if answer.0 == StatusCode::OK {
                break;
            }
        }
    };
    timeout(PATIENT, served_again).await.unwrap();
}

#[tokio::test]
async fn slow_callers_are_disconnected() {
    let short = Duration::from_millis(50);
    let files = Certificate::new();
    let tls = acceptor(&files.tls).unwrap();
    let quick = LimitsConfig { header_timeout: short, write_timeout: short, ..limits() };
    let plain = start(quick.clone(), PATIENT, None).await;
    let secure = start(quick, PATIENT, tls).await;
    for (server, sent) in [
        (&plain, ""),
        (&plain, "PRI * HT"),
        (&plain, "GET / HTTP/1.1\r\nhost: x\r\n"),
        (&secure, ""),
        (&secure, "\x16\x03\x01"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // It may end by a reset too.
        let _ = timeout(PATIENT, stream.read_to_end(&mut rest)).await.unwrap();
    }
    let mut stream = TcpStream::connect(plain.address).await.unwrap();
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    plain.stop();
    plain.ended().await;
}

#[tokio::test]
async fn huge_heads_are_refused() {
    let server = start_plain().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET /version HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n", "x".repeat(100 << 10));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENT, stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let mut two = server.http2().await;
    let mut big = request("GET", "/version", "");
    big.headers_mut().insert("x-big", "x".repeat(40 << 10).parse().unwrap());
    let answer = two.send_request(big).await;
    assert!(answer.is_err() || answer.unwrap().status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

fn shared_by(router: Router, stopping: bool) -> Arc<ServerShared> {
    let limits = limits();
    Arc::new(ServerShared {
        in_flight: InFlightRequests::at_most(1),
        router,
        tls: None,
        connections: ConnectionTable::new(&limits),
        proxies: Arc::default(),
        limits,
        stopping: AtomicBool::new(stopping),
        shards: None,
    })
}

/// What is said to a request of each protocol.
async fn refused_by(shared: &Arc<ServerShared>) -> Vec<(Version, (StatusCode, HeaderMap, String))> {
    let peer = Peer::new(std::net::Ipv4Addr::LOCALHOST.into(), &Arc::default());
    let in_flight = Arc::new(ConnectionState::new(Arc::new(peer))).begin();
    let mut answers = Vec::new();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let request = Request::builder().version(version).body(Body::empty()).unwrap();
        let response = respond(shared, &in_flight, request, None).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        answers.push((version, (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())));
    }
    answers
}

/// A self-signed certificate in files.
struct Certificate {
    directory: PathBuf,
    tls: TlsConfig,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let directory = std::env::temp_dir().join(format!("pushlet-server-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls = TlsConfig { cert: Some(cert), key: Some(key), extra_roots: Vec::new() };
        Self { directory, tls, der: made.cert.der().clone() }
    }

    async fn connect(
        &self,
        address: SocketAddr,
        alpn: &[&str],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[path = "time_tests.rs"]
mod time;
