//! When a push is sent again. Only this file decides that, by the push's result.
//!
//! Never sent again: a delivered push, a dead token, a wrong message, a refused credential. Sent again after
//! the service's own `Retry-After`, or after a pause that doubles: throttled, unavailable, unreachable. Sent
//! again at once, and once: an expired token. An unknown outcome is sent again only where a second delivery
//! does no harm and the operator allows it. A retry that would begin after the caller's deadline is not made.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::{Batch, Delivery, EncodedRequest, EncodedTargets};
use crate::result::{BatchResults, DeliveryResult, ExchangeResult, IndexedResult, unknown};
use pushlet_model::contract::{CredentialFault, Disposition, Outcome, Throttle};
use pushlet_model::error::Kind;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The least `retry_after` in a result for which the service gave none.
const LEAST_ADVICE: Duration = Duration::from_secs(1);

/// The tries of one exchange.
pub(super) struct RetryState {
    settled: BatchResults,
    /// Targets to be tried again, by their index in the batch, and when.
    again: Vec<usize>,
    /// None: at once.
    resume: Option<Instant>,
    /// Targets that an earlier try may have delivered to.
    perhaps_reached: HashSet<usize>,
    /// The token was replaced already.
    renewed: bool,
    /// Tries after the first.
    retries: u32,
}

impl Delivery {
    /// Encodes all targets of a batch. What another server began to send is only sent again where the service recognises
    /// that; otherwise its result is unknown.
    pub(crate) async fn encode_all(&self, batch: &Arc<Batch>) -> EncodedTargets {
        let all: Vec<usize> = (0..batch.recipients().len()).collect();
        let (requests, mut refused) = self.encode(batch, &all).await;
        if !self.is_resumed() {
            return (requests, refused);
        }
        let (again, lost): (Vec<_>, Vec<_>) = requests.into_iter().partition(EncodedRequest::is_idempotent);
        refused = refused.into_iter().map(|(index, result)| (index, after_unknown(result))).collect();
        let covered = lost.into_iter().flat_map(|request| request.covers);
        refused.extend(covered.map(|index| (index, interrupted())));
        (again, refused)
    }

    fn is_resumed(&self) -> bool {
        self.purpose.queued.as_ref().is_some_and(|work| work.resumed)
    }
}

/// Returns the result of a target whose send a server began that has ended since.
pub(crate) fn interrupted() -> DeliveryResult {
    DeliveryResult::Settled(unknown("the server that sent it ended before the answer was stored"))
}

impl RetryState {
    pub fn new(delivery: &Delivery, request: &EncodedRequest) -> Self {
        let perhaps_reached: &[usize] = if delivery.is_resumed() { &request.covers } else { &[] };
        Self {
            settled: BatchResults { results: Vec::new(), native: None },
            again: Vec::new(),
            resume: None,
            perhaps_reached: perhaps_reached.iter().copied().collect(),
            renewed: false,
            retries: 0,
        }
    }

    /// Records the results of a try. Returns true if every target has its final result.
    pub fn record(
        &mut self,
        delivery: &Delivery,
        batch: &Batch,
        work: EncodedRequest,
        attempt: ExchangeResult,
    ) -> bool {
        self.settled.native = attempt.native.or(self.settled.native.take());
        let conditions = RetryConditions {
            retries: self.retries,
            most_retries: delivery.gateway.0.delivery.retries,
            may_resend_unknown: work.is_idempotent() && delivery.gateway.0.delivery.resend_unknown,
            new_token: attempt.new_token && !self.renewed,
            random: rand::random(),
        };
        self.renewed |= attempt.new_token;
        self.settled.results.reserve(attempt.results.len());
        for (index, result) in work.covers.into_iter().zip(attempt.results) {
            let pause = pause(&result, conditions).and_then(|wait| Instant::now().checked_add(wait));
            // A retry after the deadline could not be reported to the caller any more.
            match pause.filter(|until| *until < batch.deadline) {
                Some(until) => {
                    self.resume = self.resume.max(Some(until));
                    if is_unknown(&result) {
                        // A later failure must not hide that this try may have been delivered.
                        self.perhaps_reached.insert(index);
                    }
                    self.again.push(index);
                }
                None => {
                    let result = with_retry_hint(result, self.perhaps_reached.contains(&index), conditions);
                    self.settled.results.push(IndexedResult {
                        index,
                        result,
                        attempts: self.retries + 1,
                        captured: None,
                    });
                }
            }
        }
        self.again.is_empty()
    }

    /// Tries the remaining targets again, until every target has its final result.
    pub async fn go_on(&mut self, delivery: &Delivery, batch: &Arc<Batch>) {
        while !self.again.is_empty() {
            if let Some(resume) = self.resume.take() {
                tokio::time::sleep_until(resume).await;
            }
            self.retries += 1;
            let again = std::mem::take(&mut self.again);
            let (pending, refused) = delivery.encode(batch, &again).await;
            let as_known = |index, result| match self.perhaps_reached.contains(&index) {
                true => after_unknown(result),
                false => result,
            };
            // The tries before this one, which was not made.
            let attempts = self.retries;
            let refused = refused.into_iter().map(|(index, result)| (index, as_known(index, result)));
            let results =
                refused.map(|(index, result)| IndexedResult { index, result, attempts, captured: None });
            self.settled.results.extend(results);
            for work in pending {
                let attempt = delivery.attempt(batch, &work).await;
                self.record(delivery, batch, work, attempt);
            }
        }
    }

