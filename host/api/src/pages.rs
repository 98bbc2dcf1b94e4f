//! The pages for people, embedded in the program: `/console`, and `/docs` with the API reference.
//!
//! They hold no data, so they need no login. Their scripts call the API with the credentials that their user types.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::{Api, method_not_allowed, not_found};

/// A page and its files: name, content type, text.
struct Page {
    html: &'static str,
    files: &'static [(&'static str, &'static str, &'static str)],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Everything comes from this server, nothing is inline, and no text can become markup or script: Trusted Types (W3C)
/// are required, and none are allowed.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

static CONSOLE: Page = Page {
    html: include_str!("../assets/console/index.html"),
    files: &[
        ("console.css", CSS, include_str!("../assets/console/console.css")),
        ("icon.svg", "image/svg+xml", include_str!("../assets/console/icon.svg")),
        ("activity.js", SCRIPT, include_str!("../assets/console/activity.js")),
        ("api.js", SCRIPT, include_str!("../assets/console/api.js")),
        ("applications.js", SCRIPT, include_str!("../assets/console/applications.js")),
        ("chart.js", SCRIPT, include_str!("../assets/console/chart.js")),
        ("dom.js", SCRIPT, include_str!("../assets/console/dom.js")),
        ("keys.js", SCRIPT, include_str!("../assets/console/keys.js")),
        ("main.js", SCRIPT, include_str!("../assets/console/main.js")),
        ("operator.js", SCRIPT, include_str!("../assets/console/operator.js")),
        ("pager.js", SCRIPT, include_str!("../assets/console/pager.js")),
        ("providers.js", SCRIPT, include_str!("../assets/console/providers.js")),
        ("registration.js", SCRIPT, include_str!("../assets/console/registration.js")),
        ("send.js", SCRIPT, include_str!("../assets/console/send.js")),
        ("session.js", SCRIPT, include_str!("../assets/console/session.js")),
        ("webhooks.js", SCRIPT, include_str!("../assets/console/webhooks.js")),
        ("words.js", SCRIPT, include_str!("../assets/console/words.js")),
    ],
};

/// Uses the console's form, style and helpers.
static DOCS: Page = Page {
    html: include_str!("../assets/docs/index.html"),
    files: &[
        ("docs.css", CSS, include_str!("../assets/docs/docs.css")),
        ("docs.js", SCRIPT, include_str!("../assets/docs/docs.js")),
        ("samples.js", SCRIPT, include_str!("../assets/docs/samples.js")),
        ("schema.js", SCRIPT, include_str!("../assets/docs/schema.js")),
    ],
};

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The routes, which need no authentication.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/", get(root))
        .route("/console", get(async || CONSOLE.html()))
        // The page names its files relative to `/console`, so that it also works below a path of a proxy.
        .route("/console/", get(async || (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "../console")])))
        .route("/console/{part}", get(async |file: Path<String>, uri: Uri| CONSOLE.file(&file, uri).await))
        .route("/docs", get(async || DOCS.html()))
        .route("/docs/{asset}", get(async |file: Path<String>, uri: Uri| DOCS.file(&file, uri).await))
        .method_not_allowed_fallback(method_not_allowed)
}

/// Redirects a browser to the console; programs get 404, as for any unknown route.
async fn root(headers: HeaderMap, uri: Uri) -> Response {
    let accepts = headers.get(ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    if !accepts.contains("text/html") {
        return not_found(uri).await.into_response();
    }
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "console")]).into_response()
}

impl Page {
    fn html(&self) -> Response {
        self.respond(HTML, self.html)
    }

    async fn file(&self, name: &str, uri: Uri) -> Response {
        match self.files.iter().find(|(file, ..)| *file == name) {
            Some((_, content_type, text)) => self.respond(content_type, text),
            None => not_found(uri).await.into_response(),
        }
    }

    fn respond(&self, content_type: &'static str, text: &'static str) -> Response {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static(content_type)),
            // The next start may be of another version of the program.
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
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
