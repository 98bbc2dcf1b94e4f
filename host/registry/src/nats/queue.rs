//! Deliveries that outlive their callers, of all nodes. Their work is a queue of parts: each part is given to one node at
//! a time, and to another one if that falls silent. What deliveries there are, and what became of each part, is a log.
//! Everything is sealed: texts are the callers' own, and who can only write to NATS must not be able to send.
//!
//! A part's outcome has one subject and changes by compare-and-set, so of two nodes that work on the same part one wins.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{AckKind, Message, stream};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use zeroize::Zeroizing;

use super::connection::{NatsConnection, Outgoing, unreachable};
use super::fleet::Fleet;
use crate::storage::{StorageError, cut_off, from_unix};
use pushlet_credential::{SealError, SealingKey};
use pushlet_model::digest::joined;
use pushlet_model::tenant::TenantId;

/// The stream of the work, one subject for each tenant.
pub(super) const WORK: &str = "pushlet_work";
const WORK_PREFIX: &str = "pushlet.work.";
/// The stream of deliveries and outcomes.
const LOG: &str = "pushlet_deliveries";
const DELIVERY_PREFIX: &str = "pushlet.delivery.";
const OUTCOME_PREFIX: &str = "pushlet.outcome.";
/// Characters of a delivery's id, with which a part begins.
const ID: usize = 32;
/// Parts of all tenants.
const MOST_PARTS: i64 = 100_000;
/// A part that its node did not speak of for this long is given to another node.
const SILENCE: Duration = Duration::from_secs(15);
/// How long the server keeps the consumer of a tenant without work.
const IDLE: Duration = Duration::from_secs(120);
/// Parts that are stored at the same time.
const TOGETHER: usize = 16;
/// The longest wait for one part, or for the acknowledgement that it is done.
const WAIT: Duration = Duration::from_secs(5);

/// The queue, and the log of what became of it. Cheap to clone.
#[derive(Clone)]
pub struct DeliveryQueue {
    fleet: Fleet,
    key: Arc<SealingKey>,
}

/// A record of the log.
pub struct StoredDelivery {
    /// Grows with each change of any record.
    pub sequence: u64,
    pub text: Zeroizing<Vec<u8>>,
}

/// Where the parts of one tenant come from.
pub struct PartSource {
    queue: DeliveryQueue,
    tenant: TenantId,
    consumer: PullConsumer,
}

/// A part that was given to this node.
pub struct QueuedPart {
    message: Message,
    pub delivery: String,
    pub number: u32,
    /// When it was put into the queue.
    pub stored: SystemTime,
    pub text: Zeroizing<Vec<u8>>,
}

impl DeliveryQueue {
    pub(crate) fn new(fleet: Fleet, key: Arc<SealingKey>) -> Self {
        Self { fleet, key }
    }

    /// Returns the id of this node.
    pub fn node(&self) -> &str {
        self.fleet.node()
    }

    /// Returns how long a delivery may wait in the queue; its outcomes are kept for twice as long.
    pub fn window(&self) -> Duration {
        self.fleet.0.settings.deliveries
    }

    /// Puts the parts of a delivery into the queue. [`StorageError::Full`]: not all of them have room.
    pub async fn put_parts(
        &self,
        tenant: &TenantId,
        delivery: &str,
        parts: Vec<Zeroizing<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        self.ensure_room(tenant, parts.len()).await?;
        let puts = (0_u32..).zip(parts).map(|(number, text)| self.put_part(tenant, delivery, number, text));
        // One after the other is begun, so that after a failure few more follow.
        futures_util::stream::iter(puts).buffer_unordered(TOGETHER).try_collect::<()>().await
    }

    /// The stream's own limit may still be a wider one, of an earlier configuration.
    async fn ensure_room(&self, tenant: &TenantId, parts: usize) -> Result<(), StorageError> {
        let waiting: usize = self.count(&work_subject(tenant)).await?.iter().map(|(_, count)| count).sum();
        match waiting.saturating_add(parts) > self.fleet.0.settings.parts {
            true => Err(StorageError::Full(format!("{waiting} parts wait already"))),
            false => Ok(()),
        }
    }

