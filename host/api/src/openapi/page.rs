//! `/docs`: a page that shows the document. It holds nothing that is secret, so it is for everybody; the document
//! that it fetches is not.

use crate::response::ErrorResponse;
use axum::Router;
use axum::http::Uri;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::super::{Api, method_not_allowed, not_found};

/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Name, content type and bytes.
const ASSETS: &[(&str, &str, &str)] = &[
    ("docs.js", "text/javascript; charset=utf-8", include_str!("../../assets/docs/docs.js")),
    ("docs.css", "text/css; charset=utf-8", include_str!("../../assets/docs/docs.css")),
];

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/docs", get(page))
        .route("/docs/{asset}", get(asset))
        .method_not_allowed_fallback(method_not_allowed)
}

async fn page() -> Response {
    served("text/html; charset=utf-8", include_str!("../../assets/docs/index.html"))
}

/// What the page is made of.
async fn asset(uri: Uri) -> Result<Response, ErrorResponse> {
    let name = uri.path().rsplit('/').next().unwrap_or_default();
    match ASSETS.iter().find(|(known, _, _)| *known == name) {
        Some((_, content_type, text)) => Ok(served(content_type, text)),
        None => Err(not_found(uri).await),
    }
}

fn served(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
