//! One application's way to its targets, and what travels on it: batches, which its provider encodes into requests, and
//! responses, which the provider decodes.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::capture::{Capture, LineCaptures};
use crate::gateway::Gateway;
use crate::meters::DeliveryCounters;
use crate::queue::state::QueuedWork;
use crate::result::{DeliveryResult, deadline_exceeded};
use crate::standing_capture::BatchCaptures;
use pushlet_model::contract::codec::{Answer, Reply, Response};
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_model::contract::{Context, Disposition, Notification, Outcome, Recipient, Target};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Account;
use pushlet_registry::RegisteredApplication;
use pushlet_sandbox::{Exchange, Instances, Message, Provider, ProviderError};

/// Most targets in one call of `encode`, where an exchange covers fewer: with the call, a step of [`Steps`].
const BATCH: usize = 120;
/// Options that ask a service to check a notification without delivering it (see `provider-manifest.options`).
const ONLY_CHECK: [&str; 2] = ["validate_only", "dry_run"];
/// Exchanges of one delivery at once; the transport bounds what all deliveries have in flight.
pub(crate) const MOST_AT_ONCE: usize = 1000;
/// Most values of response headers that a provider sees.
const MOST_HEADERS: usize = 64;
/// Most answers in one call of `decode`.
const MOST_ANSWERS: usize = 100;
/// Smaller calls that may run out of time after the first one did.
const MOST_TIMEOUTS: u32 = 2;

/// One application's way to its targets.
pub(crate) struct Delivery {
    pub(crate) gateway: Gateway,
    pub(crate) tenant: TenantId,
    pub(crate) provider: Arc<Provider>,
    /// The tenant uploaded the provider; otherwise all tenants share it.
    is_own: bool,
    pub(crate) instances: Arc<Instances>,
    pub(crate) application: Arc<RegisteredApplication>,
    pub(crate) purpose: SendOptions,
    pub(crate) counters: DeliveryCounters,
    pub(crate) undecoded: DecodeQueue,
    /// The application's permit for this send.
    _place: OwnedSemaphorePermit,
}

/// Options of a delivery.
pub(crate) struct SendOptions {
    /// The account of the tenant that sends.
    pub payer: Arc<Account>,
    /// Return the service's own answers.
    pub native: bool,
    /// Do everything up to the request itself, and do not send it.
    pub validate_only: bool,
    /// What is done is kept here, if the caller wants to see it.
    pub capture: Option<Arc<Capture>>,
    /// The same for the lines of a stream.
    pub lines: Option<LineCaptures>,
    /// Of the HTTP request that it is for.
    pub request_id: Option<Arc<str>>,
    /// None: the caller waits for the results. Boxed, since that is the usual case.
    pub queued: Option<Box<QueuedWork>>,
}

impl SendOptions {
    pub fn new(payer: Arc<Account>, validate_only: bool) -> Self {
        Self {
            payer,
            native: false,
            validate_only,
            capture: None,
            lines: None,
            request_id: None,
            queued: None,
        }
    }
}

/// One notification for some targets.
pub(crate) struct Batch {
    /// The index of the first target in the send or stream; the others follow.
    pub first: usize,
    /// The targets of the whole send; the batch covers those in `range`.
    all: Arc<[Recipient]>,
    range: Range<usize>,
    pub notification: Arc<Notification>,
    /// The notification asks the service to check it and to deliver nothing.
    only_checked: bool,
    pub deadline: Instant,
    /// As many bytes per target as the manifest asks for; kept, so that a retry encodes the same bytes.
    pub entropy: Vec<u8>,
    /// What is kept of it.
    pub captures: BatchCaptures,
}

/// One request, and which of the batch's targets it covers.
pub(crate) struct EncodedRequest {
    pub covers: Vec<usize>,
    /// None: it is submitted to a session, which writes it in its own way.
    pub exchange: Option<(Arc<Message>, Exchange)>,
}

