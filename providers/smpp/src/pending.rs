//! A message between its submission and its outcome: one request, or one for each of its parts.

use std::collections::VecDeque;

use crate::pdu::Submit;
use pushlet_provider::reply::{delivered, failed};
use pushlet_provider::{Disposition, Outcome};

/// A message that is not settled.
#[derive(Debug, Default)]
pub struct Pending {
    /// Requests that were not written.
    pub unsent: VecDeque<Submit>,
    /// Requests without an answer.
    pub unanswered: usize,
    pub accepted: usize,
    /// The service's id of the first request.
    pub id: Option<String>,
    /// What the service said of the first request that it refused.
    pub failure: Option<Outcome>,
    /// A request got no answer in time.
    pub lost: bool,
}

impl Pending {
    /// What became of a message none of whose requests is left.
    pub fn outcome(self) -> Outcome {
        match self.failure {
            _ if self.lost => unknown("the service did not answer; it may or may not have been delivered"),
            Some(failure) if self.accepted == 0 => failure,
            // Sent again, its first parts would arrive twice.
            Some(failure) => Outcome {
                disposition: Disposition::Unknown,
                message: Some("the service accepted some parts of the message and refused another".into()),
                ..failure
            },
            None => delivered(self.id),
        }
    }
}

/// Returns the outcome of a message that may or may not have arrived.
pub fn unknown(message: &str) -> Outcome {
    failed(Disposition::Unknown, None, Some(message.into()))
}
