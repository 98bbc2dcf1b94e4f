//! What went wrong on the way, in the caller's terms.

use std::borrow::Cow;
use std::time::Duration;

use pushlet_credential::AuthorizeError;
use pushlet_model::contract::{ConnectionHint, Disposition, Outcome};
use pushlet_model::error::{Error, Kind};
use pushlet_transport::{FailureCause, RequestState, SendError};

use crate::status::Fate;

/// When it makes sense to try again after a refusal for too many tokens: they stay for up to 20 minutes.
const TOKENS_PAUSE: Duration = Duration::from_secs(60);

/// A send that got no answer. `by_target`: the target named where it goes, not the provider.
pub(super) fn no_answer(error: &SendError, by_target: bool) -> Fate {
    let inner = error.to_string();
    if error.delivery == RequestState::Unknown {
        tracing::info!(cause = inner, "outcome unknown");
        return Fate::Settled(unknown(match error.cause {
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
            return Fate::Failed(deadline_exceeded().after(error.retry_after).caused_by(inner));
        }
        FailureCause::ForbiddenAddress if by_target => {
            (Kind::Invalid, "forbidden_address", "the target is not on the public internet".into())
        }
        FailureCause::ForbiddenAddress => {
            let message = "the provider's endpoint is not on the public internet; \
                           only an endpoint that the operator configured may have a private address";
            (Kind::Provider, "provider_forbidden_address", message.into())
        }
        FailureCause::InvalidRequest => return Fate::Failed(Error::internal(inner)),
        _ => (Kind::Unreachable, "vendor_unreachable", unreached("")),
    };
    Fate::Failed(Error::new(kind, code, message).after(error.retry_after).caused_by(inner))
}

/// The caller's deadline came before it could be sent.
pub(super) fn deadline_exceeded() -> Error {
    Error::new(Kind::TimedOut, "deadline_exceeded", "it could not be sent in time")
}

/// Sent, but nobody ensure_supports what became of it.
pub(super) fn unknown(message: &str) -> Outcome {
    Outcome {
        disposition: Disposition::Unknown,
        id: None,
        code: None,
        message: Some(message.to_owned()),
        connection: ConnectionHint::Keep,
    }
}

/// An exchange that could not be authenticated.
pub(super) fn not_authorized(error: AuthorizeError) -> Error {
    let inner = format!("{error:?}");
    let (kind, code) = match &error {
        AuthorizeError::NoCapacity(error) => return error.clone(),
        AuthorizeError::MissingSetting(_) => (Kind::Invalid, "missing_setting"),
        AuthorizeError::Manifest(_) => (Kind::Provider, "provider_bad_manifest"),
        AuthorizeError::Refused { .. } => (Kind::CredentialRejected, "invalid_credentials"),
        AuthorizeError::Forbidden { .. } => (Kind::Invalid, "token_endpoint_forbidden"),
        AuthorizeError::Unavailable { .. } | AuthorizeError::Malformed(_) => {
            (Kind::Unreachable, "token_endpoint_unavailable")
        }
        AuthorizeError::DeadlineExceeded => (Kind::TimedOut, "deadline_exceeded"),
        AuthorizeError::TooManyTokens => {
            let message = error.to_string();
            return Error::new(Kind::Throttled, "limit_tokens", message).after(TOKENS_PAUSE);
        }
        AuthorizeError::Signing => return Error::internal(inner),
    };
    let retry_after = match &error {
        AuthorizeError::Unavailable { retry_after, .. } => *retry_after,
        _ => None,
    };
    Error::new(kind, code, error.to_string()).after(retry_after).caused_by(inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

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
        transport.send(request).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_private_address_is_the_fault_of_who_named_it() {
        let error = guarded().await;
        let failed = |by_target| match no_answer(&error, by_target) {
            Fate::Failed(error) => (error.kind, error.code.into_owned()),
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(true), (Kind::Invalid, "forbidden_address".to_owned()));
        assert_eq!(failed(false), (Kind::Provider, "provider_forbidden_address".to_owned()));
    }
}
