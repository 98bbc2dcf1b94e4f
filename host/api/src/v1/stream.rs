//! `POST /v1/notifications:stream`: newline-delimited JSON in and out.
//!
//! The first line holds what all targets share; each further line is a target. Results are written as they complete,
//! each with its line's `index`; the last line is a summary.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::send_body::duplicates;
use super::targets::{Summary, TargetResult, parse_target};
use crate::Api;
use crate::body::{BodyLine, BodyLines, CutOff, ensure_media_type};
use crate::caller::ByPermission;
use crate::in_flight::InFlightPermit;
use crate::json::{parsed_size, required_text, seconds, typed};
use crate::openapi::schemas::{self, Guarded, Missing, Read};
use crate::response::V1Error;
use crate::verbatim::verbatim;
use pushlet_gateway::tenants::{Permission, Withdrawal};
use pushlet_gateway::{DeliveryResult, Duplicates, Gate, IndexedResult, Line, Shared, Stop, Targets};
use pushlet_model::error::{Error, Kind};
use pushlet_quota::account::MemoryUse;
use pushlet_settings::LimitsConfig;

/// Lines and results that wait between two steps.
const QUEUE_LENGTH: usize = 512;
/// Bytes of a line that is parsed without waiting for room.
const SMALL: usize = 256;
/// How long lines are still read, and dropped, after the stream was stopped.
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// Results in one chunk of the response.
const CHUNK: usize = 256;
const CONTENT_TYPES: &[&str] =
    &["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"];

/// The first line of a stream: what all targets share.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamHeader {
    #[serde(deserialize_with = "required_text")]
    #[schema(min_length = 1)]
    application_id: String,
    #[serde(default, deserialize_with = "verbatim")]
    #[schema(value_type = Option<schemas::Notification>)]
    notification: Option<Map<String, Value>>,
    /// Check everything, and send nothing.
    validate_only: Option<bool>,
    /// Seconds for each target; at most the server's own limit.
    #[serde(default, deserialize_with = "seconds")]
    #[schema(exclusive_minimum = 0.0, value_type = Option<f64>)]
    deadline: Option<Duration>,
    /// What happens to a target that is repeated with the same notification, if it is among at least the last 114,688
    /// different targets; `skip` by default.
    #[serde(default, deserialize_with = "duplicates")]
    duplicates: Option<Duplicates>,
}

/// A further line of a stream: one target.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamLine {
    #[serde(deserialize_with = "target")]
    #[schema(value_type = schemas::Target)]
    target: Value,
    /// Its fields win over those of the shared notification; null removes one.
    #[serde(default, deserialize_with = "verbatim")]
    #[schema(value_type = Option<schemas::Notification>)]
    notification: Option<Map<String, Value>>,
}

/// Why a stream ended before the caller's lines did. Lines without a result were not sent: send them again once the
/// reason is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    /// This server is stopping.
    ShuttingDown,
    /// The request's body broke off.
    CutOff,
    /// No line came for too long, or one that had begun did not end.
    Idle,
    /// The API key that opened the stream was revoked.
    KeyRevoked,
    /// The API key that opened the stream expired.
    KeyExpired,
    TenantSuspended,
    TenantDeleted,
    /// The application that the stream sends for was deleted.
    ApplicationDeleted,
}

impl From<Stop> for Interruption {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Withdrawn(Withdrawal::KeyRevoked) => Self::KeyRevoked,
            Stop::Withdrawn(Withdrawal::KeyExpired) => Self::KeyExpired,
            Stop::Withdrawn(Withdrawal::TenantSuspended) => Self::TenantSuspended,
            Stop::Withdrawn(Withdrawal::TenantDeleted) => Self::TenantDeleted,
            Stop::ApplicationDeleted => Self::ApplicationDeleted,
        }
    }
}

/// The last line of the response.
#[derive(Serialize, ToSchema)]
pub struct StreamEnd {
    pub summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub interrupted: Option<Interruption>,
}

type Results = mpsc::Receiver<IndexedResult>;

/// The two halves of a stream.
struct StreamTasks {
    reading: JoinHandle<Option<Interruption>>,
    sending: JoinHandle<Option<Interruption>>,
}

impl StreamTasks {
    /// Waits for both, and returns why they stopped. The sender's reason comes first, since a sender that stops also
    /// ends the reader.
    async fn interrupted(self) -> Result<Option<Interruption>, JoinError> {
        Ok(self.sending.await?.or(self.reading.await?))
    }
}

