//! The listener for all services but APNs: TLS, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::scheme::Lenient;
use super::{fcm, gcm, oauth, subscriptions};
use crate::answer::Answer;
use crate::connections::{Connection, Listener};
use crate::listen::accept_loop;
use crate::record::Service;
use crate::state::{Arrived, Shared, Verdict};
use crate::{hms, tls, webpush};

/// 1,000 registration ids and their data fit several times.
const MAX_BODY: usize = 1024 * 1024;
const BODY_DEADLINE: Duration = Duration::from_secs(30);
const HEAD_DEADLINE: Duration = Duration::from_secs(300);
const MAX_STREAMS: u32 = 100;

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    accept_loop(listener, move |socket| connection(socket, acceptor.clone(), shared.clone())).await;
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Some(tls) = tls::handshake(&acceptor, socket).await else {
        shared.connections.refused(Listener::Google);
        return;
    };
    let open = shared.connections.open(Listener::Google, None, None);
    let connection = open.connection.clone();
    let service = service_fn(move |request| {
        let (shared, connection) = (shared.clone(), connection.clone());
        async move { Ok::<_, Infallible>(respond(request, &shared, &connection).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    builder.http2().max_concurrent_streams(MAX_STREAMS);
    // The peer went away or broke the protocol; there is nobody to tell.
    let _ = builder.serve_connection(TokioIo::new(Lenient::new(tls)), service).await;
}

async fn respond(
    request: Request<Incoming>,
    shared: &Shared,
    connection: &Connection,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let service = service(&head);
    let answer = match tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => {
            let body = body.to_bytes();
            let (verdict, text) = match service {
                Some(Service::Webpush) => shared.webpush.send(head.uri.path(), &head.headers, &body),
                _ => (verdict(service, shared, &head, &body), None),
            };
            let body = text.map_or(body, Bytes::from);
            finish(shared, connection, service, head, body, verdict).await
        }
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let too_large = Answer::html(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
            finish(shared, connection, service, head, Bytes::new(), Verdict::refused(too_large)).await
        }
        _ => Answer::html(StatusCode::REQUEST_TIMEOUT, "Request Timeout"),
    };
    let head = answer.head();
    head.map(|()| Full::new(answer.body))
}

async fn finish(
    shared: &Shared,
    connection: &Connection,
    service: Option<Service>,
    head: http::request::Parts,
    body: Bytes,
    verdict: Verdict,
) -> Answer {
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    // A path of no service counts for the one that owns the host today.
    let service = service.unwrap_or(Service::Fcm);
    let arrived = Arrived { service, method: head.method, path, headers: head.headers, body, stream: None };
    shared.finish(arrived, verdict, connection).await
}

/// The service of a path; the front end knows no other path, and no method but POST on most.
fn service(head: &http::request::Parts) -> Option<Service> {
    let service = match head.uri.path() {
        // What `token_uri` and the libraries name; the last two are of older ones.
        "/token" | "/oauth2/v4/token" | "/o/oauth2/token" => Service::Oauth,
        "/gcm/send" | "/fcm/send" => Service::Gcm,
        path if fcm::project(path).is_some() => Service::Fcm,
        path if subscriptions::place(path).is_some() => return Some(Service::Fcm),
        path if webpush::is_path(path) => Service::Webpush,
        path => match hms::path(path)? {
            hms::Path::Token => Service::Oauth,
            hms::Path::V1(_) | hms::Path::V3(_) => Service::Hms,
        },
    };
    Some(service).filter(|_| head.method == Method::POST)
}

fn verdict(service: Option<Service>, shared: &Shared, head: &http::request::Parts, body: &[u8]) -> Verdict {
    let path = head.uri.path();
    if let (Some(Service::Oauth | Service::Hms), Some(place)) = (service, hms::path(path)) {
        return shared.hms.send(&shared.material.account, place, &head.headers, body);
    }
    if let (Some(Service::Fcm), Some(place)) = (service, subscriptions::place(path)) {
        return subscriptions::answer(&shared.google, place, head, body);
    }
    match service {
        Some(Service::Oauth) => oauth::token(&shared.google, &shared.material.account, &head.headers, body),
        Some(Service::Gcm) => gcm::send(&shared.scripts, &head.headers, body),
        Some(_) => fcm::send(&shared.google, path, &head.headers, body),
        None => Verdict::refused(Answer::html(StatusCode::NOT_FOUND, "Not Found")),
    }
}
