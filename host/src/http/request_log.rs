//! Gives every request an id, and writes one line about it to the log: never a query, header or body.

use std::borrow::Cow;
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use super::answer::Logged;
use crate::tenant::TenantId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The line of one request. It is written when this is dropped, so also when the caller goes away.
struct Line {
    method: Method,
    path: String,
    id: HeaderValue,
    start: Instant,
    end: Option<End>,
}

struct End {
    status: StatusCode,
    tenant: Option<TenantId>,
    error: Option<Logged>,
}

pub async fn record(request: Request, next: Next) -> Response {
    let id = incoming(&request).unwrap_or_else(new_id);
    let mut line = Line {
        method: request.method().clone(),
        path: request.uri().path().chars().take(200).collect(),
        id: id.clone(),
        start: Instant::now(),
        end: None,
    };
    let mut response = next.run(request).await;
    line.end = Some(End {
        status: response.status(),
        tenant: response.extensions_mut().remove(),
        error: response.extensions_mut().remove(),
    });
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The caller's own id, if it is short and plain.
fn incoming(request: &Request) -> Option<HeaderValue> {
    let id = request.headers().get(REQUEST_ID)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    ((1..=64).contains(&id.len()) && id.as_bytes().iter().all(plain)).then(|| id.clone())
}

fn new_id() -> HeaderValue {
    let id = Uuid::new_v4().to_string();
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
}

impl Drop for Line {
    fn drop(&mut self) {
        let id = self.id.to_str().unwrap_or_default();
        let (method, path) = (self.method.as_str(), self.path.as_str());
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Some(end) = &self.end else {
            tracing::info!(method, path, ms, request_id = id, "the caller went away");
            return;
        };
        let status = end.status.as_u16();
        let tenant = end.tenant.as_ref().map(TenantId::as_str);
        let error = end.error.as_ref().map(|error| Cow::as_ref(&error.code));
        let cause = end.error.as_ref().and_then(|error| error.inner.as_deref());
        if end.status.is_server_error() {
            tracing::warn!(method, path, status, ms, tenant, request_id = id, error, cause, "request");
        } else {
            tracing::info!(method, path, status, ms, tenant, request_id = id, error, cause, "request");
        }
    }
}
