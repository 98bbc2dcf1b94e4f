//! What is reported, and what is sent again, when a request gets no ordinary answer.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::peer::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, MAX_CONCURRENT_STREAMS, PING, Peer, REFUSED_STREAM,
    RST_STREAM, Wire,
};
use super::{SHORT, push, request, transport, until};
use crate::{FailureCause, Request, RequestState, Transport};

const INITIAL_WINDOW_SIZE: u16 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const INTERNAL_ERROR: u32 = 2;

/// A connection that has served one request.
async fn used(peer: &Peer, transport: &Transport) -> Wire {
    let send = push(transport, request(&peer.origin()));
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    wire.serve().await;
    send.await.unwrap().unwrap();
    wire
}

/// A connection that lets bodies of new streams pass no more.
async fn stopped(peer: &Peer, transport: &Transport) -> Wire {
    let mut wire = used(peer, transport).await;
    wire.settings(&[(INITIAL_WINDOW_SIZE, 0)]).await;
    while wire.acks < 2 {
        wire.any_frame().await.unwrap();
    }
    wire
}

fn hurried(peer: &Peer) -> Request {
    Request { deadline: Instant::now() + SHORT, ..request(&peer.origin()) }
}

#[tokio::test]
async fn the_whole_answer_comes_back() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[]).await;
    let (stream, _) = wire.request().await;
    // ":status: 400" of the static table, then a literal field.
    wire.send(HEADERS, END_HEADERS, stream, b"\x8c\x00\x07apns-id\x021f").await;
    wire.send(DATA, 0, stream, b"{\"reason\":").await;
    wire.send(DATA, END_STREAM, stream, b"\"BadTopic\"}").await;
    let response = send.await.unwrap().unwrap();
    assert_eq!(response.status, 400);
    assert_eq!(response.headers["apns-id"], "1f");
    assert_eq!(response.body, "{\"reason\":\"BadTopic\"}");
}

#[tokio::test]
async fn goaway_moves_the_streams_above_and_drains_those_below() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut old = used(&peer, &transport).await;
    let sends: Vec<_> = (0..3).map(|_| push(&transport, request(&peer.origin()))).collect();
    for stream in [3, 5, 7] {
        assert_eq!(old.request().await.0, stream);
    }
    old.goaway(5, 0, b"").await;
    let mut new = peer.accept(&[]).await;
    new.serve().await;
    old.answer(3).await;
    old.answer(5).await;
    for send in sends {
        assert_eq!(send.await.unwrap().unwrap().status, 200);
    }
    old.closed().await;
    assert!(timeout(SHORT, new.frame()).await.is_err(), "a request was sent twice");
}

#[tokio::test]
async fn goaway_in_two_steps_loses_nothing() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut old = used(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    old.request().await;
    old.goaway(u32::MAX >> 1, 0, b"").await;
    old.goaway(1, 0, b"").await;
    let mut new = peer.accept(&[]).await;
    new.serve().await;
    send.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_goaway_may_have_processed_is_unknown_when_the_connection_ends() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    let (stream, _) = wire.request().await;
    wire.goaway(stream, INTERNAL_ERROR, br#"{"reason":"InternalServerError"}"#).await;
    drop(wire);
    let error = send.await.unwrap().unwrap_err();
    assert_eq!(error.delivery, RequestState::Unknown);
    assert_eq!(error.cause, FailureCause::GoAway { code: 2, reason: Some("InternalServerError".to_owned()) });
}

#[tokio::test]
async fn the_reason_of_a_goaway_is_reported_when_no_connection_takes_the_request() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| {
        settings.breaker_failures = 2;
        settings.backoff_base = Duration::from_millis(10);
    });
    let send = push(&transport, request(&peer.origin()));
    for _ in 0..2 {
        let mut wire = peer.accept(&[]).await;
        wire.request().await;
        wire.goaway(0, 0, br#"{"reason":"BadCertificate"}"#).await;
    }
    let error = send.await.unwrap().unwrap_err();
    assert_eq!(error.delivery, RequestState::NotSent);
    assert_eq!(error.cause, FailureCause::GoAway { code: 0, reason: Some("BadCertificate".to_owned()) });
    assert!(error.retry_after.is_some());
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    for _ in 0..3 {
        let (stream, _) = wire.request().await;
        wire.reset(stream, REFUSED_STREAM).await;
    }
    wire.serve().await;
    send.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_refused_again_and_again_is_given_up() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    let refuse = async {
        loop {
            let (stream, _) = wire.request().await;
            wire.reset(stream, REFUSED_STREAM).await;
        }
    };
    let error =
        tokio::select! { result = send => result.unwrap().unwrap_err(), () = refuse => unreachable!() };
    assert_eq!((error.delivery, error.cause), (RequestState::NotSent, FailureCause::Refused));
}

