//! One notification to many targets: encode, authorise, send, decode, and again where that makes sense.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::delivery::{Batch, BatchResults, Delivery, EncodedRequest, MOST_AT_ONCE};
use crate::retry_state::RetryState;
use crate::status::{DeliveryResult, Fate};
use pushlet_model::contract::{Disposition, Notification, Target};
use pushlet_model::error::Error;

impl Delivery {
    /// One result per target, in order, and the service's own answer if it was asked for.
    pub async fn run(
        &self,
        targets: &Arc<[Target]>,
        notification: &Arc<Notification>,
        deadline: Instant,
    ) -> Result<(Vec<DeliveryResult>, Option<String>), Error> {
        let mut results: Vec<Option<DeliveryResult>> = vec![None; targets.len()];
        let mut native = None;
        let mut under_way = FuturesUnordered::new();
        let size = self.batch_size();
        let mut starts = (0..targets.len()).step_by(size);
        loop {
            while under_way.len() < MOST_AT_ONCE {
                let Some(start) = starts.next() else { break };
                let some = (targets.clone(), start..targets.len().min(start + size));
                let batch = self.batch(start, some, notification.clone(), deadline)?;
                under_way.extend(self.launch(batch).await);
            }
            let Some(settled) = under_way.next().await else { break };
            native = settled.native.or(native);
            for result in settled.results {
                let index = result.index;
                results[index] = Some(result);
            }
        }
        let missing =
            |index| DeliveryResult::untried(index, Fate::Failed(Error::internal("a target was lost")));
        let results = results.into_iter().enumerate();
        Ok((results.map(|(index, result)| result.unwrap_or_else(|| missing(index))).collect(), native))
    }

    /// Encodes the batch: what it has to wait for, exchange by exchange.
    pub async fn launch(
        &self,
        batch: Arc<Batch>,
    ) -> impl Iterator<Item = impl Future<Output = BatchResults>> {
        let all: Vec<usize> = (0..batch.targets().len()).collect();
        let (work, refused) = self.encode(&batch, &all).await;
        let first = batch.first;
        refused.iter().for_each(|(index, fate)| self.counters.settled(&batch.targets()[*index], fate));
        let refused = refused.into_iter().map(|(index, fate)| DeliveryResult::untried(first + index, fate));
        let at_once = std::future::ready(BatchResults { results: refused.collect(), native: None });
        let work = work.into_iter().map(move |work| self.settle(batch.clone(), work).right_future());
        std::iter::once(at_once.left_future()).chain(work)
    }

    /// What the service said of a dead token is kept for those who ask by `application_feedback`.
    fn report_if_dead(&self, target: &Target, fate: &Fate) {
        if let (Target::Device(token), Fate::Settled(outcome)) = (target, fate)
            && let Disposition::Unregistered(since) = &outcome.disposition
        {
            let since = since.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
            self.application.feedback.report(
                token,
                since.unwrap_or_else(SystemTime::now),
                Some(&self.purpose.payer),
            );
        }
    }

    /// Tries until every target of the exchange has its final fate. There is one of these for each target under
    /// way, so it is small: who must try again pays for that himself.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` would keep its arguments twice")]
    fn settle(&self, batch: Arc<Batch>, work: EncodedRequest) -> impl Future<Output = BatchResults> {
        async move {
            let attempt = self.attempt(&batch, &work).await;
            let mut state = RetryState::new();
            if !state.record(self, &batch, work, attempt) {
                Box::pin(state.go_on(self, &batch)).await;
            }
            let mut settled = state.end();
            for DeliveryResult { index, fate, .. } in &mut settled.results {
                self.counters.settled(&batch.targets()[*index], fate);
                self.report_if_dead(&batch.targets()[*index], fate);
                *index += batch.first;
            }
            settled
        }
    }
}
