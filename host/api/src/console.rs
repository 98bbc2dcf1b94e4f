//! `/console`: a page for people, embedded in the program. It holds no data and asks the API as everybody does,
//! with the credentials that its user types, so that it needs no login itself.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::{Api, not_found};

/// Everything comes from this server, nothing is inline, and no text can become markup or script: trusted types
/// (W3C Trusted Types) are asked for and none are allowed.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PAGE: &str = include_str!("../assets/console/index.html");

/// What the page is made of: name, content type, text.
const PARTS: &[(&str, &str, &str)] = &[
    ("console.css", "text/css; charset=utf-8", include_str!("../assets/console/console.css")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/console/icon.svg")),
    ("activity.js", SCRIPT, include_str!("../assets/console/activity.js")),
    ("api.js", SCRIPT, include_str!("../assets/console/api.js")),
    ("dom.js", SCRIPT, include_str!("../assets/console/dom.js")),
    ("inventory.js", SCRIPT, include_str!("../assets/console/inventory.js")),
    ("main.js", SCRIPT, include_str!("../assets/console/main.js")),
    ("send.js", SCRIPT, include_str!("../assets/console/send.js")),
    ("words.js", SCRIPT, include_str!("../assets/console/words.js")),
];

/// For everybody.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/", get(entrance))
        .route("/console", get(async || embedded(HTML, PAGE)))
        // The page names its parts relative to `/console`, so that it works below any path of a proxy too.
        .route("/console/", get(async || (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "../console")])))
        .route("/console/{part}", get(part))
        .method_not_allowed_fallback(super::method_not_allowed)
}

/// Leads a browser to the page; programs are told that there is nothing here.
async fn entrance(headers: HeaderMap, uri: Uri) -> Response {
    let accepts = headers.get(ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    if !accepts.contains("text/html") {
        return not_found(uri).await.into_response();
    }
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "console")]).into_response()
}

async fn part(Path(name): Path<String>, uri: Uri) -> Response {
    match PARTS.iter().find(|(part, ..)| *part == name) {
        Some((_, content_type, text)) => embedded(content_type, text),
        None => not_found(uri).await.into_response(),
    }
}

fn embedded(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        // Another version of the program may answer next time.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (OPENER_POLICY, HeaderValue::from_static("same-origin")),
        (RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;
