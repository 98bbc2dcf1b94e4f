//! What a request that got no answer means for the caller.

use std::borrow::Cow;

use crate::result::{DeliveryResult, deadline_exceeded, unknown};
use pushlet_model::error::{Error, Kind};
use pushlet_transport::{FailureCause, RequestState, SendError};

/// Returns the result of a request that got no answer. `by_target`: the target chose the host, not the
/// provider.
pub(crate) fn no_answer(error: &SendError, by_target: bool) -> DeliveryResult {
    let inner = error.to_string();
    if error.delivery == RequestState::Unknown {
        // Whatever the cause, a request that was sent without an answer is neither delivered nor failed.
        tracing::info!(cause = inner, "outcome unknown");
        return DeliveryResult::Settled(unknown(match error.cause {
            FailureCause::OutOfMemory => {
                "there is no memory left for the response (limit memory_bytes); it may or may not have been delivered"
            }
            FailureCause::TooLarge => "the response is too large; it may or may not have been delivered",
            _ => "the push service did not answer; it may or may not have been delivered",
        }));
    }
    let unreached =
        |when: &str| format!("the push service could not be reached{when}: {}", error.reason()).into();
    let (kind, code, message): (_, _, Cow<'static, str>) = match error.cause {
        FailureCause::Overloaded => {
            (Kind::Overloaded, "overloaded", "too many pushes are waiting for the push service".into())
        }
        FailureCause::TooManyPeers => (
            Kind::Throttled,
            "limit_peers",
            "this tenant sends to as many servers and credentials at the same time as its share of this server \
             allows (limit peers)"
                .into(),
        ),
        FailureCause::ShuttingDown => (Kind::Overloaded, "shutting_down", "the server is shutting down".into()),
        FailureCause::PeerDown => (Kind::Unavailable, "vendor_unreachable", unreached(" lately")),
        FailureCause::Deadline if error.is_unreached() => {
            let message = format!("it could not be sent in time: {}", error.reason());
            (Kind::TimedOut, "deadline_exceeded", message.into())
        }
        FailureCause::Deadline => {
            return DeliveryResult::Failed(deadline_exceeded().after(error.retry_after).caused_by(inner));
        }
        FailureCause::ForbiddenAddress if by_target => {
            (Kind::Invalid, "forbidden_address", "the target is not on the public internet".into())
        }
        FailureCause::ForbiddenAddress => {
            let message = "the provider's endpoint is not on the public internet; \
                           only an endpoint that the operator configured may have a private address";
            (Kind::Provider, "provider_forbidden_address", message.into())
        }
        FailureCause::InvalidRequest => return DeliveryResult::Failed(Error::internal(inner)),
        _ => (Kind::Unreachable, "vendor_unreachable", unreached("")),
    };
    DeliveryResult::Failed(Error::new(kind, code, message).after(error.retry_after).caused_by(inner))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use http::Method;
    use http::uri::PathAndQuery;
    use tokio::time::Instant;

    use super::*;
    use pushlet_model::tenant::TenantId;
    use pushlet_transport::{ClientIdentity, Protocol, Request, Transport, TransportSettings};

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
        transport.send(&request).await.unwrap_err()
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
}