    async fn put_part(
        &self,
        tenant: &TenantId,
        delivery: &str,
        number: u32,
        text: Zeroizing<Vec<u8>>,
    ) -> Result<(), StorageError> {
        let identity = identity("work", tenant, delivery, Some(number));
        let sealed = self.key.seal_text(&text, &[&identity])?;
        let payload = [delivery.as_bytes(), &number.to_be_bytes(), &sealed].concat().into();
        let message = Outgoing { subject: work_subject(tenant), payload, expected: None, deletes: false };
        self.connection().store(vec![message]).await.map(drop)
    }

    /// Writes a delivery's record, or what became of one of its parts. `expected`: the sequence that the record has now, 0:
    /// there must be none. Returns its new one. [`StorageError::Conflict`]: another node was faster.
    pub async fn put(
        &self,
        tenant: &TenantId,
        (delivery, part): (&str, Option<u32>),
        expected: u64,
        text: &[u8],
    ) -> Result<u64, StorageError> {
        let (subject, identity) = place(tenant, delivery, part);
        let payload = Bytes::from(self.key.seal_text(text, &[&identity])?);
        let message = Outgoing { subject, payload, expected: Some(expected), deletes: false };
        self.connection().store(vec![message]).await
    }

    /// Returns a delivery's record, or what became of one of its parts.
    pub async fn get(
        &self,
        tenant: &TenantId,
        (delivery, part): (&str, Option<u32>),
    ) -> Result<Option<StoredDelivery>, StorageError> {
        let (subject, identity) = place(tenant, delivery, part);
        let Some((sequence, Some(payload))) = self.connection().last(LOG, &subject).await? else {
            return Ok(None);
        };
        Ok(Some(StoredDelivery { sequence, text: self.open(&payload, &identity)? }))
    }

    /// Returns the tenant's first delivery whose record is newer than a sequence, with its id.
    pub async fn next_delivery(
        &self,
        tenant: &TenantId,
        after: u64,
    ) -> Result<Option<(String, StoredDelivery)>, StorageError> {
        let all = format!("{DELIVERY_PREFIX}{}.*", encode(tenant));
        let Some((id, sequence, payload)) = self.next(&all, after).await? else { return Ok(None) };
        let text = self.open(&payload, &place(tenant, &id, None).1)?;
        Ok(Some((id, StoredDelivery { sequence, text })))
    }

    /// Returns the first outcome of a delivery's parts that is newer than a sequence.
    pub async fn next_outcome(
        &self,
        tenant: &TenantId,
        delivery: &str,
        after: u64,
    ) -> Result<Option<StoredDelivery>, StorageError> {
        let all = format!("{OUTCOME_PREFIX}{}.{delivery}.*", encode(tenant));
        let Some((part, sequence, payload)) = self.next(&all, after).await? else { return Ok(None) };
        let part = part.parse().map_err(|_| cut_off("the number of a part"))?;
        let text = self.open(&payload, &place(tenant, delivery, Some(part)).1)?;
        Ok(Some(StoredDelivery { sequence, text }))
    }

    /// Returns the last token of the subject, the sequence and the payload.
    async fn next(&self, all: &str, after: u64) -> Result<Option<(String, u64, Bytes)>, StorageError> {
        let found = self.connection().next(LOG, all, after.saturating_add(1)).await?;
        Ok(found.map(|(sequence, subject, payload)| {
            (subject.rsplit('.').next().unwrap_or_default().to_owned(), sequence, payload)
        }))
    }

    /// Returns the tenants whose parts are in the queue, given or not, with their number.
    pub async fn waiting(&self) -> Result<Vec<(TenantId, usize)>, StorageError> {
        let all = self.count(&format!("{WORK_PREFIX}*")).await?;
        let of = |(subject, count): (String, usize)| {
            let tenant = URL_SAFE_NO_PAD.decode(subject.strip_prefix(WORK_PREFIX)?).ok()?;
            Some((TenantId::new(std::str::from_utf8(&tenant).ok()?), count))
        };
        Ok(all.into_iter().filter_map(of).collect())
    }

