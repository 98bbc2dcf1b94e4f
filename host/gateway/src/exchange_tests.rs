#![allow(clippy::unwrap_used, clippy::panic)]
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::uri::PathAndQuery;
use tokio::time::Instant;

use super::*;
use pushlet_model::tenant::TenantId;
use pushlet_transport::{ClientIdentity, Protocol, Request, SendError, Transport, TransportSettings};

/// A push to this machine, which is not on the public internet.
async fn guarded() -> SendError {
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let extra_roots = vec![root.der().clone()];
    let transport =
        Transport::new(TransportSettings { extra_roots, ..TransportSettings::default() }).unwrap();
    let request = Request {
        tenant: TenantId::new("acme"),
        origin: "https://127.0.0.1:9".parse().unwrap(),
        protocol: Protocol::Http2,
        identity: ClientIdentity::Anonymous,
        method: Method::POST,
        path: PathAndQuery::from_static("/"),
        common_headers: Arc::default(),
        headers: Vec::new(),
        body: Bytes::new(),
        deadline: Instant::now() + Duration::from_secs(30),
        guarded: true,
        payer: None,
    };
    transport.send(request).await.unwrap_err()
}

#[tokio::test]
async fn a_private_address_is_the_fault_of_who_named_it() {
    let error = guarded().await;
    let failed = |by_target| match no_answer(&error, by_target) {
        DeliveryResult::Failed(error) => (error.kind, error.code.into_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(true), (Kind::Invalid, "forbidden_address".to_owned()));
    assert_eq!(failed(false), (Kind::Provider, "provider_forbidden_address".to_owned()));
}
