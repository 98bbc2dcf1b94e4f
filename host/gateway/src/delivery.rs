//! One application's way to its targets, and what travels on it: batches, which its provider encodes into requests, and
//! responses, which the provider decodes.

use std::mem;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::HeaderMap;
use rand::Rng as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::meters::DeliveryCounters;
use crate::result::{DeliveryResult, IndexedResult, deadline_exceeded};
use pushlet_model::contract::codec::{Answer, Reply, Response};
use pushlet_model::contract::{Context, Disposition, Notification, Outcome, Target};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Account;
use pushlet_registry::RegisteredApplication;
use pushlet_sandbox::{Exchange, Instances, Message, Provider};

/// Targets in one call of `encode`, where an exchange covers fewer.
pub(crate) const BATCH: usize = 500;
/// The largest batch that is made for a service whose exchanges cover more targets than [`BATCH`]: legacy GCM takes
/// 1,000 ids in a request.
const LARGEST_BATCH: usize = 1000;
/// Options that ask a service to check a notification without delivering it (see `provider-manifest.options`).
const ONLY_CHECK: [&str; 2] = ["validate_only", "dry_run"];
/// Exchanges of one delivery at once; the transport bounds what all deliveries have in flight.
pub(crate) const MOST_AT_ONCE: usize = 1000;
/// Most response headers that a provider sees.
const MOST_HEADERS: usize = 64;
/// Most answers in one call of `decode`.
const MOST_ANSWERS: usize = 100;

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
}

/// One notification for some targets.
pub(crate) struct Batch {
    /// The index of the first target in the send or stream; the others follow.
    pub first: usize,
    /// The targets of the whole send; the batch covers those in `range`.
    all: Arc<[Target]>,
    range: Range<usize>,
    pub notification: Arc<Notification>,
    /// The notification asks the service to check it and to deliver nothing.
    only_checked: bool,
    pub deadline: Instant,
    /// As many bytes per target as the manifest asks for; kept, so that a retry encodes the same bytes.
    pub entropy: Vec<u8>,
}

/// One exchange, and which of the batch's targets it covers.
pub(crate) struct EncodedRequest {
    pub covers: Vec<usize>,
    pub message: Arc<Message>,
    pub exchange: Exchange,
}

/// The results of a send, a batch or an exchange.
pub(crate) struct BatchResults {
    pub results: Vec<IndexedResult>,
    /// The service's own answer, if it was requested and there is one: a JSON text.
    pub native: Option<String>,
}

/// The results of one try: one per target that the exchange covers.
pub(crate) struct ExchangeResult {
    pub results: Vec<DeliveryResult>,
    pub native: Option<String>,
    /// The token was refused, and a new one can be had.
    pub new_token: bool,
}

impl Batch {
    pub fn targets(&self) -> &[Target] {
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
            (&gateway.0.meters, &gateway.0.recent),
            tenant,
            &application.record.id,
            &provider.manifest().name,
        );
        let undecoded = DecodeQueue::default();
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

    /// Returns the tenant that uploaded the provider, or None if all tenants share it.
    pub fn owner(&self) -> Option<&TenantId> {
        self.is_own.then_some(&self.tenant)
    }

    /// Returns how many targets are encoded together: at least as many as one exchange covers, or the batch
    /// would split it.
    pub fn batch_size(&self) -> usize {
        let in_exchange = self.provider.manifest().targets_per_exchange as usize;
        in_exchange.clamp(BATCH, LARGEST_BATCH)
    }

    /// Creates a batch of some targets of the delivery, with the randomness that their provider needs.
    pub fn batch(
        &self,
        first: usize,
        (all, range): (Arc<[Target]>, Range<usize>),
        notification: Arc<Notification>,
        deadline: Instant,
    ) -> Result<Arc<Batch>, Error> {
        let mut entropy = vec![0; range.len() * self.provider.manifest().entropy as usize];
        rand::rng().fill_bytes(&mut entropy);
        let only_checked = only_checked(&notification);
        Ok(Arc::new(Batch { first, all, range, notification, only_checked, deadline, entropy }))
    }
}

