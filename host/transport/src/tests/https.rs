//! HTTPS without a pinned protocol.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::peer::{Authority, MAX_CONCURRENT_STREAMS, Peer, REFUSED_STREAM, Setup, Wire};
use super::{SHORT, push, request as http2_request, transport, until};
use crate::{BreakerState, ClientIdentity, FailureCause, Origin, Protocol, Request, RequestState, Transport};

fn request(origin: &Origin) -> Request {
    Request { protocol: Protocol::Https, ..http2_request(origin) }
}

fn hurried(origin: &Origin) -> Request {
    Request { deadline: Instant::now() + SHORT, ..request(origin) }
}

/// A peer that speaks HTTP/1.1.
async fn old_peer() -> Peer {
    Peer::with(Setup { alpn: "http/1.1", ..Setup::default() }).await
}

/// Reads a request with the body `{}`.
async fn read(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n{}") {
        let byte = stream.read_u8().await.unwrap();
        text.push(byte);
    }
    String::from_utf8(text).unwrap()
}

async fn write(stream: &mut TlsStream<TcpStream>, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn http1_is_spoken_over_one_connection() {
    let peer = old_peer().await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, request(&peer.origin()));
    let mut stream = peer.accept_tls().await.unwrap();
    assert!(read(&mut stream).await.starts_with("POST /3/device/00 HTTP/1.1\r\n"));
    write(&mut stream, "HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno").await;
    let response = send.await.unwrap().unwrap();
    assert_eq!((response.status, &response.body[..]), (503, &b"no"[..]));
    assert_eq!(response.headers["retry-after"], "7");
    let send = push(&transport, request(&peer.origin()));
    read(&mut stream).await;
    write(&mut stream, "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await;
    send.await.unwrap().unwrap();
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn http2_is_spoken_where_the_peer_chooses_it() {
    let peer = Peer::with(Setup { alpn: "h2 http/1.1", ..Setup::default() }).await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    wire.serve().await;
    assert_eq!(send.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_peer_without_requests_is_forgotten_though_no_other_comes() {
    let peer = old_peer().await;
    let transport = transport(&peer, |settings| settings.https_idle_timeout = Duration::from_millis(60));
    let send = push(&transport, request(&peer.origin()));
    let mut stream = peer.accept_tls().await.unwrap();
    read(&mut stream).await;
    tokio::time::sleep(SHORT).await;
    assert_eq!(transport.snapshot().len(), 1, "a request is in flight");
    write(&mut stream, "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(send.await.unwrap().unwrap().status, 200);
    until(|| transport.snapshot().is_empty()).await;
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let peer = old_peer().await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, request(&peer.origin()));
    let mut stream = peer.accept_tls().await.unwrap();
    read(&mut stream).await;
    write(&mut stream, "HTTP/1.1 307 X\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(send.await.unwrap().unwrap().status, 307);
}

#[tokio::test]
async fn what_is_known_of_a_failed_request_is_said() {
    let peer = old_peer().await;
    let transport = transport(&peer, |settings| settings.max_response = 10);
    let send = push(&transport, request(&peer.origin()));
    let mut stream = peer.accept_tls().await.unwrap();
    read(&mut stream).await;
    drop(stream);
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::ConnectionLost));

    let send = push(&transport, hurried(&peer.origin()));
    let mut stream = peer.accept_tls().await.unwrap();
    read(&mut stream).await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::Deadline));

    let send = push(&transport, request(&peer.origin()));
    let mut stream = peer.accept_tls().await.unwrap();
    read(&mut stream).await;
    write(&mut stream, "HTTP/1.1 200 X\r\ncontent-length: 11\r\n\r\n01234567890").await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::TooLarge));
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused() {
    let peer = old_peer().await;
    let transport = transport(&peer, |settings| settings.extra_roots = vec![Authority::new().root()]);
    let send = push(&transport, request(&peer.origin()));
    assert!(peer.accept_tls().await.is_err());
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::NotSent, FailureCause::Tls));
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let clients = Authority::new();
    let peer =
        Peer::with(Setup { alpn: "http/1.1", clients: Some(clients.root()), ..Setup::default() }).await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, Request { identity: clients.client(1), ..request(&peer.origin()) });
    let mut stream = peer.accept_tls().await.unwrap();
    read(&mut stream).await;
    write(&mut stream, "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await;
    send.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_hung_peer_takes_its_own_share_only() {
    let (hung, well) = (old_peer().await, old_peer().await);
    let transport = transport(&hung, |settings| {
        settings.extra_roots.push(well.authority.root());
        settings.max_requests = 1;
        settings.max_waiting = 1;
    });
    let stuck = push(&transport, request(&hung.origin()));
    let mut stream = hung.accept_tls().await.unwrap();
    read(&mut stream).await;
    let waiting = push(&transport, hurried(&hung.origin()));
    until(|| transport.snapshot()[0].queued == 1).await;
    let error = transport.send(&request(&hung.origin())).await.unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::NotSent, FailureCause::Overloaded));
    assert!(error.retry_after.is_some());
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::NotSent, FailureCause::Deadline));

    let send = push(&transport, request(&well.origin()));
    let mut other = well.accept_tls().await.unwrap();
    read(&mut other).await;
    write(&mut other, "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await;
    send.await.unwrap().unwrap();
    assert!(!stuck.is_finished());
}

