//! Requests to the HTTP API: whatever comes, the answer is one of ours, and no panic.

use std::path::Path;
use std::sync::OnceLock;

use arbitrary::Unstructured;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use pushlet::bootstrap;
use pushlet_api::{Observability, router};
use pushlet_settings::{CallerConfig, ConfigLayers};
use tokio::runtime::Runtime;
use tower::ServiceExt;

const ROUTES: &[&str] = &[
    "/register_application",
    "/send_notification",
    "/application_feedback",
    "/healthz",
    "/readyz",
    "/nowhere",
];
const CONTENT_TYPES: &[&str] = &[
    "application/x-www-form-urlencoded",
    "application/json",
    "application/json; charset=utf-8",
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "application/x-ndjson",
    "text/plain",
    "\u{7f}",
];

/// The first bytes choose route, method, content type and query; the rest is the body.
pub fn request(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let Ok(request) = build(&mut u) else { return };
    let (status, body) = runtime().block_on(async {
        let response = server().clone().oneshot(request).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    });
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{}", String::from_utf8_lossy(&body));
    if status.is_client_error() {
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(error["error"].is_string() && error["message"].is_string(), "{error}");
    }
}

fn build(u: &mut Unstructured<'_>) -> arbitrary::Result<Request<Body>> {
    let route = u.choose(ROUTES)?;
    let method = u
        .choose(&[Method::POST, Method::POST, Method::POST, Method::GET, Method::PUT, Method::DELETE])?
        .clone();
    let mut request = Request::builder().method(method).header("host", "localhost");
    if u.arbitrary()? {
        request = request.header("content-type", *u.choose(CONTENT_TYPES)?);
    }
    let query: String = u.arbitrary::<String>()?.chars().filter(char::is_ascii_graphic).take(200).collect();
    let body = u.bytes(u.len())?.to_vec();
    let uri = format!("{route}?{query}");
    request.uri(uri).body(Body::from(body)).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
}

/// The real server, whose push services nobody can reach.
fn server() -> &'static Router {
    static SERVER: OnceLock<Router> = OnceLock::new();
    SERVER.get_or_init(|| {
        let nowhere = "production = \"https://127.0.0.1:9\"\ndevelopment = \"https://127.0.0.1:9\"\n";
        let endpoints: String =
            ["apns", "fcm", "gcm"].iter().map(|name| format!("[endpoints.{name}]\n{nowhere}")).collect();
        let settings = format!("[delivery]\ndeadline = \"50ms\"\nretries = 0\n{endpoints}");
        let mut layers = ConfigLayers::new().unwrap();
        layers.text(Path::new("properties.toml"), &settings).unwrap();
        let config = layers.finish().unwrap_or_else(|problem| panic!("{problem}"));
        let gateway = bootstrap::gateway(&config).unwrap_or_else(|problem| panic!("{problem}"));
        router(gateway, &config.limits, &CallerConfig::default(), &Observability::new(None, false)).0
    })
}