/// Stream to any number of targets
///
/// Newline-delimited JSON both ways. The first line is a `StreamHeader`; each further line is a `StreamLine`.
/// Results are written as they complete, each a `TargetResult` with the `index` of its line; the last line is a
/// `StreamEnd`. What is wrong with a line is that line's result. A stream reads no further than it sends, and sends no
/// further than its results are read.
#[utoipa::path(
    post, path = "/v1/notifications:stream", operation_id = "stream_notifications", tag = "Notifications",
    request_body(content(
        (schemas::Lines = "application/x-ndjson"),
        (schemas::Lines = "application/ndjson"),
        (schemas::Lines = "application/jsonl"),
    )),
    responses(
        (status = 200, description = "A line for each target, and a summary.",
            content((schemas::ResultLines = "application/x-ndjson"))),
        Missing, Read, Guarded
    )
)]
pub(super) async fn send(
    State(api): State<Api>,
    ByPermission(permission): ByPermission,
    permit: InFlightPermit,
    request: Request,
) -> Result<Response, V1Error> {
    ensure_media_type(request.headers(), CONTENT_TYPES)?;
    let mut lines = BodyLines::new(request.into_body(), api.limits.stream_line);
    let tenant = permission.tenant().id.clone();
    // One timeout until the end of the first line that is not blank: a blank line must not restart it.
    let header = header(&mut lines, &api.limits, permission);
    let shared = timeout(api.limits.body_timeout, header).await.map_err(|_| {
        Error::new(Kind::Invalid, "request_timeout", "the first line took too long to arrive")
    })??;
    // For the line that is being read. Lines in flight are counted by the gate.
    permit.reserve(MemoryUse::RequestBodies, api.limits.stream_line)?;
    let stream = api.gateway.stream(&tenant, shared).await?;
    let (to_send, received) = mpsc::channel(QUEUE_LENGTH);
    let (settled, results) = mpsc::channel(QUEUE_LENGTH);
    let (idle, line_timeout, gate) = (api.limits.stream_idle, api.limits.body_timeout, stream.gate());
    let reader = LineReader { lines, gate, to_send, results: settled.clone(), idle, line_timeout, next: 0 };
    // Tasks of their own: lines that were read are sent even if the caller goes away.
    let reading = tokio::spawn(reader.run(permit.clone()));
    let sending = tokio::spawn(async move {
        let _permit = permit;
        stream.run(received, settled).await.map(Interruption::from)
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(chunks(results, StreamTasks { reading, sending }))).into_response())
}

/// Returns the first line that is not blank.
async fn header(
    lines: &mut BodyLines,
    limits: &LimitsConfig,
    permission: Permission,
) -> Result<Shared, Error> {
    let invalid = |why: &str| {
        let message =
            format!("the first line must be a JSON object with application_id and notification: {why}");
        Error::new(Kind::Invalid, "invalid_header", message)
    };
    let text = loop {
        match lines.next().await {
            Ok(Some(BodyLine::Text(text))) if is_blank(&text) => {}
            Ok(Some(BodyLine::Text(text))) => break text,
            Ok(Some(BodyLine::TooLong)) => {
                return Err(invalid(&format!("it is longer than {} bytes", limits.stream_line)));
            }
            Ok(None) => return Err(invalid("there is no line")),
            Err(CutOff) => return Err(Error::new(Kind::Invalid, "incomplete_body", "the body ended early")),
        }
    };
    let header: StreamHeader = typed(&text, "it").map_err(|error| match &*error.code {
        "invalid_json" => invalid(&error.message),
        _ => error,
    })?;
    Ok(Shared {
        application_id: header.application_id,
        size: parsed_size(&text),
        notification: header.notification.unwrap_or_default(),
        validate_only: header.validate_only.unwrap_or(false),
        deadline: header.deadline,
        duplicates: header.duplicates.unwrap_or_default(),
        targets: Targets::Open(permission),
    })
}

fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

/// Reads the targets' lines. What is wrong with a line is that line's result.
struct LineReader {
    lines: BodyLines,
    gate: Gate,
    to_send: mpsc::Sender<Line>,
    results: mpsc::Sender<IndexedResult>,
    idle: Duration,
    /// From a line's first byte to its end.
    line_timeout: Duration,
    next: usize,
}

impl LineReader {
    /// Reads until the lines end, or the sender or the caller stops taking. Returns why it ended before the lines did.
    async fn run(mut self, permit: InFlightPermit) -> Option<Interruption> {
        let interruption = self.read_all(permit).await;
        // A connection that is closed while lines still arrive is reset, and the caller would lose the last line.
        tokio::spawn(timeout(DISCARD_TIME, self.lines.discard()));
        interruption
    }