    pub fn end(self) -> BatchResults {
        self.settled
    }
}

/// What the decision depends on besides the result.
#[derive(Debug, Clone, Copy)]
struct RetryConditions {
    /// Tries so far, after the first.
    pub retries: u32,
    /// The most retries that the operator allows.
    pub most_retries: u32,
    /// The service recognises a repeated request, and the operator allows that unknown outcomes are sent
    /// again.
    pub may_resend_unknown: bool,
    /// A new token can be had in place of the expired one, and none was fetched for this push before.
    pub new_token: bool,
    /// 0 to 1: spreads the retries of many pushes.
    pub random: f64,
}

/// Returns how long to wait before the next try, or None if this result is final.
fn pause(result: &DeliveryResult, conditions: RetryConditions) -> Option<Duration> {
    if conditions.retries >= conditions.most_retries {
        return None;
    }
    let backoff = || backoff(conditions);
    match result {
        DeliveryResult::Settled(outcome) => match &outcome.disposition {
            Disposition::Throttled(throttle) => Some(throttle.retry_after.map_or_else(backoff, wait)),
            Disposition::Unavailable(retry_after) => Some(retry_after.map_or_else(backoff, wait)),
            Disposition::CredentialRejected(CredentialFault::Expired) => {
                conditions.new_token.then_some(Duration::ZERO)
            }
            Disposition::Unknown => conditions.may_resend_unknown.then(backoff),
            _ => None,
        },
        DeliveryResult::Lost(_) | DeliveryResult::Valid | DeliveryResult::Duplicate(_) => None,
        DeliveryResult::Failed(error) => match error.kind {
            Kind::Unreachable | Kind::Unavailable => Some(error.retry_after.unwrap_or_else(backoff)),
            _ => None,
        },
    }
}

/// Returns true if the push may have been delivered.
fn is_unknown(result: &DeliveryResult) -> bool {
    matches!(
        result,
        DeliveryResult::Lost(_) | DeliveryResult::Settled(Outcome { disposition: Disposition::Unknown, .. })
    )
}

/// Returns a final result as the caller gets it: with a time to try again where a retry makes sense, and
/// unknown if an earlier try may have been delivered.
fn with_retry_hint(
    result: DeliveryResult,
    perhaps_reached: bool,
    conditions: RetryConditions,
) -> DeliveryResult {
    if perhaps_reached {
        return after_unknown(result);
    }
    let later = backoff(conditions).max(LEAST_ADVICE);
    let milliseconds = || u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
    match result {
        DeliveryResult::Settled(mut outcome) => {
            match &mut outcome.disposition {
                Disposition::Throttled(Throttle { retry_after, .. })
                | Disposition::Unavailable(retry_after) => {
                    retry_after.get_or_insert_with(milliseconds);
                }
                _ => {}
            }
            DeliveryResult::Settled(outcome)
        }
        DeliveryResult::Failed(mut error) => {
            if matches!(error.kind, Kind::Unreachable | Kind::Unavailable | Kind::Overloaded) {
                error.retry_after.get_or_insert(later);
            }
            DeliveryResult::Failed(error)
        }
        DeliveryResult::Lost(_) | DeliveryResult::Valid | DeliveryResult::Duplicate(_) => result,
    }
}

/// Returns the result of a push that an earlier try may have delivered. What holds for a token or a message
/// at any time stays as it is; a failure of the last try says nothing about the earlier one.
pub(crate) fn after_unknown(result: DeliveryResult) -> DeliveryResult {
    match result {
        DeliveryResult::Settled(outcome) => match outcome.disposition {
            Disposition::Throttled(_) | Disposition::Unavailable(_) | Disposition::CredentialRejected(_) => {
                DeliveryResult::Settled(Outcome { disposition: Disposition::Unknown, ..outcome })
            }
            _ => DeliveryResult::Settled(outcome),
        },
        DeliveryResult::Failed(error) => {
            let message = format!("an earlier try may have arrived; the last one failed: {}", error.message);
            DeliveryResult::Settled(unknown(&message))
        }
        DeliveryResult::Lost(_) | DeliveryResult::Valid | DeliveryResult::Duplicate(_) => result,
    }
}