    /// Returns how many parts there are, by subject.
    async fn count(&self, subjects: &str) -> Result<Vec<(String, usize)>, StorageError> {
        let connection = self.connection();
        connection.check()?;
        let stream = connection.jetstream().get_stream_no_info(WORK).await.map_err(unreachable)?;
        let counts = stream.info_with_subjects(subjects).await.map_err(unreachable)?;
        counts.try_collect().await.map_err(unreachable)
    }

    /// Returns where the parts of a tenant come from.
    pub async fn source(&self, tenant: &TenantId) -> Result<PartSource, StorageError> {
        let connection = self.connection();
        connection.check()?;
        let stream = connection.jetstream().get_stream_no_info(WORK).await.map_err(unreachable)?;
        // One for each tenant, so that the work of one keeps no other's waiting.
        let name = encode(tenant);
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: work_subject(tenant),
            ack_policy: AckPolicy::Explicit,
            ack_wait: SILENCE,
            // Never: a part that was given too often would stay in the queue for ever, and nobody would be told.
            max_deliver: -1,
            // Parts that wait for their time count: they must not keep others from being given.
            max_ack_pending: MOST_PARTS,
            inactive_threshold: IDLE,
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(&name, config).await.map_err(unreachable)?;
        Ok(PartSource { queue: self.clone(), tenant: tenant.clone(), consumer })
    }

    fn open(&self, sealed: &[u8], identity: &[u8]) -> Result<Zeroizing<Vec<u8>>, StorageError> {
        Ok(self.key.open_text(sealed, &[identity])?)
    }

    fn connection(&self) -> &NatsConnection {
        &self.fleet.0.connection
    }
}

impl PartSource {
    /// Returns the next part; None: there is none now.
    pub async fn take(&self) -> Result<Option<QueuedPart>, StorageError> {
        loop {
            let fetch = async {
                let mut messages =
                    self.consumer.fetch().max_messages(1).messages().await.map_err(unreachable)?;
                messages.next().await.transpose().map_err(unreachable)
            };
            let fetched = tokio::time::timeout(WAIT, fetch).await;
            let Some(message) = fetched.map_err(|_| unreachable("no part came"))?? else { return Ok(None) };
            match self.open(message) {
                Ok(part) => return Ok(Some(part)),
                Err(unread) => {
                    let (message, error) = *unread;
                    tracing::error!(tenant = %self.tenant, %error, "a part of a delivery cannot be read");
                    // What a newer program wrote is left to a node that runs one.
                    let answer = match error {
                        StorageError::Seal(SealError::Newer) => AckKind::Nak(Some(SILENCE)),
                        _ => AckKind::Term,
                    };
                    message.ack_with(answer).await.map_err(unreachable)?;
                }
            }
        }
    }

    fn open(&self, message: Message) -> Result<QueuedPart, Box<(Message, StorageError)>> {
        let read = || {
            let (delivery, rest) = message.payload.split_at_checked(ID).ok_or_else(|| cut_off("a part"))?;
            let delivery = std::str::from_utf8(delivery).map_err(|_| cut_off("a part"))?;
            let (number, sealed) = rest.split_first_chunk().ok_or_else(|| cut_off("a part"))?;
            let number = u32::from_be_bytes(*number);
            let identity = identity("work", &self.tenant, delivery, Some(number));
            let text = self.queue.open(sealed, &identity)?;
            let published = message.info().map_err(unreachable)?.published.unix_timestamp();
            let stored = from_unix(u64::try_from(published).unwrap_or(0).saturating_mul(1000));
            Ok((delivery.to_owned(), number, stored, text))
        };
        match read() {
            Ok((delivery, number, stored, text)) => {
                Ok(QueuedPart { message, delivery, number, stored, text })
            }
            Err(error) => Err(Box::new((message, error))),
        }
    }
}

impl QueuedPart {
    /// How often [`QueuedPart::hold`] must be called.
    pub const PULSE: Duration = Duration::from_secs(4);

