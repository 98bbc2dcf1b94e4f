//! When connections are opened, shared, retired and closed.

use std::time::Duration;

use tokio::time::timeout;

use super::peer::{ACK, Authority, HEADERS, MAX_CONCURRENT_STREAMS, PING, Peer, Setup};
use super::{SHORT, push, request, transport, until};
use crate::{ClientIdentity, FailureCause, Request, RequestState};

#[tokio::test]
async fn the_first_send_opens_one_connection_and_the_next_none() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    assert!(peer.is_quiet());
    let first = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    assert_eq!(wire.serve().await, 1);
    assert_eq!(first.await.unwrap().unwrap().status, 200);
    let second = push(&transport, request(&peer.origin()));
    assert_eq!(wire.serve().await, 3);
    assert_eq!(second.await.unwrap().unwrap().status, 200);
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn sends_that_come_together_share_the_connection_that_is_being_opened() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let sends: Vec<_> = (0..50).map(|_| push(&transport, request(&peer.origin()))).collect();
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    for _ in 0..50 {
        wire.serve().await;
    }
    for send in sends {
        send.await.unwrap().unwrap();
    }
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn different_certificates_never_share_a_connection() {
    let clients = Authority::new();
    let peer = Peer::with(Setup { clients: Some(clients.root()), ..Setup::default() }).await;
    let transport = transport(&peer, |_| {});
    let mut seen = Vec::new();
    for mark in [1, 2] {
        let identity = clients.client(mark);
        let send = push(&transport, Request { identity, ..request(&peer.origin()) });
        let mut wire = peer.accept(&[]).await;
        seen.push(wire.stream.get_ref().1.peer_certificates().unwrap().to_vec());
        wire.serve().await;
        send.await.unwrap().unwrap();
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(transport.snapshot().len(), 2);
}

#[tokio::test]
async fn different_token_families_never_share_a_connection() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut wires = Vec::new();
    for mark in [1, 2] {
        let identity = ClientIdentity::Token([mark; 32]);
        let send = push(&transport, Request { identity, ..request(&peer.origin()) });
        let mut wire = peer.accept(&[]).await;
        wire.serve().await;
        send.await.unwrap().unwrap();
        wires.push(wire);
    }
    let mut names: Vec<_> = transport.snapshot().into_iter().map(|stats| stats.identity).collect();
    names.sort();
    assert_eq!(names, [format!("token:{}", "01".repeat(16)), format!("token:{}", "02".repeat(16))]);
}

#[tokio::test]
async fn the_stream_limit_is_honoured_as_it_changes() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.max_connections = 1);
    let sends: Vec<_> = (0..6).map(|_| push(&transport, request(&peer.origin()))).collect();
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    assert_eq!(wire.request().await.0, 1);
    assert!(timeout(SHORT, wire.frame()).await.is_err(), "a second stream against a limit of 1");

    wire.settings(&[(MAX_CONCURRENT_STREAMS, 3)]).await;
    assert_eq!(wire.request().await.0, 3);
    assert_eq!(wire.request().await.0, 5);
    assert!(timeout(SHORT, wire.frame()).await.is_err(), "a fourth stream against a limit of 3");

    wire.settings(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    wire.answer(1).await;
    wire.answer(3).await;
    assert!(timeout(SHORT, wire.frame()).await.is_err(), "a second stream against the lowered limit");
    wire.answer(5).await;
    for stream in [7, 9, 11] {
        assert_eq!(wire.request().await.0, stream);
        wire.answer(stream).await;
    }
    for send in sends {
        send.await.unwrap().unwrap();
    }
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn the_pool_grows_while_streams_are_short_but_not_beyond_its_bound() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.max_connections = 2);
    let first = push(&transport, request(&peer.origin()));
    let mut one = peer.accept(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    one.serve().await;
    first.await.unwrap().unwrap();

    let sends: Vec<_> = (0..3).map(|_| push(&transport, request(&peer.origin()))).collect();
    assert_eq!(one.request().await.0, 3);
    let mut two = peer.accept(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    two.serve().await;
    let (third, _) = two.request().await;
    assert!(peer.is_quiet());
    one.answer(3).await;
    two.answer(third).await;
    for send in sends {
        send.await.unwrap().unwrap();
    }
    assert_eq!(transport.snapshot()[0].connections, 2);
}

#[tokio::test]
async fn a_connection_without_use_is_closed_in_order() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.idle_timeout = Duration::from_millis(100));
    let send = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[]).await;
    wire.serve().await;
    send.await.unwrap().unwrap();
    wire.closed().await;
    until(|| transport.snapshot()[0].connections == 0).await;

    let send = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[]).await;
    wire.serve().await;
    send.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_can_have_the_connection_closed_after_use() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let sends: Vec<_> = (0..2).map(|_| push(&transport, request(&peer.origin()))).collect();
    let mut old = peer.accept(&[(MAX_CONCURRENT_STREAMS, 2)]).await;
    old.request().await;
    old.request().await;
    old.answer(1).await;
    let mut sends = sends.into_iter();
    sends.next().unwrap().await.unwrap().unwrap().connection.close_after_use();

    let third = push(&transport, request(&peer.origin()));
    let mut new = peer.accept(&[]).await;
    new.serve().await;
    third.await.unwrap().unwrap();
    old.answer(3).await;
    sends.next().unwrap().await.unwrap().unwrap();
    old.closed().await;
}

#[tokio::test]
async fn draining_lets_streams_end_and_refuses_new_ones() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| settings.max_connections = 1);
    let sends: Vec<_> = (0..2).map(|_| push(&transport, request(&peer.origin()))).collect();
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    wire.request().await;
    until(|| transport.snapshot()[0].queued == 1).await;
    let drain = tokio::spawn({
        let transport = transport.clone();
        async move { transport.drain(super::LONG).await }
    });
    tokio::task::yield_now().await;
    let error = transport.send(&request(&peer.origin())).await.unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::NotSent, FailureCause::ShuttingDown));
    wire.answer(1).await;
    wire.serve().await;
    for send in sends {
        send.await.unwrap().unwrap();
    }
    wire.closed().await;
    drain.await.unwrap();
}

#[tokio::test]
async fn draining_ends_in_time_whatever_the_peer_does() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[]).await;
    wire.request().await;
    transport.drain(SHORT).await;
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::ConnectionLost));
}

#[tokio::test]
async fn a_long_silence_is_ended_by_a_ping() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |settings| {
        settings.ping_after = Duration::from_millis(100);
        settings.ping_timeout = Duration::from_secs(2);
    });
    let send = push(&transport, request(&peer.origin()));
    let mut wire = peer.accept(&[]).await;
    wire.serve().await;
    send.await.unwrap().unwrap();
    for _ in 0..3 {
        let ping = wire.frame().await.unwrap();
        assert_eq!((ping.kind, ping.flags), (PING, 0));
        wire.send(PING, ACK, 0, &ping.payload).await;
    }
    let send = push(&transport, request(&peer.origin()));
    let mut frame = wire.frame().await.unwrap();
    while frame.kind == PING {
        wire.send(PING, ACK, 0, &frame.payload).await;
        frame = wire.frame().await.unwrap();
    }
    assert_eq!(frame.kind, HEADERS);
    wire.answer(frame.stream).await;
    send.await.unwrap().unwrap();

    // Unanswered, it ends the connection.
    while wire.frame().await.is_some() {}
    until(|| transport.snapshot()[0].connections == 0).await;
}