fn wait(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Doubles with each retry; the upper half is random.
fn backoff(conditions: RetryConditions) -> Duration {
    // Ten doublings are more than eight minutes; without a bound the power would overflow.
    let longest = FIRST_PAUSE * 2_u32.pow(conditions.retries.min(10));
    longest.mul_f64(0.5 + conditions.random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pushlet_model::contract::{ConnectionHint, Scope};
    use pushlet_model::error::Error;

    const FIRST: RetryConditions = RetryConditions {
        retries: 0,
        most_retries: 4,
        may_resend_unknown: false,
        new_token: false,
        random: 1.0,
    };

    fn settled(disposition: Disposition) -> DeliveryResult {
        let outcome =
            Outcome { disposition, id: None, code: None, message: None, connection: ConnectionHint::Keep };
        DeliveryResult::Settled(outcome)
    }

    #[test]
    fn what_is_final_is_never_sent_again() {
        let everything = RetryConditions { may_resend_unknown: true, new_token: true, ..FIRST };
        for disposition in [
            Disposition::Delivered,
            Disposition::Replaced("new".into()),
            Disposition::Unregistered(None),
            Disposition::Rejected,
            Disposition::CredentialRejected(CredentialFault::Refused),
        ] {
            assert_eq!(pause(&settled(disposition), everything), None);
        }
        for kind in
            [Kind::Invalid, Kind::Provider, Kind::TimedOut, Kind::Overloaded, Kind::CredentialRejected]
        {
            assert_eq!(pause(&DeliveryResult::Failed(Error::new(kind, "x", "x")), everything), None);
        }
    }

    #[test]
    fn the_services_own_wait_comes_first_and_else_it_doubles() {
        let throttled =
            |retry_after| settled(Disposition::Throttled(Throttle { scope: Scope::Target, retry_after }));
        assert_eq!(pause(&throttled(Some(60_000)), FIRST), Some(Duration::from_secs(60)));
        assert_eq!(pause(&throttled(None), FIRST), Some(Duration::from_millis(500)));
        let third = RetryConditions { retries: 2, random: 0.0, ..FIRST };
        assert_eq!(pause(&settled(Disposition::Unavailable(None)), third), Some(Duration::from_secs(1)));
        let unreachable = DeliveryResult::Failed(Error::new(Kind::Unreachable, "x", "x"));
        assert_eq!(pause(&unreachable, FIRST), Some(Duration::from_millis(500)));
        let spent = RetryConditions { retries: 4, ..FIRST };
        assert_eq!(pause(&unreachable, spent), None);
    }

    #[test]
    fn an_expired_token_is_replaced_once() {
        let expired = settled(Disposition::CredentialRejected(CredentialFault::Expired));
        assert_eq!(pause(&expired, FIRST), None, "no new token is to be had");
        assert_eq!(pause(&expired, RetryConditions { new_token: true, ..FIRST }), Some(Duration::ZERO));
        let later = RetryConditions { new_token: true, retries: 1, ..FIRST };
        assert_eq!(pause(&expired, later), Some(Duration::ZERO), "after a try that failed otherwise");
    }

    #[test]
    fn an_unknown_outcome_is_sent_again_only_where_that_is_allowed() {
        assert_eq!(pause(&settled(Disposition::Unknown), FIRST), None);
        let allowed = RetryConditions { may_resend_unknown: true, ..FIRST };
        assert!(pause(&settled(Disposition::Unknown), allowed).is_some());
    }

    #[test]
    fn a_final_fate_says_when_to_try_again() {
        let throttled = |retry_after| {
            settled(Disposition::Throttled(Throttle { scope: Scope::Application, retry_after }))
        };
        let wait = |result| match with_retry_hint(result, false, FIRST) {
            DeliveryResult::Settled(Outcome { disposition: Disposition::Throttled(throttle), .. }) => {
                throttle.retry_after
            }
            DeliveryResult::Settled(Outcome { disposition: Disposition::Unavailable(wait), .. }) => wait,
            DeliveryResult::Settled(_)
            | DeliveryResult::Lost(_)
            | DeliveryResult::Valid
            | DeliveryResult::Duplicate(_) => None,
            DeliveryResult::Failed(error) => error.retry_after.map(|wait| wait.as_millis() as u64),
        };
        assert_eq!(wait(throttled(Some(60_000))), Some(60_000));
        assert_eq!(wait(throttled(None)), Some(1000));
        assert_eq!(wait(settled(Disposition::Unavailable(None))), Some(1000));
        assert_eq!(wait(settled(Disposition::Rejected)), None);
        for kind in [Kind::Unreachable, Kind::Unavailable, Kind::Overloaded] {
            assert_eq!(wait(DeliveryResult::Failed(Error::new(kind, "x", "x"))), Some(1000));
        }
        assert_eq!(wait(DeliveryResult::Failed(Error::new(Kind::Invalid, "x", "x"))), None);
    }

    #[test]
    fn a_failed_resend_does_not_hide_that_the_first_try_may_have_arrived() {
        let unknown = |result| is_unknown(&with_retry_hint(result, true, FIRST));
        assert!(unknown(settled(Disposition::Unavailable(None))));
        assert!(unknown(settled(Disposition::CredentialRejected(CredentialFault::Refused))));
        assert!(unknown(DeliveryResult::Failed(Error::new(Kind::TimedOut, "x", "x"))));
        assert!(!unknown(settled(Disposition::Delivered)));
        assert!(!unknown(settled(Disposition::Unregistered(None))));
        assert!(!unknown(settled(Disposition::Rejected)));
    }
}
