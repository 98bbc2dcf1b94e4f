//! The connection to NATS, on a runtime of its own: what it does, or does not, is felt by no send.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::HeaderMap;
use async_nats::jetstream::{self, Context, context::ContextBuilder, stream};
use async_nats::{Client, ConnectOptions, Event, Request, RequestErrorKind, header};
use bytes::Bytes;
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

use super::subject::{STREAM, SUBJECTS};
use crate::storage::StorageError;

/// The longest wait for the answer to one request.
const REQUEST: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Bytes of a message in addition to its payload that are certainly enough for its headers.
const HEADERS: usize = 1 << 10;

/// Error codes of JetStream.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];
const NOT_CLUSTERED: u64 = 10074;
/// The stream takes no more: its own limits, or the server's storage.
const FULL: [u64; 3] = [10023, 10047, 10077];

/// How the fleet's registry is reached.
pub struct NatsSettings {
    /// URLs: `nats://host:port`, `tls://host:port`.
    pub servers: Vec<String>,
    /// Servers that keep each record. A server that is not part of a cluster keeps one copy.
    pub replicas: usize,
    pub login: NatsLogin,
    /// PEM files of authorities that the servers' certificates may have, in addition to the system's.
    pub roots: Vec<PathBuf>,
}

/// What this server logs in with.
pub enum NatsLogin {
    /// Nothing, or what is in the URL.
    None,
    /// The text of a credentials file: a JWT and the seed of its nkey.
    Credentials(Zeroizing<String>),
    /// The seed of an nkey.
    Nkey(Zeroizing<String>),
}

/// A message that is to be stored.
pub(super) struct Outgoing {
    pub subject: String,
    pub payload: Bytes,
    /// The sequence that the subject's last message must have; 0: there must be none.
    pub expected: Option<u64>,
    /// The record is deleted.
    pub deletes: bool,
}

pub(super) struct NatsConnection {
    /// None: it is being dropped.
    runtime: Option<Runtime>,
    client: Client,
    jetstream: Context,
    replicas: usize,
}

/// The answer to a message that was published.
#[derive(Deserialize)]
struct PublishAnswer {
    #[serde(default)]
    seq: u64,
    error: Option<JetStreamError>,
}

