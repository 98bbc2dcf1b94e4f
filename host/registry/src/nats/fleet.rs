//! The nodes of a fleet, and what they share apart from records, as this node has it.
//!
//! Each says every second that it lives, and hears the others. While NATS is away, nobody is heard, and nobody is thought
//! to be gone: a tenant's limit must not grow because of that.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::{Message, stream};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::connection::{NatsConnection, Outgoing, is_deleted, unreachable};
use crate::storage::{StorageError, from_unix, unix_milliseconds};

const STREAM: &str = "KV_pushlet_nodes";
const PREFIX: &str = "$KV.pushlet_nodes.";
const BEAT: Duration = Duration::from_secs(1);
/// A node that was not heard for this long is gone.
const SILENCE: Duration = Duration::from_secs(4);
/// How long NATS keeps the last beat of a node that is gone.
const KEPT: Duration = Duration::from_secs(10);
/// Nodes of a fleet; further ones are not counted.
const MOST: usize = 1000;

/// How this node takes part in the fleet.
pub struct FleetSettings {
    /// The name of this node; two nodes may have the same one.
    pub name: String,
    /// Of the program.
    pub version: &'static str,
    /// How long the answer to an `Idempotency-Key` is kept.
    pub answers: Duration,
    /// Most reports of dead tokens that are kept for an application.
    pub feedback: usize,
    /// How long a delivery may wait in the queue.
    pub deliveries: Duration,
    /// Most parts of one tenant's deliveries in the queue.
    pub parts: usize,
}

/// The other nodes, and what is done together. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(pub(super) Arc<FleetState>);

pub(super) struct FleetState {
    pub connection: Arc<NatsConnection>,
    pub settings: FleetSettings,
    pub nodes: Nodes,
    pub feedback: FeedbackQueue,
    pub quarantines: LatestMessages,
}

impl Fleet {
    pub(super) fn join(connection: Arc<NatsConnection>, settings: FleetSettings) -> Self {
        let nodes = Nodes::new();
        let feedback = FeedbackQueue::default();
        let quarantines = LatestMessages::default();
        let fleet = Self(Arc::new(FleetState { connection, settings, nodes, feedback, quarantines }));
        fleet.begin_to_beat();
        fleet.begin_to_store();
        fleet.begin_to_report();
        fleet
    }
}

/// A node of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Made anew with every start.
    pub id: String,
    pub name: String,
    /// Of its program.
    pub version: String,
    /// When it started.
    pub since: SystemTime,
    /// Requests.
    pub in_flight: u64,
}

/// The nodes that this one heard.
pub(super) struct Nodes {
    pub id: String,
    pub since: SystemTime,
    pub heard: Mutex<HashMap<String, (NodeView, Instant)>>,
    /// How many live, this one included.
    pub live: AtomicUsize,
    /// When the last beat of this node was acknowledged, in milliseconds since `started`.
    pub acknowledged: AtomicU64,
    pub started: Instant,
    pub in_flight: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
}

impl Nodes {
    fn new() -> Self {
        let mut id = [0; 8];
        // Without randomness, the time tells nodes apart well enough.
        if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id).is_err() {
            id = unix_milliseconds(SystemTime::now()).to_be_bytes();
        }
        Self {
            id: hex::encode(id),
            since: SystemTime::now(),
            heard: Mutex::default(),
            live: AtomicUsize::new(1),
            acknowledged: AtomicU64::new(0),
            started: Instant::now(),
            in_flight: OnceLock::new(),
        }
    }
}

/// Reports that wait to be sent.
#[derive(Default)]
pub(super) struct FeedbackQueue {
    pub waiting: Mutex<WaitingReports>,
    pub more: Notify,
}

/// Messages that wait to be stored: of each subject the latest one.
#[derive(Default)]
pub(super) struct LatestMessages {
    pub waiting: Mutex<BTreeMap<String, Vec<u8>>>,
    /// A task stores them.
    pub storing: AtomicBool,
}

#[derive(Default)]
pub(super) struct WaitingReports {
    pub reports: VecDeque<Report>,
    pub bytes: usize,
}

/// A report as it is sent.
pub(super) struct Report {
    pub subject: String,
    pub text: Vec<u8>,
}

/// A beat, in JSON. A newer program may say more.
#[derive(Serialize, Deserialize)]
struct Beat {
    name: String,
    version: String,
    /// Milliseconds since the Unix epoch.
    since: u64,
    in_flight: u64,
}

impl Nodes {
    fn hear(&self, id: &str, beat: Option<Beat>) {
        let mut heard = self.heard.lock();
        let Some(beat) = beat else {
            heard.remove(id);
            drop(heard);
            return self.count();
        };
        if heard.len() >= MOST && !heard.contains_key(id) {
            return;
        }
        let Beat { name, version, since, in_flight } = beat;
        let view = NodeView { id: id.to_owned(), name, version, since: from_unix(since), in_flight };
        heard.insert(id.to_owned(), (view, Instant::now()));
        drop(heard);
        self.count();
    }

    /// Counts those that live, unless this node cannot hear.
    fn count(&self) {
        let silent = self
            .started
            .elapsed()
            .saturating_sub(Duration::from_millis(self.acknowledged.load(Ordering::Relaxed)));
        if silent > SILENCE / 2 {
            return;
        }
        let mut heard = self.heard.lock();
        heard.retain(|_, (_, at)| at.elapsed() < SILENCE);
        let others = heard.keys().filter(|id| **id != self.id).count();
        self.live.store(others + 1, Ordering::Relaxed);
    }

