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

const PAGES: [&str; 2] = ["console", "docs"];

/// Paths in `src="…"`, `href="…"` and `from "…"`, but for those within the page and of pages; as they are seen from
/// `folder`.
fn named(text: &str, folder: &str) -> Vec<String> {
    let places = ["src=\"", "href=\"", " from \""];
    let rest = places.iter().flat_map(|place| text.split(place).skip(1));
    let paths = rest.filter_map(|rest| rest.split('"').next());
    let paths =
        paths.filter(|path| !path.starts_with('#') && !PAGES.contains(path) && *path != "openapi.json");
    let absolute = |path: &str| match (path.strip_prefix("./"), path.strip_prefix("../")) {
        (Some(path), _) => format!("/{folder}/{path}"),
        (_, Some(path)) => format!("/{path}"),
        _ => format!("/{path}"),
    };
    paths.map(absolute).collect()
}

#[tokio::test]
async fn everybody_gets_the_pages_and_all_that_they_name() {
    for (name, style) in [("console", "/console/console.css"), ("docs", "/docs/docs.css")] {
        let page = got(&format!("/{name}")).await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        let html = text(&format!("/{name}")).await;
        let paths = named(&html, name);
        assert!(paths.iter().any(|path| path.ends_with(".js")), "{paths:?}");
        assert!(paths.iter().any(|path| path == style), "{paths:?}");
        for path in paths {
            let part = got(&path).await;
            let expected = match path.rsplit('.').next().unwrap() {
                "js" => "text/javascript; charset=utf-8",
                "css" => "text/css; charset=utf-8",
                _ => "image/svg+xml",
            };
            assert_eq!((part.status, part.header("content-type")), (200, Some(expected)), "{path}");
        }
    }
}

#[tokio::test]
async fn all_modules_are_there_and_used() {
    let mut used = vec!["/console/main.js".to_owned(), "/docs/docs.js".to_owned()];
    let mut there = Vec::new();
    for (folder, page) in [("console", &CONSOLE), ("docs", &DOCS)] {
        for (name, content_type, _) in page.files.iter().filter(|part| part.1 == SCRIPT) {
            let path = format!("/{folder}/{name}");
            for import in named(&text(&path).await, folder) {
                assert_eq!(got(&import).await.header("content-type"), Some(*content_type), "{import}");
                used.push(import);
            }
            there.push(path);
        }
    }
    for path in there {
        assert!(used.contains(&path), "{path} is imported by none");
    }
}

#[tokio::test]
async fn nothing_may_run_but_what_this_server_serves() {
    for uri in [
        "/console",
        "/console/main.js",
        "/console/console.css",
        "/console/icon.svg",
        "/docs",
        "/docs/docs.js",
    ] {
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
    for page in [&CONSOLE, &DOCS] {
        let html = page.html.replace("<script type=\"module\" src=", "");
        for word in ["<script", "<style", " style=", "onclick", "onload", "javascript:", "://"] {
            assert!(!html.contains(word), "{word}");
        }
        for (name, _, text) in page.files {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "://", "url("]
            {
                assert!(!text.contains(word), "{name}: {word}");
            }
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