#[derive(Deserialize)]
struct JetStreamError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl NatsConnection {
    /// Begins to connect, and goes on until it succeeds. An error: the settings cannot be right.
    pub fn open(settings: &NatsSettings) -> Result<Self, StorageError> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("registry").enable_all().build();
        let runtime = runtime.map_err(|error| StorageError::Io(error.to_string()))?;
        let options = options(settings)?;
        let servers = settings.servers.clone();
        // It returns at once, connected or not.
        let client = run(&runtime, CONNECT + REQUEST, async move { options.connect(servers).await })?;
        let client = client.map_err(unreachable)?;
        let jetstream = {
            // It starts a task.
            let _runtime = runtime.enter();
            ContextBuilder::new().timeout(REQUEST).ack_timeout(REQUEST).build(client.clone())
        };
        Ok(Self { runtime: Some(runtime), client, jetstream, replicas: settings.replicas })
    }

    /// Runs work on the connection's runtime, and waits for it.
    pub fn wait<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, StorageError> {
        let runtime = self.runtime.as_ref().ok_or_else(|| unreachable("it is being closed"))?;
        run(runtime, limit, work)?
    }

    /// Runs a task until the connection is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
    }

    pub fn jetstream(&self) -> &Context {
        &self.jetstream
    }

    pub fn replicas(&self) -> usize {
        self.replicas
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the stream of records, which is created if there is none.
    pub fn records(
        &self,
    ) -> impl Future<Output = Result<stream::Stream, StorageError>> + Send + 'static + use<> {
        self.stream(records())
    }

    /// Returns a stream, which is created if there is none.
    pub fn stream(
        &self,
        config: stream::Config,
    ) -> impl Future<Output = Result<stream::Stream, StorageError>> + Send + 'static + use<> {
        let (jetstream, replicas) = (self.jetstream.clone(), self.replicas);
        async move {
            let with = |num_replicas| stream::Config { num_replicas, ..config.clone() };
            let error = match jetstream.get_or_create_stream(with(replicas)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let jetstream::context::CreateStreamErrorKind::JetStream(cause) = error.kind() else {
                return Err(unreachable(error));
            };
            if cause.error_code().0 != NOT_CLUSTERED {
                return Err(unreachable(error));
            }
            tracing::warn!(
                stream = config.name,
                "this NATS server is not part of a cluster: it keeps the only copy; see registry.replicas"
            );
            jetstream.get_or_create_stream(with(1)).await.map_err(unreachable)
        }
    }

    /// An error if a message would have to wait for a connection: stored long after the caller was refused.
    pub fn check(&self) -> Result<(), StorageError> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => Err(unreachable("it is not connected")),
        }
    }

    /// Stores messages, all of them or none. Returns the sequence of the last one. Blocks.
    pub fn publish(self: &Arc<Self>, messages: Vec<Outgoing>) -> Result<u64, StorageError> {
        let connection = self.clone();
        self.wait(REQUEST * 2, async move { connection.store(messages).await })
    }

    /// Stores messages, all of them or none. Returns the sequence of the last one.
    pub async fn store(&self, messages: Vec<Outgoing>) -> Result<u64, StorageError> {
        self.check()?;
        let most = self.client.max_payload().saturating_sub(HEADERS);
        if let Some(large) = messages.iter().map(|message| message.payload.len()).find(|size| *size > most) {
            return Err(StorageError::TooLarge(format!("it has {large} bytes, NATS takes {most}")));
        }
        publish_all(&self.client, messages).await
    }

    /// Returns true if the stream of records has no leader that answers.
    pub async fn has_no_leader(&self) -> bool {
        let subject = SUBJECTS.replace('>', "none");
        self.last(STREAM, &subject).await.is_err()
    }

    /// Returns the first message of these subjects from a sequence on, as the leader has it: its sequence, subject and
    /// payload.
    pub async fn next(
        &self,
        stream: &str,
        subjects: &str,
        sequence: u64,
    ) -> Result<Option<(u64, String, Bytes)>, StorageError> {
        use jetstream::stream::RawMessageErrorKind as Kind;
        self.check()?;
        let stream = self.jetstream.get_stream_no_info(stream).await.map_err(unreachable)?;
        match stream.get_first_raw_message_by_subject(subjects, sequence).await {
            Ok(message) => Ok(Some((message.sequence, message.subject.to_string(), message.payload))),
            Err(error) if matches!(error.kind(), Kind::NoMessageFound) => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }

    /// Returns the last message of a subject, as the leader has it: its sequence, and its payload unless the record was
    /// deleted.
    pub async fn last(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<(u64, Option<Bytes>)>, StorageError> {
        use jetstream::stream::LastRawMessageErrorKind as Kind;
        self.check()?;
        let stream = self.jetstream.get_stream_no_info(stream).await.map_err(unreachable)?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => {
                let payload = (!is_deleted(&message.headers)).then_some(message.payload);
                Ok(Some((message.sequence, payload)))
            }
            Err(error) if matches!(error.kind(), Kind::NoMessageFound) => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }
}

impl Drop for NatsConnection {
    fn drop(&mut self) {
        // A runtime must not be dropped where another one runs.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// Returns true if a message says that its record is not there.
pub(super) fn is_deleted(headers: &HeaderMap) -> bool {
    let operation = headers.get("KV-Operation").map(|value| value.as_str());
    matches!(operation, Some("DEL" | "PURGE")) || headers.get("Nats-Marker-Reason").is_some()
}

pub(super) fn unreachable(error: impl std::fmt::Display) -> StorageError {
    StorageError::Unreachable(error.to_string())
}

fn run<T: Send + 'static>(
    runtime: &Runtime,
    limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, StorageError> {
    let (done, result) = sync_channel(1);
    runtime.spawn(async move {
        // The caller waits until the work is done, or until its time is over.
        let _ = done.send(tokio::time::timeout(limit, work).await);
    });
    match result.recv() {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(unreachable(format!("no answer within {limit:?}"))),
        Err(_) => Err(unreachable("it is being closed")),
    }
}

fn options(settings: &NatsSettings) -> Result<ConnectOptions, StorageError> {
    let mut options = ConnectOptions::new()
        .name("pushlet")
        .retry_on_initial_connect()
        .connection_timeout(CONNECT)
        .request_timeout(Some(REQUEST))
        .ping_interval(Duration::from_secs(5))
        .reconnect_delay_callback(pause)
        .event_callback(|event| async move { note(&event) });
    for roots in &settings.roots {
        options = options.add_root_certificates(roots.clone());
    }
    match &settings.login {
        NatsLogin::None => Ok(options),
        NatsLogin::Nkey(seed) => Ok(options.nkey(seed.trim().to_owned())),
        NatsLogin::Credentials(text) => {
            // The error may repeat what is in the file.
            options.credentials(text).map_err(|_| unreachable("the credentials file cannot be read"))
        }
    }
}

/// All nodes lose a server at the same moment; they do not come back at the same moment.
fn pause(attempts: usize) -> Duration {
    let step = Duration::from_millis(50).saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX));
    let longest = step.min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + f64::from(jitter()) / 512.0)
}

