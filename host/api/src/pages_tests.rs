#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::tests::{Got, ask, limits, router_for};
use pushlet_settings::{CallerConfig, HiddenText, Login};

/// A server that lets nobody in without a password.
fn guarded() -> Router {
    let login = Login { username: "me".into(), password: HiddenText::new("a:b".into()) };
    let callers = CallerConfig { login: Some(login), ..CallerConfig::default() };
    router_for(&limits(), &callers).0
}

async fn got(uri: &str) -> Got {
    ask(&guarded(), Request::get(uri).body(Body::empty()).unwrap()).await
}

async fn text(uri: &str) -> String {
    let response = guarded()
        .oneshot(Request::get(uri).header("host", "localhost").body(Body::empty()).unwrap())
        .await
        .unwrap();
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Paths in `src="…"`, `href="…"` and `from "…"`, but for those within the page and to another one.
fn named(text: &str) -> Vec<&str> {
    let places = ["src=\"", "href=\"", " from \""];
    let rest = places.iter().flat_map(|place| text.split(place).skip(1));
    let paths = rest.filter_map(|rest| rest.split('"').next());
    paths.filter(|path| !path.starts_with('#') && *path != "docs").collect()
}

#[tokio::test]
async fn everybody_gets_the_page_and_all_that_it_names() {
    let page = got("/console").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let html = text("/console").await;
    let paths = named(&html);
    assert!(paths.contains(&"console/main.js") && paths.contains(&"console/console.css"), "{paths:?}");
    for path in paths {
        let part = got(&format!("/{path}")).await;
        let expected = match path.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!((part.status, part.header("content-type")), (200, Some(expected)), "{path}");
    }
}

#[tokio::test]
async fn all_modules_are_there_and_used() {
    let mut used = vec!["main.js".to_owned()];
    for (name, content_type, _) in CONSOLE.files.iter().filter(|part| part.1 == SCRIPT) {
        let script = text(&format!("/console/{name}")).await;
        for import in named(&script) {
            let import = import.strip_prefix("./").unwrap().to_owned();
            assert_eq!(got(&format!("/console/{import}")).await.header("content-type"), Some(*content_type));
            used.push(import);
        }
    }
    for (name, ..) in CONSOLE.files.iter().filter(|part| part.1 == SCRIPT) {
        assert!(used.iter().any(|used| used == name), "{name} is imported by none");
    }
}

#[tokio::test]
async fn nothing_may_run_but_what_this_server_serves() {
    for uri in ["/console", "/console/main.js", "/console/console.css", "/console/icon.svg"] {
        let got = got(uri).await;
        let policy = got.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|own| own == part), "{uri}: {part} is not in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(got.header(name), Some(value), "{uri} {name}");
        }
    }
}

/// A policy forbids it; this tells before a browser does.
#[test]
fn nothing_is_inline_and_nothing_is_elsewhere() {
    let html = CONSOLE.html.replace("<script type=\"module\" src=", "");
    for word in ["<script", "<style", " style=", "onclick", "onload", "javascript:", "://"] {
        assert!(!html.contains(word), "{word}");
    }
    let namespace = "http://www.w3.org/2000/svg";
    for (name, _, text) in CONSOLE.files {
        let text = text.replace(namespace, "");
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "://", "url("]
        {
            assert!(!text.contains(word), "{name}: {word}");
        }
    }
}

#[tokio::test]
async fn other_paths_are_told_as_everywhere() {
    let slash = got("/console/").await;
    assert_eq!((slash.status, slash.header("location")), (307, Some("../console")));
    assert_eq!(got("/console/nope.js").await.error(), (404, "not_found"));
    let post = ask(&guarded(), Request::post("/console").body(Body::empty()).unwrap()).await;
    assert_eq!((post.error(), post.header("allow")), ((405, "method_not_allowed"), Some("GET,HEAD")));
    assert_eq!(got("/v1/status").await.status, 401);
}

#[tokio::test]
async fn the_root_leads_browsers_to_the_page_and_nobody_else() {
    let from = |accept: &str| Request::get("/").header("accept", accept).body(Body::empty()).unwrap();
    let browser = ask(&guarded(), from("text/html,application/xhtml+xml,*/*;q=0.8")).await;
    assert_eq!((browser.status, browser.header("location")), (307, Some("console")));
    assert_eq!(ask(&guarded(), from("*/*")).await.error(), (404, "not_found"));
}
