//! The routes together, and what the tests of all files share: routers as the server has them, and requests to them.
#![allow(clippy::unwrap_used, clippy::panic)]

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request};
use futures_util::stream;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use super::*;
use pushlet_settings::{ConfigLayers, HiddenText, Login};

/// A router in front of a gateway without providers.
pub fn open_router() -> (Router, InFlightRequests) {
    router_for(&limits(), &CallerConfig::default())
}

pub fn router_for(limits: &LimitsConfig, callers: &CallerConfig) -> (Router, InFlightRequests) {
    router(Gateway::in_memory().unwrap(), limits, callers, &observability())
}

/// A request's body that never ends.
pub fn endless_body() -> Body {
    Body::from_stream(futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>())
}

pub fn limits() -> LimitsConfig {
    ConfigLayers::new().unwrap().finish().unwrap().limits
}

pub fn observability() -> Observability {
    Observability::new(None, false)
}

/// What came back, its body as JSON.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn error(&self) -> (u16, &str) {
        (self.status, self.body["error"].as_str().unwrap())
    }
}

/// As every client does, it names the host.
pub async fn ask(router: &Router, mut request: Request<Body>) -> Got {
    request.headers_mut().entry("host").or_insert(HeaderValue::from_static("localhost"));
    got(router.clone().oneshot(request).await.unwrap()).await
}

/// Reads a response.
pub async fn got(response: Response) -> Got {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_ne!(status, StatusCode::PERMANENT_REDIRECT);
    let text = String::from_utf8_lossy(&body).into_owned();
    Got { status: status.as_u16(), headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null), text }
}

/// Posts a form.
pub async fn post_form(router: &Router, uri: &str, form: &'static str) -> Got {
    let request = Request::post(uri).header("content-type", "application/x-www-form-urlencoded");
    ask(router, request.body(Body::from(form)).unwrap()).await
}

fn request(method: &str, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
}

fn guarded() -> Router {
    let login = Some(Login { username: "me".into(), password: HiddenText::new("a:b".into()) });
    let callers = CallerConfig { login, ..CallerConfig::default() };
    router_for(&limits(), &callers).0
}

#[tokio::test]
async fn an_unknown_route_is_told_in_the_originals_words() {
    let router = open_router().0;
    for (method, uri, path) in [
        ("GET", "/nope?secret=1", "/nope"),
        ("POST", "/send_notification/", "/send_notification/"),
        ("GET", "/", "/"),
    ] {
        let got = ask(&router, request(method, uri)).await;
        let told =
            json!({"error": "not_found", "message": format!("The requested method was not found: {path}")});
        assert_eq!((got.status, got.body), (404, told));
    }
}

#[tokio::test]
async fn a_wrong_method_names_the_right_one() {
    let router = open_router().0;
    for uri in ["/send_notification", "/register_application", "/application_feedback"] {
        let got = ask(&router, request("GET", uri)).await;
        assert_eq!((got.error(), got.header("allow")), ((405, "method_not_allowed"), Some("POST")), "{uri}");
    }
    let got = ask(&router, request("DELETE", "/healthz")).await;
    assert_eq!((got.error(), got.header("allow")), ((405, "method_not_allowed"), Some("GET,HEAD")));
}

#[tokio::test]
async fn strangers_are_told_nothing() {
    let router = guarded();
    let told = json!({"error": "access_denied", "message": "invalid credentials"});
    for (method, uri) in
        [("POST", "/send_notification"), ("GET", "/send_notification"), ("GET", "/nope"), ("GET", "/v1/nope")]
    {
        let got = ask(&router, request(method, uri)).await;
        assert_eq!((got.status, &got.body), (401, &told), "{method} {uri}");
        assert_eq!(got.header("www-authenticate"), Some("Basic realm=\"pushlet\", charset=\"UTF-8\""));
    }
    let mut wrong = request("POST", "/send_notification");
    wrong.headers_mut().insert("authorization", "Basic bWU6YQ==".parse().unwrap());
    assert_eq!(ask(&router, wrong).await.status, 401);
    let mut right = request("POST", "/send_notification");
    right.headers_mut().insert("authorization", "Basic bWU6YTpi".parse().unwrap());
    assert_eq!(ask(&router, right).await.error(), (400, "missing_identifier"));
}

