//! What became of a target, in the one word that all providers share.

use serde::Serialize;
use utoipa::ToSchema;

use pushlet_model::contract::{Disposition, Outcome};
use pushlet_model::error::{Error, Kind};

/// What became of one target.
#[derive(Debug, Clone)]
pub enum Fate {
    /// The service answered and the provider read the answer; or it was sent and no answer came
    /// (`Disposition::Unknown`).
    Settled(Outcome),
    /// It did not get that far: refused by the provider, or certainly not delivered.
    Failed(Error),
    /// It was sent, and then the provider could not read the answer: it may or may not have arrived.
    Lost(Error),
    /// It could be sent, and was not because the caller only asked; or the service checked it and delivered
    /// nothing, because the caller asked for that.
    Valid,
    /// It was not sent, because it repeats the target of this index.
    Duplicate(usize),
}

/// The result of one target.
#[derive(Debug, Clone)]
pub struct DeliveryResult {
    /// Counts the targets of the send, or the lines of the stream, from 0.
    pub index: usize,
    pub fate: Fate,
    /// How many times it was tried; 0: it did not get that far.
    pub attempts: u32,
}

impl DeliveryResult {
    /// The result of a target that was never tried.
    pub fn untried(index: usize, fate: Fate) -> Self {
        Self { index, fate, attempts: 0 }
    }
}

/// Sorted by who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Delivered,
    /// Drop the token.
    Unregistered,
    /// Delivered; store the new token.
    Replaced,
    /// The message or the token is wrong.
    Rejected,
    /// The operator of the application must act.
    CredentialRejected,
    Throttled,
    Unavailable,
    /// Sent, but nobody ensure_supports whether it arrived.
    Unknown,
    /// The provider component or this server is broken.
    Failed,
    /// It could be sent, and was not because the request said `validate_only`.
    Valid,
    /// It was not sent, because it repeats an earlier target of the same request.
    Duplicate,
}

impl Status {
    /// In the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Delivered,
        Self::Unregistered,
        Self::Replaced,
        Self::Rejected,
        Self::CredentialRejected,
        Self::Throttled,
        Self::Unavailable,
        Self::Unknown,
        Self::Failed,
        Self::Valid,
        Self::Duplicate,
    ];

    /// As it is written in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Unregistered => "unregistered",
            Self::Replaced => "replaced",
            Self::Rejected => "rejected",
            Self::CredentialRejected => "credential_rejected",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::Valid => "valid",
            Self::Duplicate => "duplicate",
        }
    }

    /// Is there nothing to do?
    pub fn is_good(self) -> bool {
        matches!(self, Self::Delivered | Self::Replaced | Self::Valid | Self::Duplicate)
    }
}

impl Fate {
    pub fn status(&self) -> Status {
        match self {
            Self::Settled(outcome) => settled(outcome),
            Self::Failed(error) => failed(error),
            Self::Lost(_) => Status::Unknown,
            Self::Valid => Status::Valid,
            Self::Duplicate(_) => Status::Duplicate,
        }
    }
}

fn settled(outcome: &Outcome) -> Status {
    match outcome.disposition {
        Disposition::Delivered => Status::Delivered,
        Disposition::Unregistered(_) => Status::Unregistered,
        Disposition::Replaced(_) => Status::Replaced,
        Disposition::Rejected => Status::Rejected,
        Disposition::CredentialRejected(_) => Status::CredentialRejected,
        Disposition::Throttled(_) => Status::Throttled,
        Disposition::Unavailable(_) => Status::Unavailable,
        Disposition::Unknown => Status::Unknown,
    }
}

fn failed(error: &Error) -> Status {
    match error.kind {
        Kind::Throttled => Status::Throttled,
        Kind::Internal | Kind::Provider | Kind::ProviderTimedOut => Status::Failed,
        Kind::CredentialRejected => Status::CredentialRejected,
        Kind::Gone => Status::Unregistered,
        Kind::Overloaded | Kind::Unreachable | Kind::Unavailable | Kind::TimedOut => Status::Unavailable,
        _ => Status::Rejected,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_are_there_in_order_and_named_as_they_are_serialized() {
        for (number, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, number);
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
        }
    }
}