#[tokio::test]
async fn the_breaker_opens_and_lets_one_probe_pass() {
    let peer = old_peer().await;
    let transport = transport(&peer, |settings| {
        settings.breaker_failures = 2;
        settings.backoff_base = Duration::from_millis(200);
    });
    let origin = peer.origin();
    let peer = peer.stop();
    for cause in [FailureCause::Connect, FailureCause::Connect, FailureCause::PeerDown] {
        let error = transport.send(&request(&origin)).await.unwrap_err();
        assert_eq!((error.delivery, &error.cause), (RequestState::NotSent, &cause));
        assert_eq!(error.retry_after.is_some(), cause == FailureCause::PeerDown);
    }
    let peer = peer.listen().await;
    until(|| transport.snapshot()[0].breaker == BreakerState::HalfOpen).await;
    let probe = push(&transport, request(&origin));
    let mut stream = peer.accept_tls().await.unwrap();
    assert_eq!(transport.send(&request(&origin)).await.unwrap_err().cause, FailureCause::PeerDown);
    read(&mut stream).await;
    write(&mut stream, "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await;
    probe.await.unwrap().unwrap();
    assert_eq!(transport.snapshot()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_guarded_request_reaches_no_private_address() {
    let peer = old_peer().await;
    let origin = peer.origin();
    let named = format!("https://localhost:{}", origin.port()).parse().unwrap();
    let transport = transport(&peer, |_| {});
    for origin in [&origin, &named] {
        let error = transport.send(&Request { guarded: true, ..request(origin) }).await.unwrap_err();
        assert_eq!((error.delivery, error.cause), (RequestState::NotSent, FailureCause::ForbiddenAddress));
    }
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn draining_waits_for_requests_in_flight() {
    let peer = old_peer().await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, request(&peer.origin()));
    let mut stream = peer.accept_tls().await.unwrap();
    read(&mut stream).await;
    let drain = tokio::spawn({
        let transport = transport.clone();
        async move { transport.drain(super::LONG).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(transport.send(&request(&peer.origin())).await.unwrap_err().cause, FailureCause::ShuttingDown);
    assert!(!drain.is_finished());
    write(&mut stream, "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await;
    send.await.unwrap().unwrap();
    drain.await.unwrap();
}

#[tokio::test]
async fn a_deadline_during_the_connect_means_that_nothing_was_sent() {
    let peer = old_peer().await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, hurried(&peer.origin()));
    let _socket = peer.accept_tcp().await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::NotSent, FailureCause::Deadline));
}

/// A peer that chooses HTTP/2, and its connection after one request was served.
async fn used_http2(identity: ClientIdentity) -> (Peer, Transport, Wire) {
    let peer = Peer::with(Setup { alpn: "h2 http/1.1", ..Setup::default() }).await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, Request { identity, ..request(&peer.origin()) });
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    wire.serve().await;
    send.await.unwrap().unwrap();
    (peer, transport, wire)
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let (peer, transport, mut wire) = used_http2(ClientIdentity::Anonymous).await;
    let send = push(&transport, request(&peer.origin()));
    for _ in 0..3 {
        let (stream, _) = wire.request().await;
        wire.reset(stream, REFUSED_STREAM).await;
    }
    wire.serve().await;
    assert_eq!(send.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_goaway_moves_to_another_connection() {
    let (peer, transport, mut old) = used_http2(ClientIdentity::Anonymous).await;
    let send = push(&transport, request(&peer.origin()));
    let (stream, _) = old.request().await;
    old.goaway(stream - 2, 0, b"").await;
    let mut new = peer.accept(&[]).await;
    new.serve().await;
    assert_eq!(send.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_reset_after_the_request_was_written_is_unknown() {
    let (peer, transport, mut wire) = used_http2(ClientIdentity::Anonymous).await;
    let send = push(&transport, request(&peer.origin()));
    let (stream, _) = wire.request().await;
    wire.reset(stream, 2).await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::ConnectionLost));
}

#[tokio::test]
async fn one_application_cannot_use_up_the_streams_of_another() {
    let (peer, transport, _wire) = used_http2(ClientIdentity::Token([1; 32])).await;
    let send =
        push(&transport, Request { identity: ClientIdentity::Token([2; 32]), ..request(&peer.origin()) });
    let mut other = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    other.serve().await;
    send.await.unwrap().unwrap();
}