    async fn read_all(&mut self, permit: InFlightPermit) -> Option<Interruption> {
        loop {
            // Lines that have arrived are taken without a `select!`, which costs more than they do.
            let line = match self.lines.take() {
                Some(line) => line,
                None => tokio::select! {
                    line = next(&mut self.lines, self.idle, self.line_timeout) => match line {
                        Ok(Some(line)) => line,
                        Ok(None) => return None,
                        Err(interruption) => return Some(interruption),
                    },
                    () = permit.closing() => return Some(Interruption::ShuttingDown),
                    () = self.to_send.closed() => return None,
                    () = self.results.closed() => return None,
                },
            };
            // Also for lines that have arrived: a caller that is fast enough never gets to the `select!`.
            if permit.is_closing() {
                return Some(Interruption::ShuttingDown);
            }
            if !self.hand_on(line).await {
                return None;
            }
        }
    }

    /// Returns false if the sender or the caller stopped taking.
    async fn hand_on(&mut self, line: BodyLine) -> bool {
        let index = self.next;
        let parsed = match line {
            BodyLine::Text(text) if is_blank(&text) => return true,
            BodyLine::Text(text) => admit(&self.gate, index, &text).await,
            BodyLine::TooLong => Err(Error::new(Kind::TooLarge, "line_too_long", "the line is too long")),
        };
        self.next += 1;
        match parsed {
            Ok(line) => self.to_send.send(line).await.is_ok(),
            Err(error) => {
                let result = IndexedResult::untried(index, DeliveryResult::Failed(error));
                self.results.send(result).await.is_ok()
            }
        }
    }
}

/// Reads the next line. It may begin late, but must end soon after it has begun.
async fn next(
    lines: &mut BodyLines,
    idle: Duration,
    line: Duration,
) -> Result<Option<BodyLine>, Interruption> {
    let cut_off = |CutOff| Interruption::CutOff;
    timeout(idle, lines.begun()).await.map_err(|_| Interruption::Idle)?.map_err(cut_off)?;
    timeout(line, lines.next()).await.map_err(|_| Interruption::Idle)?.map_err(cut_off)
}

/// Waits until there is room for the line, and parses it.
async fn admit(gate: &Gate, index: usize, text: &[u8]) -> Result<Line, Error> {
    // Nearly all lines are small, and not counted.
    if text.len() <= SMALL {
        let mut line = parse(index, text)?;
        if line.notification.is_some() {
            line.held = gate.pass(parsed_size(text), true).await?;
        }
        return Ok(line);
    }
    let held = gate.pass(parsed_size(text), true).await?;
    Ok(Line { held, ..parse(index, text)? })
}

fn parse(index: usize, text: &[u8]) -> Result<Line, Error> {
    let StreamLine { target, notification } = typed(text, "it")?;
    let target = parse_target(target, || "target".to_owned())?;
    Ok(Line { index, target, notification: notification.map(Arc::new), size: text.len(), held: None })
}

/// Reads a target; null counts as missing.
fn target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Option::<Value>::deserialize(deserializer)?.ok_or_else(|| D::Error::missing_field(""))
}

/// Returns the response's body: the results, all that are there in one chunk, and the last line. If a task panicked,
/// the body breaks off instead, since a summary would not be true.
fn chunks(results: Results, tasks: StreamTasks) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    let state = Some((results, tasks, Summary::default(), Vec::with_capacity(CHUNK)));
    futures_util::stream::unfold(state, async |state| {
        let (mut results, tasks, mut summary, mut received) = state?;
        let mut chunk = Vec::new();
        if results.recv_many(&mut received, CHUNK).await == 0 {
            let Ok(interrupted) = tasks.interrupted().await else {
                return Some((Err(io::Error::other("the stream failed")), None));
            };
            push_line(&mut chunk, &StreamEnd { summary, interrupted });
            return Some((Ok(chunk.into()), None));
        }
        // About as long as the line of a delivered target, so that the chunk is allocated once.
        chunk.reserve(received.len() * 96);
        for result in received.drain(..) {
            let result = TargetResult::new(result);
            summary.count(result.status);
            push_line(&mut chunk, &result);
        }
        Some((Ok(chunk.into()), Some((results, tasks, summary, received))))
    })
}

fn push_line(chunk: &mut Vec<u8>, line: &impl Serialize) {
    // A struct of texts and numbers can always be written into memory.
    if serde_json::to_writer(&mut *chunk, line).is_ok() {
        chunk.push(b'\n');
    }
}