/// Returns true if one of the options is set that the contract reserves for this.
fn only_checked(notification: &Notification) -> bool {
    let mut options = notification.options.iter();
    options.any(|(name, value)| value == "true" && ONLY_CHECK.contains(&name.as_str()))
}

impl Delivery {
    /// Encodes some of the batch's targets. Returns their exchanges, and the results of targets that have
    /// none.
    pub(crate) async fn encode(
        &self,
        batch: &Arc<Batch>,
        indices: &[usize],
    ) -> (Vec<EncodedRequest>, Vec<(usize, DeliveryResult)>) {
        // The batches before this one may have used up the time.
        if Instant::now() >= batch.deadline {
            let result = DeliveryResult::Failed(deadline_exceeded());
            return (Vec::new(), indices.iter().map(|&index| (index, result.clone())).collect());
        }
        // The first try covers all targets, which are borrowed; only a repeat, which covers some, clones
        // them.
        let again = indices.len() < batch.targets().len();
        let again =
            again.then(|| indices.iter().map(|&index| batch.targets()[index].clone()).collect::<Vec<_>>());
        let size = self.provider.manifest().entropy as usize;
        let entropy =
            indices.iter().flat_map(|&index| &batch.entropy[index * size..(index + 1) * size]).copied();
        let context = Context::at(SystemTime::now(), entropy.collect());
        let (application, sent) = (self.application.clone(), batch.clone());
        let encode = move |instances: &Instances| {
            let targets = again.as_deref().unwrap_or(sent.targets());
            instances.encode(&context, &application.record, &sent.notification, targets)
        };
        let prepared = match self.instances.run(encode).await {
            Ok(prepared) => prepared,
            Err(error) => {
                let result = DeliveryResult::Failed(error.into());
                return (Vec::new(), indices.iter().map(|&index| (index, result.clone())).collect());
            }
        };
        let messages: Vec<Arc<Message>> = prepared.messages.into_iter().map(Arc::new).collect();
        let own = |covers: &[u32]| covers.iter().map(|&index| indices[index as usize]).collect::<Vec<_>>();
        let work = prepared.exchanges.into_iter().map(|exchange| EncodedRequest {
            covers: own(&exchange.covers),
            message: messages[exchange.message].clone(),
            exchange,
        });
        let refused = prepared.refusals.into_iter().flat_map(|(covers, rejection)| {
            let result = DeliveryResult::Failed(rejection.into());
            own(&covers).into_iter().map(move |index| (index, result.clone()))
        });
        (work.collect(), refused.collect())
    }

    pub(crate) async fn decode(
        &self,
        batch: &Batch,
        work: &EncodedRequest,
        status: u16,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Reply, Error> {
        let response = Response { status, headers: shown(headers), body };
        // The one clone of a token on its way: the contract's generated type owns its texts, and the call may
        // run on another thread and be repeated for each answer alone.
        let targets = work.covers.iter().map(|&index| batch.targets()[index].clone()).collect();
        let answer = Answer { targets, response };
        if work.covers.len() == batch.targets().len() {
            // An exchange that covers the whole batch has no other answers to be decoded with.
            return self.decode_one(answer).await;
        }
        let (sender, reply) = oneshot::channel();
        self.undecoded.put(answer, sender);
        // Other requests of this delivery that were answered at the same time add their answers meanwhile.
        tokio::task::yield_now().await;
        self.decode_waiting().await;
        reply.await.unwrap_or_else(|_| Err(lost()))
    }

    /// The first task to get here decodes for all.
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
        Ok(self.instances.run(decode).await?)
    }
}

fn lost() -> Error {
    Error::internal("a reply was lost")
}

/// Returns the headers of a response that a provider sees.
pub(crate) fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    let headers = headers.iter().take(MOST_HEADERS);
    headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect()
}

/// Answers that wait to be decoded together, each with the sender for its reply.
#[derive(Default)]
pub(crate) struct DecodeQueue(Mutex<Vec<(Answer, oneshot::Sender<Result<Reply, Error>>)>>);

impl DecodeQueue {
    pub fn put(&self, answer: Answer, reply: oneshot::Sender<Result<Reply, Error>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((answer, reply));
    }

    pub fn take(&self) -> Vec<(Answer, oneshot::Sender<Result<Reply, Error>>)> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
