//! Routers as the server has them, and requests to them.
#![allow(clippy::unwrap_used, clippy::panic)]

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use pushlet_settings::ConfigLayers;

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
