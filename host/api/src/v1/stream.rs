//! `POST /v1/notifications:stream`: newline-delimited JSON in and out.
//!
//! The first line holds what all targets share; each further line is a target. Results are written as they complete,
//! each with its line's `index`; the last line is a summary.

use std::io;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::capture::{CaptureRecord, ExchangeRecord, shown};
use super::lines::{DISCARD_TIME, Interruption, is_blank, next_line, parse, push_line};
use super::respond_async::{self, AcceptedDelivery, prefers_async};
use super::send_body::{duplicates, ensure_explains};
use super::targets::{Summary, TargetResult};
use crate::Api;
use crate::access_log::{RequestLog, SendRecord};
use crate::body::{BodyLine, BodyLines, CutOff, ensure_media_type};
use crate::caller::ByPermission;
use crate::in_flight::InFlightPermit;
use crate::json::{parsed_size, required_text, seconds, typed, utc_time};
use crate::openapi::schemas::{self, Guarded, Handed, Missing, Read};
use crate::response::V1Error;
use crate::verbatim::verbatim;
use pushlet_gateway::tenants::Permission;
use pushlet_gateway::{
    DeliveryResult, Duplicates, Gate, IndexedResult, Line, SendTally, Shared, StreamResult, Targets,
};
use pushlet_model::error::{Error, Kind};
use pushlet_quota::account::MemoryUse;
use pushlet_settings::LimitsConfig;

/// Lines and results that wait between two steps.
const QUEUE_LENGTH: usize = 512;
/// Bytes of a line that is parsed without waiting for room.
const SMALL: usize = 256;
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
    /// With `validate_only`: the results of the first 100 lines have the `requests` that would go, without the credential.
    explain: Option<bool>,
    /// The results of the first 100 lines have a `record` of what the provider was given, what was sent and what was
    /// answered, without the credential.
    capture: Option<bool>,
    /// Seconds for each target; at most the server's own limit.
    #[serde(default, deserialize_with = "seconds")]
    #[schema(exclusive_minimum = 0.0, value_type = Option<f64>)]
    deadline: Option<Duration>,
    /// With `Prefer: respond-async`: send nothing before this time. RFC 3339 with `Z`; at most `limits.async_window` ahead.
    #[serde(default, deserialize_with = "utc_time")]
    #[schema(value_type = Option<String>)]
    not_before: Option<SystemTime>,
    /// What happens to a target that is repeated with the same notification, if it is among at least the last 114,688
    /// different targets; `skip` by default.
    #[serde(default, deserialize_with = "duplicates")]
    duplicates: Option<Duplicates>,
}

/// The result of one line.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamResult)]
pub struct ShownResult {
    #[serde(flatten)]
    result: TargetResult,
    /// What would go, if the first line said `explain`; at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    requests: Option<Vec<ExchangeRecord>>,
    /// What was done, if the first line said `capture`; at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    record: Option<CaptureRecord>,
}

/// What the caller wants to see of each line.
#[derive(Clone, Copy)]
struct Wanted {
    explain: bool,
    capture: bool,
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

/// The task that sends a stream and waits for the one that reads it; an error: one of them panicked.
type StreamTask = JoinHandle<Result<Option<Interruption>, JoinError>>;

/// Stream to any number of targets
///
/// Newline-delimited JSON both ways. The first line is a `StreamHeader`; each further line is a `StreamLine`.
/// Results are written as they complete, each a `StreamResult` with the `index` of its line; the last line is a
/// `StreamEnd`. What is wrong with a line is that line's result. A stream reads no further than it sends, and sends no
/// further than its results are read.
#[utoipa::path(
    post, path = "/v1/notifications:stream", operation_id = "stream_notifications", tag = "Notifications",
    params(("Prefer" = Option<String>, Header, description = "`respond-async`: see send_notifications.")),
    request_body(content(
        (schemas::Lines = "application/x-ndjson"),
        (schemas::Lines = "application/ndjson"),
        (schemas::Lines = "application/jsonl"),
    )),
    responses(
        (status = 200, description = "A line for each target, and a summary.",
            content((schemas::ResultLines = "application/x-ndjson"))),
        (status = 202, description = "Accepted (`Prefer: respond-async`).", body = AcceptedDelivery),
        Missing, Read, Handed, Guarded
    )
)]
pub(super) async fn send(
    State(api): State<Api>,
    ByPermission(permission): ByPermission,
    permit: InFlightPermit,
    log: RequestLog,
    request: Request,
) -> Result<Response, V1Error> {
    ensure_media_type(request.headers(), CONTENT_TYPES)?;
    let queued = prefers_async(request.headers()).then(|| permission.clone());
    let mut lines = BodyLines::new(request.into_body(), api.limits.stream_line);
    let tenant = permission.tenant().id.clone();
    // One timeout until the end of the first line that is not blank: a blank line must not restart it.
    let header = header(&mut lines, &api.limits, permission);
    let (shared, wanted) = timeout(api.limits.body_timeout, header).await.map_err(|_| {
        Error::new(Kind::Invalid, "request_timeout", "the first line took too long to arrive")
    })??;
    // For the line that is being read. Lines in flight are counted by the gate.
    permit.reserve(MemoryUse::RequestBodies, api.limits.stream_line)?;
    if let Some(permission) = queued {
        if shared.capture {
            return Err(respond_async::nobody_waits().into());
        }
        return Ok(respond_async::accept_lines(api, permission, (permit, log), shared, lines).await?);
    }
    respond_async::ensure_now(&shared)?;
    let application = shared.application_id.clone();
    let shared = Shared { request_id: Some(log.head().id().into()), ..shared };
    let stream = match api.gateway.stream(&tenant, shared).await {
        Ok(stream) => stream,
        Err(error) => {
            log.sent(SendRecord::refused(application));
            return Err(error.into());
        }
    };
    let (to_send, received) = mpsc::channel(QUEUE_LENGTH);
    let (settled, results) = mpsc::channel(QUEUE_LENGTH);
    let (idle, line_timeout, gate) = (api.limits.stream_idle, api.limits.body_timeout, stream.gate());
    let (tally, taken) = (SendTally::default(), settled.clone());
    let reader = LineReader { lines, gate, to_send, results: taken, idle, line_timeout, next: 0, tally };
    // Tasks of their own: lines that were read are sent even if the caller goes away.
    let reading = tokio::spawn(reader.run(permit.clone()));
    let sending = tokio::spawn(async move {
        let _permit = permit;
        let provider = stream.provider().to_owned();
        let StreamResult { stop, mut tally } = stream.run(received, settled.clone()).await;
        let ended = if settled.is_closed() { "caller_gone" } else { "complete" };
        // A sender that stops also ends the reader, so its own reason comes first.
        let (interrupted, unsent) = reading.await?;
        let interrupted = stop.map(Interruption::from).or(interrupted);
        tally.add(&unsent);
        let ended = Some(interrupted.map_or(ended, Interruption::name));
        log.sent(SendRecord { application, provider, tally, ended });
        Ok(interrupted)
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(chunks(results, sending, wanted))).into_response())
}

