//! Requests that never reach a peer.

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::peer::{Authority, MAX_CONCURRENT_STREAMS, Peer, Setup};
use super::{SHORT, push, request, transport, until};
use crate::{
    BreakerState, FailureCause, Request, RequestState, SendError, SetupError, Transport, TransportSettings,
};

fn not_sent(error: &SendError) -> &FailureCause {
    assert_eq!(error.delivery, RequestState::NotSent, "{error}");
    &error.cause
}

#[tokio::test]
async fn a_server_without_http2_is_named() {
    for (alpn, word) in [("http/1.1", "NoApplicationProtocol"), ("", "does not speak HTTP/2")] {
        let peer = Peer::with(Setup { alpn, ..Setup::default() }).await;
        let transport = transport(&peer, |_| {});
        let send = push(&transport, request(&peer.origin()));
        let _stream = peer.accept_tls().await;
        let error = send.await.unwrap().unwrap_err();
        assert_eq!(not_sent(&error), &FailureCause::Tls);
        assert!(error.detail.contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_server_certificate_that_is_not_valid_is_refused_at_once() {
    let expired = Peer::with(Setup { expired: true, ..Setup::default() }).await;
    let trusting = transport(&expired, |_| {});
    let unknown = Peer::start().await;
    let stranger = transport(&unknown, |settings| settings.extra_roots = vec![Authority::new().root()]);
    for (peer, transport, word) in [(expired, trusting, "expired"), (unknown, stranger, "UnknownIssuer")] {
        let send = push(&transport, request(&peer.origin()));
        assert!(peer.accept_tls().await.is_err());
        let error = send.await.unwrap().unwrap_err();
        assert_eq!(not_sent(&error), &FailureCause::Tls);
        assert!(error.detail.contains(word), "{error}");
        let reason = error.reason();
        assert!(reason.starts_with("the TLS handshake failed: invalid peer certificate: "), "{reason}");
        assert!(reason.contains(word), "{reason}");
        assert!(peer.is_quiet());
    }
}

#[tokio::test]
async fn a_client_certificate_that_the_server_refuses_is_named() {
    let clients = Authority::new();
    let peer = Peer::with(Setup { clients: Some(clients.root()), ..Setup::default() }).await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, Request { identity: Authority::new().client(1), ..request(&peer.origin()) });
    assert!(peer.accept_tls().await.is_err());
    let error = send.await.unwrap().unwrap_err();
    assert_eq!(not_sent(&error), &FailureCause::Tls);
    assert!(error.detail.contains("client certificate"), "{error}");
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| {
        settings.max_connections = 1;
        settings.max_waiting = 1;
    });
    let first = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    wire.request().await;
    let second = push(&transport, request(&peer.origin()));
    until(|| transport.snapshot()[0].queued == 1).await;
    let error = transport.send(&request(&peer.origin())).await.unwrap_err();
    assert_eq!(not_sent(&error), &FailureCause::Overloaded);
    assert!(error.retry_after.is_some());
    wire.answer(1).await;
    wire.serve().await;
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_who_waits_keeps_its_deadline() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.max_connections = 1);
    let first = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    wire.request().await;
    let hurried = Request { deadline: Instant::now() + SHORT, ..request(&peer.origin()) };
    let error = transport.send(&hurried).await.unwrap_err();
    assert_eq!(not_sent(&error), &FailureCause::Deadline);
    assert_eq!(transport.snapshot()[0].queued, 0);
    wire.answer(1).await;
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_given_to_one_who_has_left_is_given_back() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.max_connections = 1);
    let first = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    wire.request().await;
    let request_of_one_who_leaves = request(&peer.origin());
    let mut second = Box::pin(transport.send(&request_of_one_who_leaves));
    assert!((&mut second).now_or_never().is_none());
    wire.answer(1).await;
    first.await.unwrap().unwrap();
    // It is granted by now, and does not know it yet.
    assert_eq!((transport.snapshot()[0].queued, transport.snapshot()[0].streams), (0, 1));
    drop(second);
    let third = push(&transport, request(&peer.origin()));
    wire.serve().await;
    third.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_breaker_opens_and_lets_one_probe_pass() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| {
        settings.breaker_failures = 3;
        settings.backoff_base = Duration::from_millis(100);
    });
    let origin = peer.origin();
    let peer = peer.stop();
    let error = transport.send(&request(&origin)).await.unwrap_err();
    assert_eq!(not_sent(&error), &FailureCause::Connect);
    assert!(error.retry_after.is_some());
    let error = transport.send(&request(&origin)).await.unwrap_err();
    assert_eq!(not_sent(&error), &FailureCause::PeerDown);
    assert!(error.retry_after.is_some());
    assert_eq!(error.reason(), "no connection could be opened");
    assert!(error.is_unreached());

    let peer = peer.listen().await;
    until(|| transport.snapshot()[0].breaker == BreakerState::HalfOpen).await;
    let probe = push(&transport, request(&origin));
    until(|| transport.snapshot()[0].queued == 1).await;
    let error = transport.send(&request(&origin)).await.unwrap_err();
    assert_eq!(not_sent(&error), &FailureCause::PeerDown);
    let mut wire = peer.accept(&[]).await;
    wire.serve().await;
    probe.await.unwrap().unwrap();
    assert_eq!(transport.snapshot()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_peer_that_comes_back_soon_costs_nothing() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.backoff_base = Duration::from_millis(100));
    let origin = peer.origin();
    let peer = peer.stop();
    let send = push(&transport, request(&origin));
    until(|| transport.snapshot().first().is_some_and(|stats| stats.queued == 1)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let peer = peer.listen().await;
    let mut wire = peer.accept(&[]).await;
    wire.serve().await;
    send.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_handshake_that_hangs_is_given_up() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| {
        settings.connect_timeout = Duration::from_millis(100);
        settings.breaker_failures = 1;
    });
    let send = push(&transport, request(&peer.origin()));
    let _socket = peer.accept_tcp().await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!(not_sent(&error), &FailureCause::ConnectTimeout);
    assert_eq!(error.reason(), "no connection could be opened in time");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.breaker_failures = 1);
    let error = transport.send(&request(&"https://push.invalid".parse().unwrap())).await.unwrap_err();
    assert_eq!(not_sent(&error), &FailureCause::Dns);
}

