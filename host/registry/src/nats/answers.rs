//! Answers by `Idempotency-Key`, of all nodes: a key is taken by the one request that creates its record, and has the
//! answer once there is one.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::stream;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::connection::Outgoing;
use super::fleet::{Fleet, FleetState};
use crate::answers::StoredAnswer;
use crate::storage::{StorageError, cut_off, from_unix, unix_milliseconds};
use pushlet_model::tenant::TenantId;

const STREAM: &str = "KV_pushlet_answers";
const PREFIX: &str = "$KV.pushlet_answers.";
/// Tries to take a key whose record changes all the time.
const TRIES: usize = 5;
/// Nothing is in flight for longer: the longest deadline is an hour.
const LONGEST_FLIGHT: Duration = Duration::from_secs(2 * 3600);
/// How long, and how often, an answer that could not be stored is tried again.
const LAST_TRY: u32 = 300;
/// How often a key is looked at whose taking was not answered.
const LAST_LOOK: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// A record begins with one of these.
const TAKEN: u8 = 0;
const ANSWERED: u8 = 1;
const TOO_LARGE: u8 = 2;

/// What became of a request for a key.
pub enum Claim {
    /// The key is the caller's.
    Taken(ClaimedKey),
    /// The first request's answer.
    Answered(StoredAnswer),
    /// The first request is being handled.
    InFlight,
    /// The first request's answer cannot be known: its node ended before there was one, or it is too large.
    Lost,
}

/// A key that this node has taken.
pub struct ClaimedKey {
    subject: String,
    sequence: u64,
}

impl Fleet {
    /// Takes a key, unless another request has it. An error: it may not be known, and nothing must be sent.
    pub async fn claim(&self, tenant: &TenantId, key: &str) -> Result<Claim, StorageError> {
        let subject = subject(tenant, key);
        let taken = taken(self.node());
        let mut expected = 0;
        for _ in 0..TRIES {
            let message = Outgoing {
                subject: subject.clone(),
                payload: taken.clone(),
                expected: Some(expected),
                deletes: false,
            };
            match self.0.connection.store(vec![message]).await {
                Ok(sequence) => return Ok(Claim::Taken(ClaimedKey { subject, sequence })),
                Err(StorageError::Conflict) => {}
                Err(error) => {
                    // It may have been taken all the same: without this, for as long as this node lives.
                    self.give_back_later(subject, taken);
                    return Err(error);
                }
            }
            match self.0.connection.last(STREAM, &subject).await? {
                Some((_, Some(record))) => return self.read(&record),
                Some((sequence, None)) => expected = sequence,
                None => expected = 0,
            }
        }
        Ok(Claim::InFlight)
    }

    /// Stores the answer to the request that took a key; None: nothing was delivered, and the key is free again. While
    /// NATS is away it is tried again for some minutes.
    pub async fn resolve(&self, claimed: ClaimedKey, answer: Option<&StoredAnswer>) {
        let payload =
            answer.map_or(Bytes::new(), |answer| [&[ANSWERED], answer.written().as_slice()].concat().into());
        let resolution = Resolution { claimed, payload, deletes: answer.is_none() };
        match resolution.store(&self.0).await {
            Ok(()) => {}
            Err(StorageError::TooLarge(_)) => {
                let large = Resolution { payload: Bytes::from_static(&[TOO_LARGE]), ..resolution };
                // A repeat is refused as long as the key is taken: what is lost is only the better message.
                let _ = large.store(&self.0).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the answer to an Idempotency-Key is stored later");
                self.0.connection.spawn(resolution.keep_trying(Arc::downgrade(&self.0)));
            }
        }
    }

    fn read(&self, record: &[u8]) -> Result<Claim, StorageError> {
        match record.split_first() {
            Some((&TAKEN, rest)) => {
                let (at, rest) = rest.split_first_chunk().ok_or_else(|| cut_off("a key in use"))?;
                let node = rest.get(..16).and_then(|id| std::str::from_utf8(id).ok());
                let node = node.ok_or_else(|| cut_off("a key in use"))?;
                let age = SystemTime::now().duration_since(from_unix(u64::from_be_bytes(*at)));
                let is_old = age.is_ok_and(|age| age > LONGEST_FLIGHT);
                Ok(if self.lives(node) && !is_old { Claim::InFlight } else { Claim::Lost })
            }
            Some((&ANSWERED, rest)) => {
                StoredAnswer::read(rest).map(Claim::Answered).ok_or_else(|| cut_off("an answer"))
            }
            _ => Ok(Claim::Lost),
        }
    }

    /// Frees a key that was taken although the answer to that was lost. It may be stored after this looked first.
    fn give_back_later(&self, subject: String, taken: Bytes) {
        let state = Arc::downgrade(&self.0);
        self.0.connection.spawn(async move {
            for _ in 0..LAST_LOOK {
                tokio::time::sleep(PAUSE).await;
                let Some(state) = state.upgrade() else { return };
                let Ok(Some((sequence, Some(record)))) = state.connection.last(STREAM, &subject).await else {
                    continue;
                };
                if record != taken {
                    continue;
                }
                let claimed = ClaimedKey { subject: subject.clone(), sequence };
                let free = Resolution { claimed, payload: Bytes::new(), deletes: true };
                if free.store(&state).await.is_ok() {
                    return;
                }
            }
        });
    }
}

/// What a key's record becomes.
struct Resolution {
    claimed: ClaimedKey,
    payload: Bytes,
    deletes: bool,
}

impl Resolution {
    async fn store(&self, state: &FleetState) -> Result<(), StorageError> {
        let message = Outgoing {
            subject: self.claimed.subject.clone(),
            payload: self.payload.clone(),
            expected: Some(self.claimed.sequence),
            deletes: self.deletes,
        };
        match state.connection.store(vec![message]).await {
            // It was stored by a try whose answer was lost.
            Ok(_) | Err(StorageError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn keep_trying(self, state: Weak<FleetState>) {
        for _ in 0..LAST_TRY {
            tokio::time::sleep(PAUSE).await;
            let Some(state) = state.upgrade() else { return };
            if self.store(&state).await.is_ok() {
                return;
            }
        }
    }
}

/// Returns the record of a key that is taken: when, by which node (16 characters), and a random number, so that no two
/// are alike.
fn taken(node: &str) -> Bytes {
    let now = unix_milliseconds(SystemTime::now()).to_be_bytes();
    let mut random = [0; 16];
    // Without randomness, the time has to be enough.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
    [&[TAKEN], now.as_slice(), node.as_bytes(), &random].concat().into()
}

fn subject(tenant: &TenantId, key: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{PREFIX}{}.{}", encode(tenant.as_str()), encode(key))
}

pub(super) fn config(window: Duration) -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{PREFIX}>")],
        description: Some("Pushlet: answers by Idempotency-Key".to_owned()),
        max_messages_per_subject: 1,
        max_age: window,
        storage: stream::StorageType::File,
        allow_rollup: true,
        ..stream::Config::default()
    }
}
