//! The control API: plain HTTP on loopback, without authentication.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | what there is, the magic tokens and the credentials, as text |
//! | `GET /received[?service=apns&limit=10]` | counts and the requests that are kept, oldest first; `limit` keeps the newest |
//! | `DELETE /received` | forgets them and starts counting from 0 |
//! | `POST /script` | adds the [`Script`] in the body |
//! | `DELETE /script` | forgets all scripts |
//! | `GET /connections` | connections accepted, open and refused, and the newest one by one |
//! | `POST /subscriptions` | makes a Web Push subscription: `{"id", "application_server_key", "origin"}`, each optional |
//! | `DELETE /access-tokens` | makes all access tokens invalid |
//! | `GET /healthz` | `ok` |

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::answer::Answer;
use crate::credentials::{CertificateKind, CredentialFiles};
use crate::listen::accept_loop;
use crate::record::Service;
use crate::script::Script;
use crate::state::Shared;
use crate::{apns, google, hms, webpush};

const MAX_BODY: usize = 1024 * 1024;
const BODY_DEADLINE: Duration = Duration::from_secs(30);
const HEAD_DEADLINE: Duration = Duration::from_secs(300);

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    accept_loop(listener, move |socket| {
        let shared = shared.clone();
        async move {
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(respond(request, &shared).await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
            // The peer went away or broke the protocol; there is nobody to tell.
            let _ = builder.serve_connection(TokioIo::new(socket), service).await;
        }
    })
    .await;
}

async fn respond(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let answer = match tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => route(shared, &head, &body.to_bytes()),
        Ok(Err(_)) => problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broken"),
        Err(_) => problem(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
    };
    answer.head().map(|()| Full::new(answer.body))
}

fn route(shared: &Shared, head: &http::request::Parts, body: &[u8]) -> Answer {
    let done = || Answer::empty(StatusCode::NO_CONTENT);
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/") => Answer::text(StatusCode::OK, help(shared)),
        (&Method::GET, "/healthz") => Answer::text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/received") => received(shared, head.uri.query().unwrap_or_default()),
        (&Method::DELETE, "/received") => {
            shared.recorder.clear();
            done()
        }
        (&Method::POST, "/script") => script(shared, body),
        (&Method::DELETE, "/script") => {
            shared.scripts.clear();
            done()
        }
        (&Method::POST, "/subscriptions") => subscribe(shared, body),
        (&Method::GET, "/connections") => Answer::json(StatusCode::OK, &json!(shared.connections.snapshot())),
        (&Method::DELETE, "/access-tokens") => {
            shared.revoke_access_tokens();
            done()
        }
        (
            _,
            "/" | "/healthz" | "/received" | "/script" | "/connections" | "/access-tokens" | "/subscriptions",
        ) => problem(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods; see GET /"),
        _ => problem(StatusCode::NOT_FOUND, "no such path; see GET /"),
    }
}

fn received(shared: &Shared, query: &str) -> Answer {
    let query: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
    if let Some(name) = query.keys().find(|name| *name != "service" && *name != "limit") {
        return problem(StatusCode::BAD_REQUEST, &format!("{name}: the parameters are service and limit"));
    }
    let service: Option<Service> = match query.get("service").map(|name| serde_json::from_value(json!(name)))
    {
        None => None,
        Some(Ok(service)) => Some(service),
        Some(Err(_)) => {
            return problem(StatusCode::BAD_REQUEST, "service must be apns, fcm, oauth, gcm, hms or webpush");
        }
    };
    let limit: usize = match query.get("limit").map(|limit| limit.parse()) {
        None => usize::MAX,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return problem(StatusCode::BAD_REQUEST, "limit must be a number"),
    };
    let mut list = shared.recorder.received();
    list.retain(|request| service.is_none_or(|service| request.service == service));
    let newest = list.split_off(list.len().saturating_sub(limit));
    Answer::json(StatusCode::OK, &json!({"counts": shared.recorder.counts(), "received": newest}))
}

fn script(shared: &Shared, body: &[u8]) -> Answer {
    let script: Script = match serde_json::from_slice(body) {
        Ok(script) => script,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match shared.scripts.add(script) {
        Ok(()) => Answer::empty(StatusCode::NO_CONTENT),
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// The endpoint leads to this simulator, unless `origin` says that it is elsewhere.
fn subscribe(shared: &Shared, body: &[u8]) -> Answer {
    let Ok(asked) = serde_json::from_slice::<Value>(if body.is_empty() { b"{}" } else { body }) else {
        return problem(StatusCode::BAD_REQUEST, "the body is not JSON");
    };
    let text = |name: &str| asked.get(name).and_then(Value::as_str);
    let id = text("id").map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned);
    let origin = text("origin").unwrap_or(&shared.google_url);
    match shared.webpush.subscribe(&id, text("application_server_key"), origin) {
        Ok(subscription) => Answer::json(StatusCode::CREATED, &json!(subscription)),
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn problem(status: StatusCode, message: &str) -> Answer {
    Answer::json(status, &json!({"error": message}))
}

fn other_kinds(files: &CredentialFiles) -> String {
    let line = |(path, kind, topic): (&std::path::Path, CertificateKind, &str)| {
        format!("  {kind:<12?} {} (topic {topic})\n", path.display())
    };
    files.other_kinds().map(line).concat()
}

fn help(shared: &Shared) -> String {
    let files = &shared.material.files;
    let shown = |path: &std::path::Path| path.display().to_string();
    format!(
        "Pushlet simulator: push services without their vendors.\n\n\
         GET    /received[?service=apns&limit=10]\nDELETE /received\nPOST   /script   \
         {{\"service\":\"apns\",\"token\":\"aa*\",\"topic\":…,\"status\":429,\"body\":…,\"headers\":{{}},\
         \"retry_after\":5,\"delay_ms\":0,\"times\":1}}\nDELETE /script\nGET    /connections\n\
         POST   /subscriptions   {{\"id\":…,\"application_server_key\":…,\"origin\":…}}\n\
         DELETE /access-tokens\nGET    /healthz\n\n\
         Credentials\n  trust        {}\n  PKCS#12      {} (no password)\n  PKCS#12 old  {} (password {})\n  \
         PEM          {}\n  topic        {}\n{}  .p8          {} (key id {}, team id {})\n  \
         FCM          {} (project {})\n  Huawei       {} (project {}); any app id of digits with any secret\n\n\
         APNs\n{}\nFCM\n{}\nGCM\n{}\nHuawei\n{}\nWeb Push\n{}",
        shown(&files.ca_pem),
        shown(&files.apns_p12),
        shown(&files.apns_legacy_p12),
        files.apns_legacy_p12_password,
        shown(&files.apns_pem),
        files.apns_topic,
        other_kinds(files),
        shown(&files.apns_p8),
        files.apns_key_id,
        files.apns_team_id,
        shown(&files.fcm_service_account),
        files.fcm_project_id,
        shown(&files.hms_service_account),
        files.hms_project_id,
        apns::help(),
        google::fcm::help(),
        google::gcm::help(),
        hms::help(),
        webpush::help(),
    )
}
