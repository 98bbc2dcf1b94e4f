//! Which components are quarantined: what one node finds out, all nodes go by. Each record says until when; it is
//! replaced when a quarantine is prolonged or lifted, and gone after a while.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::stream;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::connection::Outgoing;
use super::fleet::{Fleet, FleetState};
use crate::storage::{StorageError, from_unix, unix_milliseconds};
use pushlet_model::tenant::TenantId;

const STREAM: &str = "KV_pushlet_quarantine";
const PREFIX: &str = "$KV.pushlet_quarantine.";
/// Longer than any quarantine.
const KEPT: Duration = Duration::from_secs(3600);
/// Components of tenants; the oldest records go.
const MOST: i64 = 10_000;
/// Records that wait for NATS.
const MOST_WAITING: usize = 1000;
const PAUSE: Duration = Duration::from_secs(1);

/// What a node says of one component of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedQuarantine {
    pub tenant: TenantId,
    pub provider: String,
    /// Of the component.
    pub digest: String,
    /// Its end, and how long it was: the next one is longer. None: it was lifted.
    pub until: Option<(SystemTime, Duration)>,
}

/// The JSON form. Times are in milliseconds, `until` since the Unix epoch; 0: it was lifted.
#[derive(Serialize, Deserialize)]
struct QuarantineRecord {
    node: String,
    until: u64,
    pause: u64,
}

impl Fleet {
    /// Tells all nodes, soon. Of a component only the last news counts.
    pub fn tell_quarantine(&self, quarantine: &SharedQuarantine) {
        let (until, pause) =
            quarantine.until.map_or((0, Duration::ZERO), |(until, pause)| (unix_milliseconds(until), pause));
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let record = QuarantineRecord { node: self.node().to_owned(), until, pause };
        let Ok(text) = serde_json::to_vec(&record) else { return };
        let waits = &self.0.quarantines;
        let (subject, mut waiting) = (quarantine.subject(), waits.waiting.lock());
        if waiting.len() >= MOST_WAITING && !waiting.contains_key(&subject) {
            return;
        }
        waiting.insert(subject, text);
        drop(waiting);
        if !waits.storing.swap(true, Ordering::AcqRel) {
            self.0.connection.spawn(store_all(Arc::downgrade(&self.0)));
        }
    }

    /// Takes on what other nodes say, for as long as the fleet exists.
    pub fn follow_quarantines(&self, take: impl Fn(SharedQuarantine) + Send + Sync + 'static) {
        self.listen(config(), PREFIX, move |state, place, message| {
            let Ok(record) = serde_json::from_slice::<QuarantineRecord>(&message.payload) else { return };
            let told = (record.node != state.nodes.id).then(|| SharedQuarantine::read(place, &record));
            told.flatten().into_iter().for_each(&take);
        });
    }
}

impl SharedQuarantine {
    fn subject(&self) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{PREFIX}{}.{}.{}", encode(self.tenant.as_str()), encode(&self.provider), self.digest)
    }

    fn read(place: &str, record: &QuarantineRecord) -> Option<Self> {
        let decode = |text: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let [tenant, provider, digest] = place.split('.').collect::<Vec<_>>().try_into().ok()?;
        let until = (record.until > 0)
            .then(|| (from_unix(record.until), Duration::from_millis(record.pause).min(KEPT)));
        Some(Self {
            tenant: TenantId::new(&decode(tenant)?),
            provider: decode(provider)?,
            digest: digest.to_owned(),
            until,
        })
    }
}

/// Stores what waits, one after the other.
async fn store_all(state: Weak<FleetState>) {
    while let Some(state) = state.upgrade() {
        let waits = &state.quarantines;
        let next = waits.waiting.lock().first_key_value().map(|(one, text)| (one.clone(), text.clone()));
        let Some((subject, text)) = next else {
            waits.storing.store(false, Ordering::Release);
            // Something may have come in between, which found this task still there.
            if waits.waiting.lock().is_empty() || waits.storing.swap(true, Ordering::AcqRel) {
                return;
            }
            continue;
        };
        match state.store_quarantine(&subject, &text).await {
            Ok(()) => {
                let mut waiting = waits.waiting.lock();
                // There may be later news.
                if waiting.get(&subject) == Some(&text) {
                    waiting.remove(&subject);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the other nodes cannot be told of a quarantine now");
                drop(state);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl FleetState {
    async fn store_quarantine(&self, subject: &str, text: &[u8]) -> Result<(), StorageError> {
        let (subject, payload) = (subject.to_owned(), text.to_vec().into());
        let message = Outgoing { subject, payload, expected: None, deletes: false };
        self.connection.store(vec![message]).await.map(drop)
    }
}

pub(super) fn config() -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{PREFIX}>")],
        description: Some("Pushlet: components that are not called for a while".to_owned()),
        max_messages: MOST,
        max_messages_per_subject: 1,
        max_age: KEPT,
        storage: stream::StorageType::File,
        allow_rollup: true,
        ..stream::Config::default()
    }
}