#[tokio::test]
async fn a_reset_after_the_request_was_written_is_unknown() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    let (stream, _) = wire.request().await;
    wire.reset(stream, INTERNAL_ERROR).await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::Reset(2)));
    assert!(timeout(SHORT, wire.frame()).await.is_err(), "it was sent again");
}

#[tokio::test]
async fn a_connection_cut_after_the_request_was_written_is_unknown() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    wire.request().await;
    drop(wire);
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::ConnectionLost));
    // The next request finds a new connection.
    used(&peer, &transport).await;
}

#[tokio::test]
async fn a_request_without_a_body_is_written_with_its_head() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, Request { body: Bytes::new(), ..request(&peer.origin()) });
    wire.request().await;
    drop(wire);
    assert_eq!(send.await.unwrap().unwrap_err().delivery, RequestState::Unknown);
}

#[tokio::test]
async fn a_connection_cut_before_the_request_was_written_is_no_loss() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = stopped(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    let head = wire.frame().await.unwrap();
    assert_eq!((head.kind, head.flags & END_STREAM), (HEADERS, 0));
    drop(wire);
    let mut new = peer.accept(&[]).await;
    new.serve().await;
    send.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_could_not_be_written_in_time_was_not_sent() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = stopped(&peer, &transport).await;
    let send = push(&transport, hurried(&peer));
    let head = wire.frame().await.unwrap();
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::NotSent, FailureCause::Deadline));
    let reset = wire.frame().await.unwrap();
    assert_eq!((reset.kind, reset.stream, &reset.payload[..]), (RST_STREAM, head.stream, &CANCEL[..]));
}

#[tokio::test]
async fn a_peer_that_is_slow_but_alive_keeps_its_connection() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, hurried(&peer));
    let (stream, _) = wire.request().await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::Deadline));
    let mut frames = [wire.frame().await.unwrap(), wire.frame().await.unwrap()];
    frames.sort_by_key(|frame| frame.kind);
    let [reset, ping] = frames;
    assert_eq!((reset.kind, reset.stream), (RST_STREAM, stream));
    assert_eq!(ping.kind, PING);

    // Meanwhile nothing new is put on it; once it is known to live, it is used again.
    let send = push(&transport, request(&peer.origin()));
    let mut other = peer.accept(&[]).await;
    other.serve().await;
    send.await.unwrap().unwrap();
    wire.send(PING, ACK, 0, &ping.payload).await;
    wire.settings(&[(MAX_CONCURRENT_STREAMS, 50)]).await;
    while wire.acks < 2 {
        wire.any_frame().await.unwrap();
    }
    let send = push(&transport, request(&peer.origin()));
    wire.serve().await;
    send.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_half_open_connection_is_found_out() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.ping_timeout = SHORT);
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, hurried(&peer));
    wire.request().await;
    assert_eq!(send.await.unwrap().unwrap_err().cause, FailureCause::Deadline);
    // It says nothing more, not even to the PING.
    until(|| transport.snapshot()[0].connections == 0).await;
    used(&peer, &transport).await;
}

#[tokio::test]
async fn a_caller_that_leaves_after_the_request_was_written_changes_nothing() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    let (left, _) = wire.request().await;
    send.abort();
    assert!(send.await.unwrap_err().is_cancelled());
    let next = push(&transport, request(&peer.origin()));
    // No RST_STREAM comes before it.
    let (stream, _) = wire.request().await;
    assert_eq!(transport.snapshot()[0].streams, 2);
    wire.answer(left).await;
    wire.answer(stream).await;
    next.await.unwrap().unwrap();
    until(|| transport.snapshot()[0].streams == 0).await;
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_request_was_written_takes_it_back() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = stopped(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    let head = wire.frame().await.unwrap();
    send.abort();
    let reset = wire.frame().await.unwrap();
    assert_eq!((reset.kind, reset.stream, &reset.payload[..]), (RST_STREAM, head.stream, &CANCEL[..]));
    until(|| transport.snapshot()[0].streams == 0).await;
}

#[tokio::test]
async fn too_large_an_answer_is_refused() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.max_response = 10);
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    let (stream, _) = wire.request().await;
    wire.send(HEADERS, END_HEADERS, stream, &[0x88]).await;
    wire.send(DATA, 0, stream, b"0123456789").await;
    wire.send(DATA, 0, stream, b"0").await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::TooLarge));
    assert_eq!(wire.frame().await.unwrap().kind, RST_STREAM);
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_named() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wire = used(&peer, &transport).await;
    let send = push(&transport, request(&peer.origin()));
    wire.request().await;
    wire.send(DATA, 0, 0, b"no stream 0").await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::Protocol));
    used(&peer, &transport).await;
}
