//! The tries of one exchange: what they settled, and what is left to try again.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use crate::delivery::{Batch, BatchResults, Delivery, EncodedRequest, ExchangeResult};
use crate::retry::{self, RetryConditions};
use crate::status::DeliveryResult;

/// From the first try to the last.
pub(super) struct RetryState {
    settled: BatchResults,
    /// Targets to be tried again, by their place in the batch, and when.
    again: Vec<usize>,
    resume: Instant,
    /// Targets that an earlier try may have reached.
    perhaps_reached: HashSet<usize>,
    /// The token was replaced already.
    renewed: bool,
    /// Tries after the first.
    retries: u32,
}

impl RetryState {
    pub fn new() -> Self {
        Self {
            settled: BatchResults { results: Vec::new(), native: None },
            again: Vec::new(),
            resume: Instant::now(),
            perhaps_reached: HashSet::new(),
            renewed: false,
            retries: 0,
        }
    }

    /// Notes what a try came to. True: every target has its final fate.
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
            may_resend_unknown: work.message.idempotent && delivery.gateway.0.delivery.resend_unknown,
            new_token: attempt.new_token && !self.renewed,
            random: rand::random(),
        };
        self.renewed |= attempt.new_token;
        self.settled.results.reserve(attempt.fates.len());
        for (index, fate) in work.covers.into_iter().zip(attempt.fates) {
            let pause = retry::pause(&fate, conditions).and_then(|wait| Instant::now().checked_add(wait));
            match pause.filter(|until| *until < batch.deadline) {
                Some(until) => {
                    self.resume = self.resume.max(until);
                    if retry::is_unknown(&fate) {
                        self.perhaps_reached.insert(index);
                    }
                    self.again.push(index);
                }
                None => {
                    let fate =
                        retry::with_retry_hint(fate, self.perhaps_reached.contains(&index), conditions);
                    self.settled.results.push(DeliveryResult { index, fate, attempts: self.retries + 1 });
                }
            }
        }
        self.again.is_empty()
    }

    /// Tries again what is left, until every target has its final fate.
    pub async fn go_on(&mut self, delivery: &Delivery, batch: &Arc<Batch>) {
        while !self.again.is_empty() {
            tokio::time::sleep_until(self.resume).await;
            self.retries += 1;
            let again = std::mem::take(&mut self.again);
            let (pending, refused) = delivery.encode(batch, &again).await;
            let as_known = |index, fate| match self.perhaps_reached.contains(&index) {
                true => retry::after_unknown(fate),
                false => fate,
            };
            // The tries before this one, which was not made.
            let attempts = self.retries;
            let refused = refused.into_iter().map(|(index, fate)| (index, as_known(index, fate)));
            let results = refused.map(|(index, fate)| DeliveryResult { index, fate, attempts });
            self.settled.results.extend(results);
            self.resume = Instant::now();
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
