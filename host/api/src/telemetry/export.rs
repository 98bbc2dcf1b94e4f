//! From a queue to the collector: batches, retries, and the counts of what was accepted and dropped.
//!
//! Which responses are tried again is OTLP's own rule (opentelemetry.io/docs/specs/otlp, "Failures", "Retryable
//! Response Codes").

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::{mpsc, watch};
use url::Url;

/// Items of one kind that wait for the export.
const QUEUE_LENGTH: usize = 4096;
/// Items in one request to the collector.
const LARGEST_BATCH: usize = 512;
/// How long the first item of a batch waits for others.
const GATHER_TIME: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a request is tried, and how long after the first failure; twice as long each time.
const MOST_TRIES: u32 = 5;
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait that a collector can ask for.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Bytes of a response that are read.
const LARGEST_RESPONSE: usize = 64 << 10;
/// The least time between two log lines about failures.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What is exported one by one.
pub trait Exported: Sized + Send + 'static {
    /// The path below the collector's URL.
    const PATH: &'static str;
    /// What these are called in the log.
    const NAME: &'static str;

    /// Takes all items and returns the request for them.
    fn request(resource: Resource, items: &mut Vec<Self>) -> Vec<u8>;

    /// Returns how many items the collector did not take, though it accepted the request.
    fn rejected(response: &[u8]) -> u64;
}

/// Takes items for the export, and counts them. Cheap to clone.
pub struct ExportQueue<T> {
    items: mpsc::Sender<T>,
    counts: Arc<ExportCounts>,
}

#[derive(Default)]
struct ExportCounts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl<T> ExportQueue<T> {
    pub(super) fn new() -> (Self, mpsc::Receiver<T>) {
        let (items, waiting) = mpsc::channel(QUEUE_LENGTH);
        (Self { items, counts: Arc::default() }, waiting)
    }

    /// Queues an item, or drops it if the queue is full: a slow collector must not delay requests.
    pub fn push(&self, item: T) {
        if self.items.try_send(item).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many items a collector accepted, and how many none did.
    pub fn exported_and_dropped(&self) -> (u64, u64) {
        (self.counts.exported.load(Ordering::Relaxed), self.counts.dropped.load(Ordering::Relaxed))
    }
}

impl<T> Clone for ExportQueue<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), counts: self.counts.clone() }
    }
}

/// Ends the export when it is dropped.
pub struct StopHandle(#[allow(dead_code, reason = "its drop is the message")] watch::Sender<()>);

/// Tells when the export has to end. Cheap to clone.
#[derive(Clone)]
pub struct Stop(watch::Receiver<()>);

impl Stop {
    pub fn new() -> (StopHandle, Self) {
        let (handle, stop) = watch::channel(());
        (StopHandle(handle), Self(stop))
    }

    pub fn is_requested(&self) -> bool {
        self.0.has_changed().is_err()
    }

    pub async fn requested(&self) {
        // Nothing is ever sent: it ends once the handle is dropped.
        let _ = self.0.clone().changed().await;
    }
}

/// The collector, and whom it is told about. Cheap to clone.
#[derive(Clone)]
pub struct Collector {
    client: reqwest::Client,
    /// Without a slash at its end.
    base: String,
    pub resource: Resource,
    pub stop: Stop,
}

/// Why a request failed.
struct Failure {
    why: String,
    /// Whether it may succeed later.
    is_temporary: bool,
    /// How long the collector asks to wait.
    retry_after: Option<Duration>,
}

impl Collector {
    /// `endpoint`: the collector's base URL, as `http://127.0.0.1:4318`.
    pub fn new(client: reqwest::Client, endpoint: &Url, resource: Resource, stop: Stop) -> Self {
        let base = endpoint.as_str().trim_end_matches('/').to_owned();
        Self { client, base, resource, stop }
    }

    /// Sends a request, again if the collector was in trouble, and returns its response. At the end of the export it is
    /// tried once only.
    pub async fn send(&self, path: &str, request: Vec<u8>) -> Result<Bytes, String> {
        let request = Bytes::from(request);
        let mut wait = FIRST_RETRY;
        for _ in 1..MOST_TRIES {
            match self.try_send(path, request.clone()).await {
                Ok(response) => return Ok(response),
                Err(failure) if !failure.is_temporary || self.stop.is_requested() => return Err(failure.why),
                Err(failure) => {
                    let pause = failure.retry_after.unwrap_or(wait).min(LONGEST_RETRY);
                    let _ = tokio::time::timeout(pause, self.stop.requested()).await;
                }
            }
            wait *= 2;
        }
        self.try_send(path, request).await.map_err(|failure| failure.why)
    }

    async fn try_send(&self, path: &str, request: Bytes) -> Result<Bytes, Failure> {
        let request = self.client.post(format!("{}/{path}", self.base)).timeout(TIMEOUT).body(request);
        let sent = request.header(CONTENT_TYPE, "application/x-protobuf").send().await;
        let response = sent.map_err(|error| Failure::unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(Failure {
                why: format!("its response is {status}"),
                is_temporary: is_temporary(status),
                retry_after: response
                    .headers()
                    .get(RETRY_AFTER)
                    .and_then(|seconds| seconds.to_str().ok()?.parse().map(Duration::from_secs).ok()),
            });
        }
        Ok(read(response).await)
    }
}

impl Failure {
    fn unreachable(error: &reqwest::Error) -> Self {
        // Its own text is too general: the cause says what happened.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self { why: cause.to_string(), is_temporary: true, retry_after: None }
    }
}

fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// Reads a response; one that is too long or breaks off is taken for empty, since its request was accepted.
async fn read(mut response: reqwest::Response) -> Bytes {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > LARGEST_RESPONSE {
            return Bytes::new();
        }
        body.extend_from_slice(&chunk);
    }
    body.into()
}

