//! What went wrong on the way, in the caller's terms.

use std::time::Duration;

use crate::contract::{ConnectionHint, Disposition, Outcome, Rejection};
use crate::credential::{AuthorizeError, CredentialError};
use crate::error::{Error, Kind};
use crate::transport::{Cause, Delivery, SendError};

use super::Fate;

/// When it makes sense to try again after a refusal for too many tokens: they stay for up to 20 minutes.
const TOKENS_PAUSE: Duration = Duration::from_secs(60);

/// A send that got no answer.
pub(super) fn no_answer(error: SendError) -> Fate {
    let inner = error.to_string();
    if error.delivery == Delivery::Unknown {
        tracing::info!(cause = inner, "outcome unknown");
        return Fate::Settled(unknown(
            "the push service did not answer; it may or may not have been delivered",
        ));
    }
    let (kind, code, message) = match error.cause {
        Cause::Overloaded => {
            (Kind::Overloaded, "overloaded", "too many pushes are waiting for the push service")
        }
        Cause::TooManyPeers => (
            Kind::Throttled,
            "limit_peers",
            "this tenant sends to as many servers and credentials at the same time as its share of this server \
             allows (limit peers)",
        ),
        Cause::ShuttingDown => (Kind::Overloaded, "shutting_down", "the server is shutting down"),
        Cause::PeerDown => {
            (Kind::Unavailable, "vendor_unreachable", "the push service could not be reached lately")
        }
        Cause::Deadline => {
            return Fate::Failed(deadline_exceeded().after(error.retry_after).caused_by(inner));
        }
        Cause::ForbiddenAddress => {
            (Kind::Invalid, "forbidden_address", "the target is not on the public internet")
        }
        Cause::InvalidRequest => return Fate::Failed(Error::internal(inner)),
        _ => (Kind::Unreachable, "vendor_unreachable", "the push service could not be reached"),
    };
    Fate::Failed(Error::new(kind, code, message).after(error.retry_after).caused_by(inner))
}

/// The caller's deadline came before it could be sent.
pub(super) fn deadline_exceeded() -> Error {
    Error::new(Kind::TimedOut, "deadline_exceeded", "it could not be sent in time")
}

/// Sent, but nobody knows what became of it.
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
        AuthorizeError::Refused { code, .. } => {
            let message = format!("the token endpoint refused the credential: {code}");
            return Error::new(Kind::CredentialRejected, "invalid_credentials", message).caused_by(inner);
        }
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

impl From<CredentialError> for Error {
    fn from(error: CredentialError) -> Self {
        Error::field(error.code, error.field, error.message)
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        let kind = if rejection.code == "payload_too_large" { Kind::TooLarge } else { Kind::Invalid };
        let error = Error::new(kind, rejection.code, rejection.message);
        match rejection.field {
            Some(field) => error.about(field),
            None => error,
        }
    }
}