fn jitter() -> u8 {
    let mut byte = [0; 1];
    // Without randomness all wait equally long.
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    if filled.is_ok() { byte[0] } else { 128 }
}

fn note(event: &Event) {
    match event {
        Event::Connected => tracing::info!("the registry is connected"),
        Event::Disconnected | Event::Closed => {
            tracing::warn!("the registry is disconnected: this node goes on with what it knows");
        }
        event => tracing::debug!(%event, "registry"),
    }
}

fn records() -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECTS.to_owned()],
        description: Some("Pushlet: tenants, applications, components".to_owned()),
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        storage: stream::StorageType::File,
        allow_rollup: true,
        deny_delete: true,
        // Reads are answered by the leader alone: followers may be behind.
        allow_direct: false,
        allow_atomic_publish: true,
        ..stream::Config::default()
    }
}

/// Publishes one message, or several as an atomic batch.
async fn publish_all(client: &Client, messages: Vec<Outgoing>) -> Result<u64, StorageError> {
    let batch = (messages.len() > 1).then(|| client.new_inbox());
    let count = messages.len();
    for (number, message) in (1..).zip(messages) {
        let mut headers = message.headers();
        if let Some(batch) = &batch {
            // Its id has at most 64 characters; that of an inbox is unique.
            let id = batch.rsplit('.').next().unwrap_or_default();
            headers.insert(header::NATS_BATCH_ID, id);
            headers.insert(header::NATS_BATCH_SEQUENCE, number.to_string().as_str());
        }
        if number < count {
            let sent = client.publish_with_headers(message.subject, headers, message.payload).await;
            sent.map_err(unreachable)?;
            continue;
        }
        if batch.is_some() {
            headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        }
        let request = Request::new().headers(headers).payload(message.payload).timeout(Some(REQUEST));
        let answer =
            client.send_request(message.subject, request).await.map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => unreachable("it has no leader"),
                RequestErrorKind::MaxPayloadExceeded => StorageError::TooLarge(error.to_string()),
                _ => unreachable(error),
            })?;
        return sequence(&answer.payload);
    }
    Err(unreachable("there is nothing to store"))
}

fn sequence(answer: &[u8]) -> Result<u64, StorageError> {
    let answer: PublishAnswer = serde_json::from_slice(answer).map_err(unreachable)?;
    match answer.error {
        None => Ok(answer.seq),
        Some(error) if WRONG_LAST_SEQUENCE.contains(&error.err_code) => Err(StorageError::Conflict),
        Some(error) if FULL.contains(&error.err_code) => Err(StorageError::Full(error.description)),
        Some(error) => Err(unreachable(format!("{} ({})", error.description, error.err_code))),
    }
}

impl Outgoing {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(expected) = self.expected {
            headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string().as_str());
        }
        if self.deletes {
            headers.insert("KV-Operation", "DEL");
        }
        headers
    }
}
