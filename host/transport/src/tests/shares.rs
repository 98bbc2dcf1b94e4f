//! What tenants share, and cannot take from each other.

use std::time::Duration;

use super::peer::{MAX_CONCURRENT_STREAMS, Peer, Setup};
use super::{push, request, transport, until};
use crate::{ClientIdentity, FailureCause, Origin, Protocol, Request, RequestState};
use pushlet_model::digest::DigestParts;
use pushlet_model::tenant::TenantId;

fn of(tenant: &str, identity: &str, origin: &Origin) -> Request {
    let identity = ClientIdentity::Token(DigestParts::of(&[identity.as_bytes()]));
    Request { tenant: TenantId::new(tenant), identity, ..request(origin) }
}

/// A request of the tenant to a server that accepts connections and says nothing.
fn stuck(tenant: &str, protocol: Protocol, number: usize, origin: &Origin) -> Request {
    Request { protocol, ..of(tenant, &format!("{tenant}{number}"), origin) }
}

#[tokio::test]
async fn peers_that_a_tenant_keeps_busy_leave_room_for_the_others() {
    for protocol in [Protocol::Http2, Protocol::Https] {
        let silent = Peer::start().await;
        let transport = transport(&silent, |settings| settings.max_peers = 400);
        let sends: Vec<_> = (0..600)
            .map(|number| push(&transport, stuck("flood", protocol, number, &silent.origin())))
            .collect();
        let refused = || sends.iter().filter(|send| send.is_finished()).count();
        until(|| refused() + transport.snapshot().len() >= sends.len()).await;
        let one_more = stuck("flood", protocol, 1_000, &silent.origin());
        let error = transport.send(&one_more).await.unwrap_err();
        assert_eq!((error.delivery, error.cause), (RequestState::NotSent, FailureCause::TooManyPeers));
        let flood = transport.snapshot().iter().filter(|stats| stats.tenant.as_str() == "flood").count();
        assert!((50..=112).contains(&flood), "{flood}");
        let other = push(&transport, stuck("other", protocol, 0, &silent.origin()));
        until(|| transport.snapshot().iter().any(|stats| stats.tenant.as_str() == "other")).await;
        assert!(!other.is_finished(), "it is on its way");
        sends.iter().chain([&other]).for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test]
async fn an_idle_pool_makes_room_and_closes_its_connection() {
    let peer = Peer::start().await;
    // One pool of a tenant in each shard.
    let transport = transport(&peer, |settings| settings.max_peers = 1);
    let mut wires = Vec::new();
    for number in 0..40 {
        let identity = number.to_string();
        let send = push(&transport, of("acme", &identity, &peer.origin()));
        let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
        wire.serve().await;
        assert_eq!(send.await.unwrap().unwrap().status, 200);
        wires.push(wire);
    }
    // They close in order, and are no longer counted.
    until(|| transport.snapshot().len() <= 16).await;
}

#[tokio::test]
async fn tenants_without_a_credential_never_share_a_peer() {
    let peer = Peer::with(Setup { alpn: "h2 http/1.1", ..Setup::default() }).await;
    let transport = transport(&peer, |_| {});
    for tenant in ["one", "other"] {
        let own = Request {
            tenant: TenantId::new(tenant),
            protocol: Protocol::Https,
            deadline: tokio::time::Instant::now() + Duration::from_secs(15),
            ..request(&peer.origin())
        };
        let send = push(&transport, own);
        let mut wire = peer.accept(&[]).await;
        wire.serve().await;
        send.await.unwrap().unwrap();
    }
    assert_eq!(transport.snapshot().len(), 2);
    transport.retire(&TenantId::new("one"), &ClientIdentity::Anonymous);
    let left = transport.snapshot();
    assert_eq!((left.len(), left[0].tenant.as_str()), (1, "other"));
}

#[tokio::test]
async fn a_retired_pool_is_forgotten_though_nobody_asks_for_another() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let send = push(&transport, of("acme", "key", &peer.origin()));
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    wire.serve().await;
    send.await.unwrap().unwrap();
    assert_eq!(transport.snapshot().len(), 1);
    transport.retire(&TenantId::new("acme"), &ClientIdentity::Token(DigestParts::of(&[b"key"])));
    until(|| transport.snapshot().is_empty()).await;
}
