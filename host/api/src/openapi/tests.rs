#![allow(clippy::unwrap_used, clippy::panic)]
use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http::Request;

use super::*;
use crate::tests::{ask, limits, open_router, router_for};
use crate::{Observability, router};
use pushlet_gateway::Gateway;
use pushlet_model::notification;
use pushlet_settings::{CallerConfig, HiddenText, Login};

/// Beginnings of paths: pages for people.
const NOT_DESCRIBED: &[&str] = &["/docs", "/console"];

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).unwrap()
}

async fn document_of(router: &Router) -> Value {
    let got = ask(router, get("/openapi.json")).await;
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")));
    got.body
}

/// The paths of a router, as it prints itself; it tells them in no other way.
fn paths_of(router: &Router) -> BTreeSet<String> {
    let printed = format!("{router:?}");
    let own = printed.split("fallback_router").next().unwrap();
    let paths = own.split("paths: {").nth(1).unwrap_or_else(|| panic!("no paths in {own}"));
    let quoted = paths.split("RouteId(").filter_map(|entry| entry.split('"').nth(1));
    quoted.map(str::to_owned).collect()
}

/// The methods that a path has a handler for, told by the answer to one that it has none for.
async fn methods_of(router: &Router, path: &str) -> BTreeSet<String> {
    let uri = path.replace(['{', '}'], "");
    let got = ask(router, Request::patch(uri).body(Body::empty()).unwrap()).await;
    assert_eq!(got.status, 405, "{path}");
    let allowed = got.header("allow").unwrap().to_lowercase();
    allowed.split(',').filter(|method| *method != "head").map(str::to_owned).collect()
}

#[tokio::test]
async fn every_route_is_in_the_document_and_nothing_else() {
    let (router, _) = open_router();
    let document = document_of(&router).await;
    let mut documented: BTreeSet<(String, String)> = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        documented.extend(item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())));
    }
    let mut routes = BTreeSet::new();
    for path in paths_of(&router) {
        // The root leads browsers to the console.
        if path != "/" && !NOT_DESCRIBED.iter().any(|start| path.starts_with(start)) {
            let methods = methods_of(&router, &path).await;
            routes.extend(methods.into_iter().map(|method| (path.clone(), method)));
        }
    }
    assert!(routes.len() > 20, "{routes:?}");
    assert_eq!(routes, documented);
}

#[tokio::test]
async fn metrics_are_documented_where_they_are_served() {
    let (router, _) = router(
        Gateway::in_memory().unwrap(),
        &limits(),
        &CallerConfig::default(),
        &Observability::new(None, true),
    );
    assert!(document_of(&router).await["paths"].get("/metrics").is_none());
    assert!(!paths_of(&router).contains("/metrics"));
}

#[tokio::test]
async fn all_references_lead_somewhere_and_all_operations_are_named_once() {
    let (router, _) = open_router();
    let document = document_of(&router).await;
    let mut references = Vec::new();
    collect(&document, "$ref", &mut references);
    assert!(references.len() > 100);
    for reference in &references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    // A status that is not in the table of errors has no words.
    let mut answers = Vec::new();
    collect(&document["paths"], "responses", &mut answers);
    for answer in answers.into_iter().flat_map(|answers| answers.as_object().unwrap().values()) {
        assert!(answer["description"].as_str().is_some_and(|words| !words.is_empty()), "{answer}");
    }
    let mut names = Vec::new();
    collect(&document, "operationId", &mut names);
    let unique: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(unique.len(), names.len());
}

fn collect<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|value| collect(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, key, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_common_fields_are_those_that_notifications_have() {
    let (router, _) = open_router();
    let document = document_of(&router).await;
    let properties = document["components"]["schemas"]["Notification"]["properties"].as_object().unwrap();
    let documented: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    assert_eq!(documented, BTreeSet::from(notification::COMMON));
}

#[tokio::test]
async fn the_page_is_for_everybody_and_asks_nobody_else() {
    let login = Login { username: "me".into(), password: HiddenText::new("sesame".into()) };
    let callers = CallerConfig { login: Some(login), ..CallerConfig::default() };
    let (router, _) = router_for(&limits(), &callers);
    assert_eq!(ask(&router, get("/openapi.json")).await.status, 401);
    for (uri, kind) in
        [("/docs", "text/html"), ("/docs/docs.js", "text/javascript"), ("/docs/docs.css", "text/css")]
    {
        let got = ask(&router, get(uri)).await;
        assert_eq!(got.status, 200, "{uri}");
        assert!(got.header("content-type").unwrap().starts_with(kind), "{uri}");
        assert!(got.header("content-security-policy").unwrap().starts_with("default-src 'none'"), "{uri}");
    }
    assert_eq!(ask(&router, get("/docs/other")).await.error(), (404, "not_found"));
}
