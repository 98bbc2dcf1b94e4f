//! Against scripted peers over real sockets and real TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connections;
mod dials;
mod fate;
mod heads;
mod https;
mod informational;
mod peer;
mod refusals;
mod shares;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::uri::PathAndQuery;
use tokio::time::Instant;

use super::{ClientIdentity, Origin, Protocol, Request, Transport, TransportSettings};
use peer::Peer;
use pushlet_model::tenant::TenantId;

/// Long enough for anything that shall happen.
const LONG: Duration = Duration::from_secs(15);
/// For what shall not happen.
const SHORT: Duration = Duration::from_millis(300);

/// A transport that trusts the peer.
fn transport(peer: &Peer, change: impl FnOnce(&mut TransportSettings)) -> Transport {
    let mut settings =
        TransportSettings { extra_roots: vec![peer.authority.root()], ..TransportSettings::default() };
    change(&mut settings);
    Transport::new(settings).unwrap()
}

fn request(origin: &Origin) -> Request {
    Request {
        tenant: TenantId::default_tenant(),
        origin: origin.clone(),
        protocol: Protocol::Http2,
        identity: ClientIdentity::Anonymous,
        method: Method::POST,
        path: PathAndQuery::from_static("/3/device/00"),
        common_headers: Arc::default(),
        headers: Vec::new(),
        body: Bytes::from_static(b"{}"),
        deadline: Instant::now() + LONG,
        guarded: false,
        payer: None,
    }
}

/// A push that runs by itself.
fn push(
    transport: &Transport,
    request: Request,
) -> tokio::task::JoinHandle<Result<super::Response, super::SendError>> {
    let transport = transport.clone();
    tokio::spawn(async move { transport.send(&request).await })
}

/// Yields until the condition holds.
async fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LONG, "it never came to be");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