#[tokio::test]
async fn a_guarded_request_reaches_no_private_address() {
    let peer = Peer::start().await;
    let origin = peer.origin();
    let named = format!("https://localhost:{}", origin.port()).parse().unwrap();
    let open = transport(&peer, |_| {});
    for origin in [&origin, &named] {
        let error = open.send(&Request { guarded: true, ..request(origin) }).await.unwrap_err();
        assert_eq!(not_sent(&error), &FailureCause::ForbiddenAddress);
    }
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn a_request_that_cannot_be_written_is_refused() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    for path in ["?a=b", "*"] {
        let path = PathAndQuery::from_static(path);
        let error = transport.send(&Request { path, ..request(&peer.origin()) }).await;
        assert_eq!(not_sent(&error.unwrap_err()), &FailureCause::InvalidRequest);
    }
    assert!(PathAndQuery::try_from("/a b\n").is_err(), "it cannot even be named");
    for name in ["host", "connection", "te", "content-length", "transfer-encoding"] {
        let mut reserved = request(&peer.origin());
        reserved.headers.push((HeaderName::from_static(name), HeaderValue::from_static("x")));
        assert_eq!(not_sent(&transport.send(&reserved).await.unwrap_err()), &FailureCause::InvalidRequest);
    }
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn an_extra_root_must_be_a_certificate() {
    let settings =
        TransportSettings { extra_roots: vec![b"nonsense".to_vec().into()], ..TransportSettings::default() };
    assert!(matches!(Transport::new(settings), Err(SetupError::InvalidRoot(_))));
}
