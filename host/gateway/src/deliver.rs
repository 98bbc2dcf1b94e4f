//! One notification to many targets: encode, authorise, send, decode, and again where that makes sense.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use rand::Rng as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::counters::DeliveryCounters;
use super::course::Course;
use super::decode::Waiting;
use super::{DeliveryResult, Fate, Inner, failure, unix_milliseconds};
use pushlet_model::contract::{Context, Disposition, Notification, Outcome, Target};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Account;
use pushlet_registry::RegisteredApplication;
use pushlet_sandbox::{Exchange, Instances, Message, Provider};

/// Targets in one call of `encode`, where an exchange covers fewer.
pub(super) const BATCH: usize = 500;
/// The largest batch that is made for a service whose exchanges cover more targets than [`BATCH`]: legacy GCM takes
/// 1,000 ids in a request.
const LARGEST_BATCH: usize = 1000;
/// Options that ask a service to check a notification without delivering it (see `provider-manifest.options`).
const ONLY_CHECK: [&str; 2] = ["validate_only", "dry_run"];
/// Exchanges of one campaign at once; the transport bounds what all campaigns have under way.
pub(super) const MOST_AT_ONCE: usize = 1000;

/// One application's way to its targets.
pub(super) struct Campaign {
    pub(super) gateway: Arc<Inner>,
    pub(super) tenant: TenantId,
    pub(super) provider: Arc<Provider>,
    /// Did the tenant upload the provider? Else it is everybody's.
    is_own: bool,
    pub(super) instances: Arc<Instances>,
    pub(super) application: Arc<RegisteredApplication>,
    pub(super) purpose: Purpose,
    pub(super) counters: DeliveryCounters,
    pub(super) undecoded: Waiting,
    /// The application's place for this send.
    _place: OwnedSemaphorePermit,
}

/// What a campaign is for, beside sending.
pub(super) struct Purpose {
    /// The account of the tenant that sends.
    pub payer: Arc<Account>,
    /// Hand on the service's own answers.
    pub native: bool,
    /// Go as far as the wire and no further.
    pub validate_only: bool,
}

/// One notification for some targets.
pub(super) struct Batch {
    /// What the caller calls the first target; the others follow.
    first: usize,
    pub(super) targets: Vec<Target>,
    notification: Arc<Notification>,
    /// Does the notification ask the service to check it and to deliver nothing?
    only_checked: bool,
    pub(super) deadline: Instant,
    /// As many bytes per target as the manifest asks for; kept, so that a retry gives the same bytes.
    entropy: Vec<u8>,
}

/// One exchange, and which of the batch's targets it covers.
pub(super) struct Work {
    pub covers: Vec<usize>,
    pub message: Arc<Message>,
    pub exchange: Exchange,
}

/// What an exchange came to.
pub(super) struct Settled {
    /// With the numbers of the targets as the caller counts them.
    pub results: Vec<DeliveryResult>,
    pub native: Option<String>,
}

/// What one try came to.
pub(super) struct Attempt {
    pub fates: Vec<Fate>,
    pub native: Option<String>,
    pub new_token: bool,
}

impl Batch {
    /// What became of a target, given what the service said.
    pub(super) fn fate(&self, outcome: Outcome) -> Fate {
        match outcome.disposition {
            Disposition::Delivered | Disposition::Replaced(_) if self.only_checked => Fate::Valid,
            _ => Fate::Settled(outcome),
        }
    }
}

/// Is one of the options set that the contract keeps for this?
fn only_checked(notification: &Notification) -> bool {
    let mut options = notification.options.iter();
    options.any(|(name, value)| value == "true" && ONLY_CHECK.contains(&name.as_str()))
}

impl Campaign {
    pub fn new(
        gateway: Arc<Inner>,
        provider: Arc<Provider>,
        is_own: bool,
        tenant: &TenantId,
        application: Arc<RegisteredApplication>,
        purpose: Purpose,
    ) -> Result<Self, Error> {
        let place = application.places.clone().try_acquire_owned().map_err(|_| {
            let message = "too many requests of this application are under way, try again later";
            Error::new(Kind::Overloaded, "application_busy", message)
        })?;
        let instances = provider.instances(tenant);
        let counters =
            DeliveryCounters::new(&gateway, tenant, &application.record.id, &provider.manifest().name);
        let undecoded = Waiting::default();
        let tenant = tenant.clone();
        Ok(Self {
            gateway,
            tenant,
            provider,
            is_own,
            instances,
            application,
            purpose,
            counters,
            undecoded,
            _place: place,
        })
    }

    /// Who uploaded the provider; None: it is everybody's.
    pub fn owner(&self) -> Option<&TenantId> {
        self.is_own.then_some(&self.tenant)
    }