/// Returns the first line that is not blank.
async fn header(
    lines: &mut BodyLines,
    limits: &LimitsConfig,
    permission: Permission,
) -> Result<(Shared, Wanted), Error> {
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
    let wanted =
        Wanted { explain: header.explain.unwrap_or(false), capture: header.capture.unwrap_or(false) };
    ensure_explains(wanted.explain, header.validate_only)?;
    let shared = Shared {
        application_id: header.application_id,
        size: parsed_size(&text),
        notification: header.notification.unwrap_or_default(),
        validate_only: header.validate_only.unwrap_or(false),
        deadline: header.deadline,
        duplicates: header.duplicates.unwrap_or_default(),
        targets: Targets::Open(permission),
        not_before: header.not_before,
        capture: wanted.explain || wanted.capture,
        request_id: None,
    };
    Ok((shared, wanted))
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
    /// Lines that are not sent.
    tally: SendTally,
}

impl LineReader {
    /// Reads until the lines end, or the sender or the caller stops taking. Returns why it ended before the lines did,
    /// and how many lines were wrong.
    async fn run(mut self, permit: InFlightPermit) -> (Option<Interruption>, SendTally) {
        let interruption = self.read_all(permit).await;
        // A connection that is closed while lines still arrive is reset, and the caller would lose the last line.
        tokio::spawn(timeout(DISCARD_TIME, self.lines.discard()));
        (interruption, self.tally)
    }

    async fn read_all(&mut self, permit: InFlightPermit) -> Option<Interruption> {
        loop {
            // Lines that have arrived are taken without a `select!`, which costs more than they do.
            let line = match self.lines.take() {
                Some(line) => line,
                None => tokio::select! {
                    line = next_line(&mut self.lines, self.idle, self.line_timeout) => match line {
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
                self.tally.count(&result);
                self.results.send(result).await.is_ok()
            }
        }
    }
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

/// Returns the response's body: the results, all that are there in one chunk, and the last line. If a task panicked,
/// the body breaks off instead, since a summary would not be true.
fn chunks(
    results: Results,
    sending: StreamTask,
    wanted: Wanted,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    let state = Some((results, sending, Summary::default(), Vec::with_capacity(CHUNK)));
    futures_util::stream::unfold(state, move |state| async move {
        let (mut results, sending, mut summary, mut received) = state?;
        let mut chunk = Vec::new();
        if results.recv_many(&mut received, CHUNK).await == 0 {
            let Ok(Ok(interrupted)) = sending.await else {
                return Some((Err(io::Error::other("the stream failed")), None));
            };
            push_line(&mut chunk, &StreamEnd { summary, interrupted });
            return Some((Ok(chunk.into()), None));
        }
        // About as long as the line of a delivered target, so that the chunk is allocated once.
        chunk.reserve(received.len() * 96);
        for mut result in received.drain(..) {
            let captured = result.captured.take();
            let result = TargetResult::new(result);
            summary.count(result.status);
            match captured {
                None => push_line(&mut chunk, &result),
                Some(captured) => {
                    let (requests, record) = shown(Some(*captured), wanted.explain, wanted.capture);
                    push_line(&mut chunk, &ShownResult { result, requests, record });
                }
            }
        }
        Some((Ok(chunk.into()), Some((results, sending, summary, received))))
    })
}