/// The requests of some targets, and the results of targets that have none.
pub(crate) type EncodedTargets = (Vec<EncodedRequest>, Vec<(usize, DeliveryResult)>);

impl EncodedRequest {
    /// Returns true if the service recognises a second delivery of it.
    pub fn is_idempotent(&self) -> bool {
        self.exchange.as_ref().is_some_and(|(_, exchange)| exchange.idempotent)
    }
}

impl Batch {
    /// Returns the targets of a request.
    pub fn covered(&self, work: &EncodedRequest) -> Vec<Target> {
        work.covers.iter().map(|&index| self.recipients()[index].target.clone()).collect()
    }

    pub fn recipients(&self) -> &[Recipient] {
        &self.all[self.range.clone()]
    }

    /// Returns the result of a target for which the provider reported this outcome.
    pub(crate) fn result(&self, outcome: Outcome) -> DeliveryResult {
        match outcome.disposition {
            Disposition::Delivered | Disposition::Replaced(_) if self.only_checked => DeliveryResult::Valid,
            _ => DeliveryResult::Settled(outcome),
        }
    }
}

impl Delivery {
    pub fn new(
        gateway: Gateway,
        provider: Arc<Provider>,
        is_own: bool,
        tenant: &TenantId,
        application: Arc<RegisteredApplication>,
        purpose: SendOptions,
    ) -> Result<Self, Error> {
        // Refused and not queued: nothing is accepted that may not be delivered.
        let place = application.places.clone().try_acquire_owned().map_err(|_| {
            let message = "too many requests of this application are in flight, try again later";
            Error::new(Kind::Overloaded, "application_busy", message)
        })?;
        let instances = provider.instances(tenant);
        let counters = DeliveryCounters::new(
            (&gateway.0.meters, &gateway.0.recent, &gateway.0.webhooks),
            tenant,
            &application.record.id,
            (&provider.manifest().name, is_own),
        );
        Ok(Self {
            gateway,
            tenant: tenant.clone(),
            provider,
            is_own,
            instances,
            application,
            purpose,
            counters,
            undecoded: DecodeQueue::default(),
            _place: place,
        })
    }

    /// Returns the tenant that uploaded the provider, or None if all tenants share it.
    pub fn owner(&self) -> Option<&TenantId> {
        self.is_own.then_some(&self.tenant)
    }

    /// Returns how many targets are encoded together: at most as many as the manifest says, fewer if the component is
    /// slow, and no more than a step of this tenant takes, unless one exchange covers more.
    pub fn batch_size(&self) -> usize {
        let in_exchange = self.provider.manifest().targets_per_exchange as usize;
        let captured = self.most_captured().unwrap_or(usize::MAX);
        self.instances.targets_per_call().min(in_exchange.max(BATCH)).min(captured)
    }

    /// Creates a batch of some targets of the delivery, with the randomness that their provider needs.
    pub fn batch(
        &self,
        first: usize,
        (all, range): (Arc<[Recipient]>, Range<usize>),
        notification: Arc<Notification>,
        deadline: Instant,
    ) -> Result<Arc<Batch>, Error> {
        let mut entropy = vec![0; range.len() * self.provider.manifest().entropy as usize];
        match &self.purpose.queued {
            Some(work) => work.fill(first, range.len(), &mut entropy),
            None => rand::rng().fill_bytes(&mut entropy),
        }
        let only_checked = only_checked(&notification);
        let captures = self.captures(&notification, range.len());
        Ok(Arc::new(Batch { first, all, range, notification, only_checked, deadline, entropy, captures }))
    }
}

/// Returns true if one of the options is set that the contract reserves for this.
fn only_checked(notification: &Notification) -> bool {
    let mut options = notification.options.iter();
    options.any(|(name, value)| value == "true" && ONLY_CHECK.contains(&name.as_str()))
}