    /// Says that this node still works on it.
    pub async fn hold(&self) {
        // If this fails often enough, another node gets the part, and the outcome tells who was first.
        let _ = self.message.ack_with(AckKind::Progress).await;
    }

    /// Takes it out of the queue.
    pub async fn done(self) {
        let done = tokio::time::timeout(WAIT, self.message.double_ack()).await;
        if !matches!(done, Ok(Ok(()))) {
            tracing::debug!(delivery = self.delivery, "a part that is done comes again, and is done then");
        }
    }

    /// Puts it back for this long.
    pub async fn later(self, wait: Duration) {
        let _ = self.message.ack_with(AckKind::Nak(Some(wait))).await;
    }
}

impl Fleet {
    /// Drops all deliveries of a tenant, soon.
    pub(crate) fn forget_deliveries_later(&self, tenant: &TenantId) {
        let (jetstream, name) = (self.0.connection.jetstream().clone(), encode(tenant));
        let places = [
            (WORK, format!("{WORK_PREFIX}{name}")),
            (LOG, format!("{DELIVERY_PREFIX}{name}.>")),
            (LOG, format!("{OUTCOME_PREFIX}{name}.>")),
        ];
        let tenant = tenant.clone();
        self.0.connection.spawn(async move {
            for (stream, subject) in places {
                let purge = async {
                    let stream = jetstream.get_stream_no_info(stream).await.map_err(unreachable)?;
                    stream.purge().filter(subject).await.map_err(unreachable)
                };
                if let Err(error) = purge.await {
                    tracing::warn!(%tenant, %error, "deliveries of a removed tenant stay until they are too old");
                }
            }
        });
    }
}

fn encode(tenant: &TenantId) -> String {
    URL_SAFE_NO_PAD.encode(tenant.as_str())
}

fn work_subject(tenant: &TenantId) -> String {
    format!("{WORK_PREFIX}{}", encode(tenant))
}

/// Returns the subject of a record of the log, and what it is sealed for.
fn place(tenant: &TenantId, delivery: &str, part: Option<u32>) -> (String, Vec<u8>) {
    let name = encode(tenant);
    match part {
        None => (format!("{DELIVERY_PREFIX}{name}.{delivery}"), identity("delivery", tenant, delivery, None)),
        Some(number) => {
            let subject = format!("{OUTCOME_PREFIX}{name}.{delivery}.{number}");
            (subject, identity("outcome", tenant, delivery, part))
        }
    }
}

/// Returns what a text is sealed for.
fn identity(kind: &str, tenant: &TenantId, delivery: &str, part: Option<u32>) -> Vec<u8> {
    let part = part.map(u32::to_be_bytes);
    let part = part.as_ref().map_or(&[][..], |number| number.as_slice());
    joined(&[b"queue", kind.as_bytes(), tenant.as_str().as_bytes(), delivery.as_bytes(), part])
}

pub(super) fn work_config(most: usize) -> stream::Config {
    stream::Config {
        name: WORK.to_owned(),
        subjects: vec![format!("{WORK_PREFIX}*")],
        description: Some("Pushlet: parts of deliveries that are not sent yet".to_owned()),
        retention: stream::RetentionPolicy::WorkQueue,
        // An old part must not go for a new one.
        discard: stream::DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages: MOST_PARTS,
        max_messages_per_subject: i64::try_from(most).unwrap_or(i64::MAX),
        storage: stream::StorageType::File,
        ..stream::Config::default()
    }
}

pub(super) fn log_config(window: Duration) -> stream::Config {
    stream::Config {
        name: LOG.to_owned(),
        subjects: vec![format!("{DELIVERY_PREFIX}>"), format!("{OUTCOME_PREFIX}>")],
        description: Some("Pushlet: deliveries and what became of them".to_owned()),
        max_messages_per_subject: 1,
        // The outcome of what waited longest outlives its delivery's record.
        max_age: window * 2,
        storage: stream::StorageType::File,
        ..stream::Config::default()
    }
}