    /// One result per target, in order, and the service's own answer if it was asked for.
    pub async fn run(
        &self,
        targets: &[Target],
        notification: &Arc<Notification>,
        deadline: Instant,
    ) -> Result<(Vec<DeliveryResult>, Option<String>), Error> {
        let mut results: Vec<Option<DeliveryResult>> = vec![None; targets.len()];
        let mut native = None;
        let mut under_way = FuturesUnordered::new();
        let size = self.batch_size();
        let mut batches = targets.chunks(size).enumerate();
        loop {
            while under_way.len() < MOST_AT_ONCE {
                let Some((number, targets)) = batches.next() else { break };
                let batch = self.batch(number * size, targets.to_vec(), notification.clone(), deadline)?;
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

    /// An exchange is as full as the service lets it be: a batch that is smaller would split it.
    fn batch_size(&self) -> usize {
        let in_exchange = self.provider.manifest().targets_per_exchange as usize;
        in_exchange.clamp(BATCH, LARGEST_BATCH)
    }

    /// Some targets of the campaign, with the randomness that their provider wants.
    pub fn batch(
        &self,
        first: usize,
        targets: Vec<Target>,
        notification: Arc<Notification>,
        deadline: Instant,
    ) -> Result<Arc<Batch>, Error> {
        let mut entropy = vec![0; targets.len() * self.provider.manifest().entropy as usize];
        rand::rng().fill_bytes(&mut entropy);
        let only_checked = only_checked(&notification);
        Ok(Arc::new(Batch { first, targets, notification, only_checked, deadline, entropy }))
    }

    /// Encodes the batch: what it has to wait for, exchange by exchange.
    pub async fn launch(&self, batch: Arc<Batch>) -> impl Iterator<Item = impl Future<Output = Settled>> {
        let all: Vec<usize> = (0..batch.targets.len()).collect();
        let (work, refused) = self.encode(&batch, &all).await;
        let first = batch.first;
        refused.iter().for_each(|(index, fate)| self.counters.settled(&batch.targets[*index], fate));
        let refused = refused.into_iter().map(|(index, fate)| DeliveryResult::untried(first + index, fate));
        let at_once = std::future::ready(Settled { results: refused.collect(), native: None });
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

    /// The exchanges for some of the batch's targets, and those that are settled without one.
    pub(super) async fn encode(&self, batch: &Batch, indices: &[usize]) -> (Vec<Work>, Vec<(usize, Fate)>) {
        // The batches before this one may have taken all the time there was.
        if Instant::now() >= batch.deadline {
            let fate = Fate::Failed(failure::deadline_exceeded());
            return (Vec::new(), indices.iter().map(|&index| (index, fate.clone())).collect());
        }
        let targets: Vec<Target> = indices.iter().map(|&index| batch.targets[index].clone()).collect();
        let size = self.provider.manifest().entropy as usize;
        let entropy =
            indices.iter().flat_map(|&index| &batch.entropy[index * size..(index + 1) * size]).copied();
        let context = Context { now: unix_milliseconds(SystemTime::now()), entropy: entropy.collect() };
        let (application, notification) = (self.application.clone(), batch.notification.clone());
        let encode = move |instances: &Instances| {
            instances.encode(&context, &application.record, &notification, &targets)
        };
        let prepared = match self.instances.run(encode).await {
            Ok(prepared) => prepared,
            Err(error) => {
                let fate = Fate::Failed(error.into());
                return (Vec::new(), indices.iter().map(|&index| (index, fate.clone())).collect());
            }
        };
        let messages: Vec<Arc<Message>> = prepared.messages.into_iter().map(Arc::new).collect();
        let own = |covers: &[u32]| covers.iter().map(|&index| indices[index as usize]).collect::<Vec<_>>();
        let work = prepared.exchanges.into_iter().map(|exchange| Work {
            covers: own(&exchange.covers),
            message: messages[exchange.message].clone(),
            exchange,
        });
        let refused = prepared.refusals.into_iter().flat_map(|(covers, rejection)| {
            let fate = Fate::Failed(rejection.into());
            own(&covers).into_iter().map(move |index| (index, fate.clone()))
        });
        (work.collect(), refused.collect())
    }

    /// Tries until every target of the exchange has its final fate. There is one of these for each target under
    /// way, so it is small: who must try again pays for that himself.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` would keep its arguments twice")]
    fn settle(&self, batch: Arc<Batch>, work: Work) -> impl Future<Output = Settled> {
        async move {
            let attempt = self.attempt(&batch, &work).await;
            let mut course = Course::new();
            if !course.note(self, &batch, work, attempt) {
                Box::pin(course.go_on(self, &batch)).await;
            }
            let mut settled = course.end();
            for DeliveryResult { index, fate, .. } in &mut settled.results {
                self.counters.settled(&batch.targets[*index], fate);
                self.report_if_dead(&batch.targets[*index], fate);
                *index += batch.first;
            }
            settled
        }
    }

    /// One try.
    pub(super) async fn attempt(&self, batch: &Batch, work: &Work) -> Attempt {
        match self.exchange(batch, work).await {
            Ok(attempt) => attempt,
            Err(fate) => Attempt { fates: vec![*fate; work.covers.len()], native: None, new_token: false },
        }
    }
}