impl Delivery {
    /// Encodes some of the batch's targets. Returns their exchanges, and the results of targets that have none.
    pub(crate) async fn encode(&self, batch: &Arc<Batch>, indices: &[usize]) -> EncodedTargets {
        let failed = |error: Error| {
            let result = DeliveryResult::Failed(error);
            (Vec::new(), indices.iter().map(|&index| (index, result.clone())).collect())
        };
        // The batches before this one may have used up the time.
        if Instant::now() >= batch.deadline {
            return failed(deadline_exceeded());
        }
        if self.provider.speaks_stream() {
            let submitted = |&index| EncodedRequest { covers: vec![index], exchange: None };
            return (indices.iter().map(submitted).collect(), Vec::new());
        }
        match self.encode_once(batch, indices).await {
            Ok(encoded) => encoded,
            // Nothing was sent, so fewer targets at a time get a second try.
            Err(ProviderError::TimedOut) if indices.len() > 1 => {
                Box::pin(self.encode_in_parts(batch, indices)).await
            }
            Err(error) => failed(error.into()),
        }
    }

    /// Encodes the targets in smaller calls, one after the other. After two that ran out of time, the other targets
    /// fail too, so that a component that never ends costs a bounded time.
    async fn encode_in_parts(&self, batch: &Arc<Batch>, indices: &[usize]) -> EncodedTargets {
        let (mut requests, mut refused, mut failures) = (Vec::new(), Vec::new(), 0);
        for part in indices.chunks(self.batch_size().clamp(1, indices.len().div_ceil(2))) {
            let encoded = match failures < MOST_TIMEOUTS && Instant::now() < batch.deadline {
                true => self.encode_once(batch, part).await,
                false => Err(ProviderError::TimedOut),
            };
            match encoded {
                Ok((more, others)) => {
                    requests.extend(more);
                    refused.extend(others);
                }
                Err(error) => {
                    failures += 1;
                    let result = DeliveryResult::Failed(error.into());
                    refused.extend(part.iter().map(|&index| (index, result.clone())));
                }
            }
        }
        (requests, refused)
    }

    async fn encode_once(
        &self,
        batch: &Arc<Batch>,
        indices: &[usize],
    ) -> Result<EncodedTargets, ProviderError> {
        // The first try covers all targets, which are borrowed; only a repeat, which covers some, clones them.
        let again = indices.len() < batch.recipients().len();
        let again =
            again.then(|| indices.iter().map(|&index| batch.recipients()[index].clone()).collect::<Vec<_>>());
        let size = self.provider.manifest().entropy as usize;
        let entropy =
            indices.iter().flat_map(|&index| &batch.entropy[index * size..(index + 1) * size]).copied();
        let context = Context::at(SystemTime::now(), entropy.collect());
        for capture in &batch.captures.all {
            let recipients = indices.iter().map(|&index| batch.recipients()[index].clone());
            capture.called(recipients.collect(), context.clone());
        }
        let (application, sent) = (self.application.clone(), batch.clone());
        let encode = move |instances: &Instances| {
            let recipients = again.as_deref().unwrap_or(sent.recipients());
            instances.encode(&context, &application.record, &sent.notification, recipients)
        };
        let prepared = self.instances.run_for(self.purpose.request_id.clone(), encode).await?;
        let messages: Vec<Arc<Message>> = prepared.messages.into_iter().map(Arc::new).collect();
        let own = |covers: &[u32]| covers.iter().map(|&index| indices[index as usize]).collect::<Vec<_>>();
        let work = prepared.exchanges.into_iter().map(|exchange| EncodedRequest {
            covers: own(&exchange.covers),
            exchange: Some((messages[exchange.message].clone(), exchange)),
        });
        let refused = prepared.refusals.into_iter().flat_map(|(covers, rejection)| {
            let result = DeliveryResult::Failed(rejection.into());
            own(&covers).into_iter().map(move |index| (index, result.clone()))
        });
        Ok((work.collect(), refused.collect()))
    }

