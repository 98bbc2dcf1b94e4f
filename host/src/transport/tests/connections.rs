//! When connections are opened, shared, retired and closed.

use std::time::Duration;

use super::peer::{ACK, HEADERS, MAX_CONCURRENT_STREAMS, PING, Peer, Setup};
use super::{SHORT, push, request, transport, until};
use crate::transport::{Cause, Delivery, Identity};

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