    fn beat(&self, settings: &FleetSettings) -> Beat {
        Beat {
            name: settings.name.clone(),
            version: settings.version.to_owned(),
            since: unix_milliseconds(self.since),
            in_flight: self.in_flight.get().map_or(0, |count| count()),
        }
    }
}

impl Fleet {
    /// Returns the id of this node.
    pub fn node(&self) -> &str {
        &self.0.nodes.id
    }

    /// Returns how many nodes live, this one included: at least 1.
    pub fn live_nodes(&self) -> usize {
        self.0.nodes.live.load(Ordering::Relaxed)
    }

    /// Returns true if a node lives, as far as this one knows.
    pub(super) fn lives(&self, id: &str) -> bool {
        id == self.0.nodes.id || self.0.nodes.heard.lock().contains_key(id)
    }

    /// Returns the nodes that live, by the time of their start.
    pub fn nodes(&self) -> Vec<NodeView> {
        let nodes = &self.0.nodes;
        let mut all: Vec<_> = nodes.heard.lock().values().map(|(view, _)| view.clone()).collect();
        if !all.iter().any(|view| view.id == nodes.id) {
            let Beat { name, version, in_flight, .. } = nodes.beat(&self.0.settings);
            all.push(NodeView { id: nodes.id.clone(), name, version, since: nodes.since, in_flight });
        }
        all.sort_by(|one, other| (one.since, &one.id).cmp(&(other.since, &other.id)));
        all
    }

    /// Sets where the number of requests in flight comes from.
    pub fn count_in_flight(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        // A second one would be a mistake without consequences.
        let _ = self.0.nodes.in_flight.set(Box::new(count));
    }

    /// Tells the others that this node ends.
    pub async fn leave(&self) {
        let subject = format!("{PREFIX}{}", self.0.nodes.id);
        let message = Outgoing { subject, payload: bytes::Bytes::new(), expected: None, deletes: true };
        if let Err(error) = self.0.connection.store(vec![message]).await {
            tracing::debug!(%error, "the other nodes learn later that this one ended");
        }
    }

    pub(super) fn begin_to_beat(&self) {
        self.0.connection.spawn(beat(Arc::downgrade(&self.0)));
        self.listen(config(), PREFIX, |state, id, message| {
            let deleted = message.headers.as_ref().is_some_and(is_deleted);
            match serde_json::from_slice(&message.payload) {
                _ if deleted => state.nodes.hear(id, None),
                Ok(beat) => state.nodes.hear(id, Some(beat)),
                Err(_) => {}
            }
        });
    }

    /// Takes what the last message of each subject says, and what is new, for as long as the fleet exists. `take` gets the
    /// subject without the prefix.
    pub(super) fn listen(
        &self,
        config: stream::Config,
        prefix: &'static str,
        take: impl Fn(&FleetState, &str, &Message) + Send + Sync + 'static,
    ) {
        let state = Arc::downgrade(&self.0);
        self.0.connection.spawn(async move {
            while let Some(state) = state.upgrade() {
                let (weak, client) = (Arc::downgrade(&state), state.connection.client().clone());
                let stream = state.connection.stream(config.clone());
                drop(state);
                if let Err(error) = Box::pin(listen(weak, client, (stream, prefix), &take)).await {
                    tracing::debug!(%error, stream = config.name, "the other nodes cannot be heard now");
                }
                tokio::time::sleep(BEAT).await;
            }
        });
    }
}

async fn beat(state: Weak<FleetState>) {
    let mut pulse = tokio::time::interval(BEAT);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        let Some(state) = state.upgrade() else { return };
        let nodes = &state.nodes;
        nodes.count();
        let Ok(payload) = serde_json::to_vec(&nodes.beat(&state.settings)) else { continue };
        let subject = format!("{PREFIX}{}", nodes.id);
        let message = Outgoing { subject, payload: payload.into(), expected: None, deletes: false };
        if let Ok(Ok(_)) = tokio::time::timeout(SILENCE / 2, state.connection.store(vec![message])).await {
            let now = u64::try_from(nodes.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            nodes.acknowledged.store(now, Ordering::Relaxed);
        }
    }
}

/// Hears the others until the connection is lost.
async fn listen(
    state: Weak<FleetState>,
    client: async_nats::Client,
    (stream, prefix): (impl Future<Output = Result<stream::Stream, StorageError>>, &str),
    take: &impl Fn(&FleetState, &str, &Message),
) -> Result<(), StorageError> {
    let config = push::OrderedConfig {
        deliver_subject: client.new_inbox(),
        filter_subject: format!("{prefix}>"),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..push::OrderedConfig::default()
    };
    let consumer = stream.await?.create_consumer(config).await.map_err(unreachable)?;
    let mut messages = consumer.messages().await.map_err(unreachable)?;
    while let Some(message) = messages.next().await {
        let message = message.map_err(unreachable)?;
        let Some(state) = state.upgrade() else { return Ok(()) };
        if let Some(rest) = message.subject.strip_prefix(prefix) {
            take(&state, rest, &message);
        }
    }
    Ok(())
}

fn config() -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{PREFIX}>")],
        description: Some("Pushlet: which nodes live".to_owned()),
        max_messages_per_subject: 1,
        max_age: KEPT,
        storage: stream::StorageType::Memory,
        allow_rollup: true,
        ..stream::Config::default()
    }
}