#[tokio::test]
async fn health_is_for_everybody() {
    let router = guarded();
    let got = ask(&router, request("GET", "/healthz")).await;
    assert_eq!((got.status, &got.body["status"]), (200, &json!("ok")));
    let got = ask(&router, request("GET", "/readyz")).await;
    assert_eq!(got.error(), (503, "not_ready"));
    assert_eq!((&got.body["message"], &got.body["providers"]), (&json!("no provider is loaded"), &json!(0)));
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let router = guarded();
    let with_id = |id: &str| {
        let mut request = request("GET", "/nope");
        request.headers_mut().insert("x-request-id", id.parse().unwrap());
        request
    };
    for id in ["a", "Trace-1.2_3", &"x".repeat(64)] {
        assert_eq!(ask(&router, with_id(id)).await.header("x-request-id"), Some(id));
    }
    for id in ["", "a b", "a\"b", &"x".repeat(65)] {
        let got = ask(&router, with_id(id)).await;
        let made = got.header("x-request-id").unwrap();
        assert!(uuid::Uuid::parse_str(made).is_ok(), "{id:?} {made}");
    }
    let (one, two) = (ask(&router, request("GET", "/")).await, ask(&router, request("GET", "/")).await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[tokio::test]
async fn large_and_odd_bodies_are_refused_on_every_route() {
    let router = open_router().0;
    for uri in ["/send_notification", "/register_application", "/application_feedback"] {
        let post = |content_type: &str, body: Vec<u8>| {
            Request::post(uri).header("content-type", content_type).body(Body::from(body)).unwrap()
        };
        let large = || vec![b'x'; (1 << 20) + 1];
        assert_eq!(
            ask(&router, post("application/x-www-form-urlencoded", large())).await.error(),
            (413, "request_too_large")
        );
        assert_eq!(
            ask(&router, post("multipart/form-data; boundary=XX", large())).await.error(),
            (413, "request_too_large")
        );
        assert_eq!(
            ask(&router, post("text/plain", b"a=1".to_vec())).await.error(),
            (415, "unsupported_media_type")
        );
        assert_eq!(
            ask(&router, post("application/json", b"{".to_vec())).await.error(),
            (400, "invalid_json")
        );
    }
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_operator_says() {
    let mut limits = limits();
    limits.request_body = 4 << 20;
    let router = router_for(&limits, &CallerConfig::default()).0;
    let file = "x".repeat(3 << 20);
    let body = format!(
        "--XX\r\ncontent-disposition: form-data; name=a; filename=a\r\n\r\n{file}\r\n--XX\r\ncontent-disposition: form-data; name=application_id\r\n\r\nid\r\n--XX--\r\n"
    );
    let request =
        Request::post("/register_application").header("content-type", "multipart/form-data; boundary=XX");
    // All of it was read: what is wrong is that there is no provider to register it for.
    assert_eq!(ask(&router, request.body(Body::from(body)).unwrap()).await.error(), (400, "invalid_type"));
}

#[tokio::test]
async fn requests_beyond_the_limit_are_turned_away() {
    let limits = LimitsConfig { requests: 2, ..limits() };
    let (router, in_flight) = router_for(&limits, &CallerConfig::default());
    let send = |body: Body| {
        let request = Request::post("/send_notification").body(body).unwrap();
        let router = router.clone();
        tokio::spawn(async move { ask(&router, request).await })
    };
    let (first_body, body) = oneshot::channel::<()>();
    let first = send(Body::from_stream(stream::once(async {
        body.await.map(|()| "").or(Ok::<_, std::io::Error>(""))
    })));
    while in_flight.count() < 1 {
        tokio::task::yield_now().await;
    }
    let second = send(endless_body());
    while in_flight.count() < 2 {
        tokio::task::yield_now().await;
    }
    let third = send(Body::empty());
    let third = tokio::time::timeout(std::time::Duration::from_secs(20), third).await.unwrap().unwrap();
    assert_eq!((third.error(), third.header("retry-after")), ((503, "too_many_requests"), Some("1")));
    assert_eq!(ask(&router, request("GET", "/healthz")).await.status, 200);
    drop(first_body);
    assert_eq!(first.await.unwrap().error(), (400, "missing_identifier"));
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    in_flight.ended().await;
    assert_eq!(send(Body::empty()).await.unwrap().error(), (400, "missing_identifier"));
}

#[tokio::test]
async fn what_the_server_turns_away_is_answered_like_everything() {
    for (refusal, code) in [
        (Refusal::ShuttingDown, "shutting_down"),
        (Refusal::TooManyConnections, "too_many_connections"),
        (Refusal::TooManyFromThisAddress, "too_many_connections"),
    ] {
        let mut request = request("GET", "/nope");
        request.extensions_mut().insert(refusal);
        let got = ask(&guarded(), request).await;
        assert_eq!((got.error(), got.header("retry-after")), ((503, code), Some("1")));
        assert!(got.header("x-request-id").is_some());
    }
}

#[tokio::test]
async fn health_is_answered_over_connections_beyond_the_limit() {
    for (path, status, code) in [
        ("/healthz", 200, None),
        ("/readyz", 503, Some("not_ready")),
        ("/metrics", 401, Some("access_denied")),
        ("/v1/status", 503, Some("too_many_connections")),
    ] {
        let mut request = request("GET", path);
        request.extensions_mut().insert(Refusal::TooManyConnections);
        let got = ask(&guarded(), request).await;
        assert_eq!((got.status, got.body["error"].as_str()), (status, code), "{path}");
    }
}

#[tokio::test]
async fn a_panic_is_our_fault() {
    let api = Api::new(
        Gateway::in_memory().unwrap(),
        ResponseStore::open(&limits(), None),
        &limits(),
        &InFlightRequests::at_most(1),
        &observability(),
        &LiveConfig::new(&CallerConfig::default()),
    );
    let broken = async || -> StatusCode { panic!("it is broken") };
    let router = with_layers(Router::new().route("/broken", get(broken)), api, &observability(), None);
    let told = json!({"error": "unexpected_error", "message": "An unexpected error has occured, please try your request again later"});
    let got = ask(&router, request("GET", "/broken")).await;
    assert_eq!((got.status, got.body), (500, told));
}

#[tokio::test(start_paused = true)]
async fn blank_lines_do_not_renew_the_time_for_a_streams_header() {
    let router = open_router().0;
    let lines = futures_util::stream::unfold((), async |()| {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        Some((Ok::<_, std::io::Error>("\n"), ()))
    });
    let request = Request::post("/v1/notifications:stream").header("content-type", "application/x-ndjson");
    let asked = ask(&router, request.body(Body::from_stream(lines)).unwrap());
    let got = tokio::time::timeout(limits().body_timeout * 2, asked).await.unwrap();
    assert_eq!(got.error(), (400, "request_timeout"));
}

#[tokio::test]
async fn odd_request_targets_are_answered() {
    let router = open_router().0;
    for (method, uri, status) in [
        ("OPTIONS", "*", 404),
        ("GET", "http://localhost/healthz", 200),
        ("GET", "http://elsewhere.example/healthz", 421),
        ("CONNECT", "localhost:443", 404),
        ("CONNECT", "elsewhere.example:443", 421),
        ("POST", "/%00%ff/../send_notification", 404),
        ("BREW", "/healthz", 405),
    ] {
        assert_eq!(ask(&router, request(method, uri)).await.status, status, "{method} {uri}");
    }
}