/// Exports what a queue takes.
pub struct Exporter<T> {
    collector: Collector,
    waiting: mpsc::Receiver<T>,
    batch: Vec<T>,
    counts: Arc<ExportCounts>,
    failures: FailureLog,
}

impl<T: Exported> Exporter<T> {
    pub fn new(collector: Collector, waiting: mpsc::Receiver<T>, queue: &ExportQueue<T>) -> Self {
        let counts = queue.counts.clone();
        Self { collector, waiting, batch: Vec::new(), counts, failures: FailureLog::default() }
    }

    /// Runs until the export is to end and the queue is empty.
    pub async fn run(mut self) {
        loop {
            self.gather().await;
            if self.batch.is_empty() {
                return;
            }
            self.export().await;
        }
    }

    /// Fills the batch. It stays empty at the end of the export.
    async fn gather(&mut self) {
        let Self { waiting, batch, collector, .. } = self;
        let gathered = async {
            let first = waiting.recv_many(batch, LARGEST_BATCH).await;
            let rest = async {
                while batch.len() < LARGEST_BATCH
                    && waiting.recv_many(batch, LARGEST_BATCH - batch.len()).await > 0
                {}
            };
            // A batch that is not full is sent when the time is over.
            if first > 0 {
                let _ = tokio::time::timeout(GATHER_TIME, rest).await;
            }
        };
        tokio::select! {
            () = gathered => {}
            () = collector.stop.requested() => {
                self.waiting.close();
                let room = LARGEST_BATCH - self.batch.len();
                // Closed, so it does not wait.
                self.waiting.recv_many(&mut self.batch, room).await;
            }
        }
    }

    async fn export(&mut self) {
        let count = self.batch.len() as u64;
        let request = T::request(self.collector.resource.clone(), &mut self.batch);
        let accepted = match self.collector.send(T::PATH, request).await {
            Ok(response) => count - T::rejected(&response).min(count),
            Err(why) => {
                self.failures.log(T::NAME, &why);
                0
            }
        };
        self.counts.exported.fetch_add(accepted, Ordering::Relaxed);
        self.counts.dropped.fetch_add(count - accepted, Ordering::Relaxed);
    }
}

/// Logs that a collector takes nothing, once in a while.
#[derive(Default)]
pub struct FailureLog(Option<Instant>);

impl FailureLog {
    pub fn log(&mut self, what: &str, why: &str) {
        if self.0.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
            tracing::warn!(error = why, "the collector does not take {what}");
            self.0 = Some(Instant::now());
        }
    }
}

/// The library that what is exported comes from, in the words of OTLP.
pub fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "pushlet".to_owned(), ..InstrumentationScope::default() })
}

pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
