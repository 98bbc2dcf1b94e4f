#![allow(clippy::unwrap_used, clippy::panic)]
use std::io;
use std::sync::{Arc, Mutex, Once};

use axum::body::Body;
use serde_json::Value;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::tests::*;
use crate::*;
use pushlet_settings::{HiddenText, Login};

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn listen() -> (Self, DefaultGuard) {
        // While a process has one subscriber, and that for one thread alone, what any other thread logs first
        // is switched off for good, for all of them. So there is one for all, which drops everything.
        static FOR_ALL: Once = Once::new();
        FOR_ALL
            .call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap());
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        let listening = tracing::subscriber::set_default(subscriber);
        tracing::callsite::rebuild_interest_cache();
        (lines, listening)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn read(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn one_line_per_request_with_what_matters() {
    let (lines, _guard) = Lines::listen();
    let failing = async || {
        let error = Error::new(Kind::Unreachable, "unreachable", "no").caused_by("refused by 192.0.2.1");
        response::error(error)
    };
    let state = Arc::new(RecordState { observability: observability(), guard: None });
    let router = Router::new()
        .route("/send_notification", axum::routing::post(failing))
        .layer(layer_fn(move |route| Recorded { state: state.clone(), route }));
    let got = post_form(&router, "/send_notification?a=1", "application_id=a&device_token=t").await;
    let [line] = &lines.read()[..] else { panic!("{}", lines.text()) };
    assert_eq!((line["method"].as_str(), line["path"].as_str()), (Some("POST"), Some("/send_notification")));
    assert_eq!((line["level"].as_str(), line["status"].as_u64()), (Some("WARN"), Some(502)));
    assert_eq!(
        (line["error"].as_str(), line["cause"].as_str()),
        (Some("unreachable"), Some("refused by 192.0.2.1"))
    );
    assert_eq!(line["request_id"].as_str(), got.header("x-request-id"));
    assert!(line["ms"].is_u64());
}

#[tokio::test]
async fn the_line_names_the_tenant_that_was_let_in() {
    let (lines, _guard) = Lines::listen();
    let router = open_router().0;
    post_form(&router, "/application_feedback", "application_id=a").await;
    let [line] = &lines.read()[..] else { panic!("{}", lines.text()) };
    assert_eq!((line["status"].as_u64(), line["tenant"].as_str()), (Some(404), Some("default")));
    assert_eq!(line["error"], "application_not_found");
}

#[tokio::test]
async fn nothing_that_the_caller_sent_is_logged() {
    let (lines, _guard) = Lines::listen();
    let login = Some(Login { username: "PLANTED".into(), password: HiddenText::new("PLANTED".into()) });
    let callers = CallerConfig { login, ..CallerConfig::default() };
    let (router, _) = router_for(&limits(), &callers);
    for authorization in ["Basic UExBTlRFRDpQTEFOVEVE", "Basic PLANTED", "PLANTED"] {
        for (uri, content_type, body) in [
            (
                "/send_notification?alert=PLANTED",
                "application/x-www-form-urlencoded",
                "gcm_api_key=PLANTED&device_token=PLANTED",
            ),
            ("/send_notification", "application/json", "{\"a\":PLANTED"),
            ("/send_notification", "PLANTED/PLANTED", "PLANTED"),
            ("/register_application", "multipart/form-data; boundary=PLANTED", "--PLANTED\r\nPLANTED"),
            ("/register_application", "application/x-www-form-urlencoded", "apns_p12_pass=PLANTED"),
            ("/application_feedback", "application/x-www-form-urlencoded", "application_id=PLANTED"),
        ] {
            let request = Request::post(uri)
                .header("content-type", content_type)
                .header("authorization", authorization)
                .header("x-request-id", "PLANTED?");
            ask(&router, request.body(Body::from(body)).unwrap()).await;
        }
    }
    assert_eq!(lines.read().len(), 18);
    assert!(!lines.text().contains("PLANTED"), "{}", lines.text());
}

#[tokio::test]
async fn a_caller_that_goes_away_is_logged_too() {
    let (lines, _guard) = Lines::listen();
    let (router, in_flight) = open_router();
    let request = Request::post("/send_notification").body(endless_body()).unwrap();
    let asking = tokio::spawn(async move { ask(&router, request).await });
    while in_flight.count() == 0 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    assert!(asking.await.is_err());
    let [line] = &lines.read()[..] else { panic!("{}", lines.text()) };
    assert_eq!(line["message"], "the caller went away");
    assert!(line["request_id"].is_string());
}

#[tokio::test]
async fn what_is_asked_again_and_again_is_logged_at_debug_unless_it_fails() {
    let (lines, _guard) = Lines::listen();
    let router = open_router().0;
    for uri in
        ["/healthz", "/readyz", "/metrics", "/v1/status", "/docs", "/console/main.js", "/v1/applications"]
    {
        ask(&router, Request::get(uri).body(Body::empty()).unwrap()).await;
    }
    let levels: Vec<_> = lines.read().iter().map(|line| line["level"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        levels,
        ["DEBUG", "WARN", "DEBUG", "DEBUG", "DEBUG", "DEBUG", "INFO"],
        "no provider: not ready"
    );
}

#[tokio::test]
async fn a_send_that_is_refused_names_its_application() {
    let (lines, _guard) = Lines::listen();
    let router = open_router().0;
    post_form(&router, "/send_notification", "application_id=shop&device_token=t").await;
    let [line] = &lines.read()[..] else { panic!("{}", lines.text()) };
    assert_eq!((line["message"].as_str(), line["application"].as_str()), (Some("send"), Some("shop")));
    assert_eq!((line["error"].as_str(), line["targets"].as_u64()), (Some("application_not_found"), Some(0)));
    assert!(line.get("provider").is_none() && line.get("delivered").is_none(), "{line}");
}
