//! What became of one target, in the words that all providers share.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::super::answer;
use super::target;
use crate::contract::{CredentialFault, Disposition, Outcome, Target};
use crate::error::{Error, Kind};
use crate::gateway::Fate;

/// Sorted by who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
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
    /// Sent, but nobody knows whether it arrived.
    Unknown,
    /// The provider component or this server is broken.
    Failed,
    /// It could be sent, and was not because the request said `validate_only`.
    Valid,
}

/// One line of an answer.
#[derive(Debug, Serialize)]
pub(super) struct TargetResult {
    pub index: usize,
    /// As the request named it; not in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Value>,
    pub status: Status,
    /// The service's id of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The service's own reason, or ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<f64>,
    /// When the token died, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The token to use from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
}

/// How many targets came to which status.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub total: usize,
    pub delivered: usize,
    pub unregistered: usize,
    pub replaced: usize,
    pub rejected: usize,
    pub credential_rejected: usize,
    pub throttled: usize,
    pub unavailable: usize,
    pub unknown: usize,
    pub failed: usize,
    pub valid: usize,
}

impl Summary {
    pub fn count(&mut self, status: Status) {
        self.total += 1;
        let counter = match status {
            Status::Delivered => &mut self.delivered,
            Status::Unregistered => &mut self.unregistered,
            Status::Replaced => &mut self.replaced,
            Status::Rejected => &mut self.rejected,
            Status::CredentialRejected => &mut self.credential_rejected,
            Status::Throttled => &mut self.throttled,
            Status::Unavailable => &mut self.unavailable,
            Status::Unknown => &mut self.unknown,
            Status::Failed => &mut self.failed,
            Status::Valid => &mut self.valid,
        };
        *counter += 1;
    }
}

impl TargetResult {
    pub fn new(index: usize, fate: Fate) -> Self {
        match fate {
            Fate::Settled(outcome) => Self::settled(index, outcome),
            Fate::Failed(error) => Self::failed(index, error),
            Fate::Lost(error) => Self { status: Status::Unknown, ..Self::failed(index, error) },
            Fate::Valid => Self::plain(index, Status::Valid),
        }
    }

    /// With the target that it is about.
    pub fn of(self, target: &Target) -> Self {
        Self { target: Some(target::shown(target)), ..self }
    }

    fn plain(index: usize, status: Status) -> Self {
        Self {
            index,
            target: None,
            status,
            id: None,
            code: None,
            message: None,
            field: None,
            retry_after: None,
            since: None,
            replacement: None,
        }
    }

    fn settled(index: usize, outcome: Outcome) -> Self {
        let Outcome { disposition, id, code, message, .. } = outcome;
        let (mut retry_after, mut since, mut replacement) = (None, None, None);
        let status = match disposition {
            Disposition::Delivered => Status::Delivered,
            Disposition::Unregistered(at) => {
                since = at.and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
                Status::Unregistered
            }
            Disposition::Replaced(token) => {
                replacement = Some(token);
                Status::Replaced
            }
            Disposition::Rejected => Status::Rejected,
            Disposition::CredentialRejected(CredentialFault::Expired | CredentialFault::Refused) => {
                Status::CredentialRejected
            }
            Disposition::Throttled(throttle) => {
                retry_after = throttle.retry_after;
                Status::Throttled
            }
            Disposition::Unavailable(wait) => {
                retry_after = wait;
                Status::Unavailable
            }
            Disposition::Unknown => Status::Unknown,
        };
        Self {
            id,
            code,
            message,
            retry_after: retry_after.map(|ms| Duration::from_millis(ms).as_secs_f64()),
            since: since.map(|since| answer::utc(since).to_string()),
            replacement,
            ..Self::plain(index, status)
        }
    }

    fn failed(index: usize, error: Error) -> Self {
        let status = match error.kind {
            _ if error.code.starts_with("provider_") => Status::Failed,
            Kind::Internal | Kind::Provider => Status::Failed,
            Kind::CredentialRejected => Status::CredentialRejected,
            Kind::Throttled => Status::Throttled,
            Kind::Gone => Status::Unregistered,
            Kind::Overloaded | Kind::Unreachable | Kind::Unavailable | Kind::TimedOut => Status::Unavailable,
            _ => Status::Rejected,
        };
        Self {
            code: Some(error.code.into_owned()),
            message: Some(error.message.into_owned()),
            field: error.field,
            retry_after: error.retry_after.map(|wait| wait.as_secs_f64()),
            ..Self::plain(index, status)
        }
    }
}