    pub(crate) async fn decode(
        &self,
        batch: &Batch,
        work: &EncodedRequest,
        status: u16,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Reply, Error> {
        let response = Response { status, headers: shown(headers, self.provider.manifest()), body };
        // The one clone of a token on its way: the contract's generated type owns its texts, and the call may
        // run on another thread and be repeated for each answer alone.
        let answer = Answer { targets: batch.covered(work), response };
        if work.covers.len() == batch.recipients().len() {
            // An exchange that covers the whole batch has no other answers to be decoded with.
            return self.decode_one(answer).await;
        }
        let (sender, reply) = oneshot::channel();
        // The first decodes for all. All of them are polled by one task, so none outlives the first.
        if self.undecoded.put(answer, sender) {
            // Other requests of this delivery that were answered at the same time add their answers meanwhile.
            tokio::task::yield_now().await;
            self.decode_waiting().await;
        }
        reply.await.unwrap_or_else(|_| Err(lost()))
    }

    async fn decode_waiting(&self) {
        let mut waiting = self.undecoded.take().into_iter();
        loop {
            let (answers, senders): (Vec<_>, Vec<_>) = waiting.by_ref().take(MOST_ANSWERS).unzip();
            if answers.is_empty() {
                return;
            }
            for (sender, reply) in senders.into_iter().zip(self.decode_all(answers).await) {
                // A task that was dropped needs no reply.
                let _ = sender.send(reply);
            }
        }
    }

    /// Returns one reply per answer. If the provider fails on all of them together, each is decoded alone, so
    /// that one answer that breaks the provider does not cost the others their replies.
    async fn decode_all(&self, answers: Vec<Answer>) -> Vec<Result<Reply, Error>> {
        let answers = Arc::new(answers);
        match self.call_decode(answers.clone()).await {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(error) if answers.len() < 2 => vec![Err(error)],
            Err(_) => {
                let mut replies = Vec::with_capacity(answers.len());
                for answer in &*answers {
                    replies.push(self.decode_one(answer.clone()).await);
                }
                replies
            }
        }
    }

    async fn decode_one(&self, answer: Answer) -> Result<Reply, Error> {
        self.call_decode(Arc::new(vec![answer])).await?.pop().ok_or_else(lost)
    }

    /// Returns as many replies as there are answers.
    async fn call_decode(&self, answers: Arc<Vec<Answer>>) -> Result<Vec<Reply>, Error> {
        let context = Context::at(SystemTime::now(), Vec::new());
        let (application, native) = (self.application.clone(), self.purpose.native);
        let decode =
            move |instances: &Instances| instances.decode(&context, &application.record, &answers, native);
        Ok(self.instances.run_for(self.purpose.request_id.clone(), decode).await?)
    }
}

fn lost() -> Error {
    Error::internal("a reply was lost")
}

/// Returns the headers of a response that a provider sees: those that its manifest names.
pub(crate) fn shown(headers: &HeaderMap, manifest: &ProviderManifest) -> Vec<(String, String)> {
    let is_named = |name: &str| manifest.response_headers.iter().any(|named| named == name);
    let all = headers.iter().map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| is_named(name));
    let readable = all.filter_map(|(name, value)| Some((name.to_owned(), value.to_str().ok()?.to_owned())));
    readable.take(MOST_HEADERS).collect()
}

/// Answers that wait to be decoded together, each with the sender for its reply.
#[derive(Default)]
pub(crate) struct DecodeQueue(Mutex<Vec<(Answer, oneshot::Sender<Result<Reply, Error>>)>>);

impl DecodeQueue {
    /// Returns true if no other answer waits.
    pub fn put(&self, answer: Answer, reply: oneshot::Sender<Result<Reply, Error>>) -> bool {
        let mut waiting = self.0.lock();
        waiting.push((answer, reply));
        waiting.len() == 1
    }

    pub fn take(&self) -> Vec<(Answer, oneshot::Sender<Result<Reply, Error>>)> {
        mem::take(&mut *self.0.lock())
    }
}
