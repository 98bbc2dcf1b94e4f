//! `POST /v1/notifications:stream`: newline-delimited JSON in and out.
//!
//! The first line holds what all targets share; each further line is a target. Results come as they are
//! there, each with the number of its line; the last line, without a number, sums up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::super::Api;
use super::super::admission::Place;
use super::super::auth::Allowed;
use super::super::json_body::parsed_size;
use super::super::openapi::{self, Guarded, Missing, Read};
use super::lines::{CutOff, Line, Lines};
use super::object::Object;
use super::result::{Summary, TargetResult};
use super::{Failure, content_type, target};
use pushlet_gateway::tenants::{Permission, Withdrawal};
use pushlet_gateway::{self as gateway, DeliveryResult, Duplicates, Fate, Gate, Shared, Stop, Targets};
use pushlet_model::error::{Error, Kind};
use pushlet_quota::account::MemoryUse;
use pushlet_settings::LimitsConfig;

/// Lines and results that wait between two steps.
const WAITING: usize = 512;
/// Bytes of a line that is parsed before it is known what it takes.
const SMALL: usize = 256;
/// How long lines are still read, and dropped, after the stream was stopped.
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// Results in one piece of the answer.
const PIECE: usize = 256;
const CONTENT_TYPES: &[&str] =
    &["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"];
pub(super) const HEADER_FIELDS: &[&str] =
    &["application_id", "notification", "validate_only", "deadline", "duplicates"];
pub(super) const LINE_FIELDS: &[&str] = &["target", "notification"];

/// The first line of a stream: what all targets share.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read field by field, so that errors name the field")]
pub(super) struct StreamHeader {
    #[schema(min_length = 1)]
    application_id: String,
    notification: Option<openapi::Notification>,
    /// Check everything, and send nothing.
    validate_only: Option<bool>,
    /// Seconds for each target; at most the server's own limit.
    #[schema(exclusive_minimum = 0.0)]
    deadline: Option<f64>,
    /// What becomes of a target that comes again with the same notification, if it is among the last 114,688 different
    /// targets at least; `skip` by default.
    duplicates: Option<Duplicates>,
}

/// A further line of a stream: one target.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read field by field, so that errors name the field")]
pub(super) struct StreamLine {
    target: openapi::Target,
    /// Its fields win over those of the shared notification; null takes one away.
    notification: Option<openapi::Notification>,
}

/// Why a stream ended before the caller's lines did. Lines without a result were not sent: send them again once the
/// reason is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Interruption {
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

/// The last line of a stream's answer.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamEnd)]
pub(super) struct End {
    pub summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub interrupted: Option<Interruption>,
}

type Results = mpsc::Receiver<DeliveryResult>;

/// How the two halves of a stream ended.
struct Ends {
    reading: JoinHandle<Option<Interruption>>,
    sending: JoinHandle<Option<Interruption>>,
}

impl Ends {
    /// A sender that stopped ends the reader too, so its reason goes first.
    async fn interrupted(self) -> Result<Option<Interruption>, JoinError> {
        Ok(self.sending.await?.or(self.reading.await?))
    }
}

/// Stream to any number of targets
///
/// Newline-delimited JSON both ways. The first line is a `StreamHeader`; each further line is a `StreamLine`.
/// Results come as they are there, each a `TargetResult` with the number of its line; the last line, a `StreamEnd`,
/// sums up. What is wrong with a line is that line's result. A stream reads no further than it sends, and sends no
/// further than its results are read.
#[utoipa::path(
    post,
    path = "/v1/notifications:stream",
    operation_id = "stream_notifications",
    tag = "Notifications",
    request_body(content(
        (openapi::Lines = "application/x-ndjson"),
        (openapi::Lines = "application/ndjson"),
        (openapi::Lines = "application/jsonl"),
    )),
    responses(
        (status = 200, description = "A line for each target, and one that sums up.",
            content((openapi::ResultLines = "application/x-ndjson"))),
        Missing, Read, Guarded
    )
)]
pub(super) async fn send(
    State(api): State<Api>,
    Allowed(permission): Allowed,
    place: Place,
    request: Request,
) -> Result<Response, Failure> {
    content_type(request.headers(), CONTENT_TYPES)?;
    let mut lines = Lines::new(request.into_body(), api.limits.stream_line);
    let tenant = permission.tenant().id.clone();
    // One limit for all that comes before the first line's end: blank lines must not begin it again.
    let header = header(&mut lines, &api.limits, permission);
    let shared = timeout(api.limits.body_timeout, header).await.map_err(|_| {
        Error::new(Kind::Invalid, "request_timeout", "the first line took too long to arrive")
    })??;
    place.reserve(MemoryUse::RequestBodies, api.limits.stream_line)?;
    let stream = api.gateway.stream(&tenant, shared).await?;
    let (to_send, received) = mpsc::channel(WAITING);
    let (settled, results) = mpsc::channel(WAITING);
    let (idle, line_timeout, gate) = (api.limits.stream_idle, api.limits.body_timeout, stream.gate());
    let reader = Reader { lines, gate, to_send, results: settled.clone(), idle, line_timeout, next: 0 };
    // Both go on when nobody reads the answer.
    let reading = tokio::spawn(reader.run(place.clone()));
    let sending = tokio::spawn(async move {
        let _place = place;
        stream.run(received, settled).await.map(Interruption::from)
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(pieces(results, Ends { reading, sending }))).into_response())
}

/// The first line that is not blank.
async fn header(lines: &mut Lines, limits: &LimitsConfig, permission: Permission) -> Result<Shared, Error> {
    let wrong = |why: &str| {
        let message =
            format!("the first line must be a JSON object with application_id and notification: {why}");
        Error::new(Kind::Invalid, "invalid_header", message)
    };
    loop {
        match lines.next().await {
            Ok(Some(Line::Text(text))) if is_blank(&text) => {}
            Ok(Some(Line::Text(text))) => {
                let mut header = Object::parse(&text, HEADER_FIELDS).map_err(|error| match &*error.code {
                    "invalid_json" => wrong(&error.message),
                    _ => error,
                })?;
                return Ok(Shared {
                    application_id: header.needed_text("application_id")?,
                    size: parsed_size(&text),
                    notification: header.object("notification")?.unwrap_or_default(),
                    validate_only: header.switch("validate_only")?,
                    deadline: header.seconds("deadline")?,
                    duplicates: header.duplicates()?,
                    targets: Targets::Open(permission),
                });
            }
            Ok(Some(Line::TooLong)) => {
                return Err(wrong(&format!("it is longer than {} bytes", limits.stream_line)));
            }
            Ok(None) => return Err(wrong("there is no line")),
            Err(CutOff) => return Err(Error::new(Kind::Invalid, "incomplete_body", "the body ended early")),
        }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

/// Reads the targets' lines; what is wrong with a line is that line's result.
struct Reader {
    lines: Lines,
    gate: Gate,
    to_send: mpsc::Sender<gateway::Line>,
    results: mpsc::Sender<DeliveryResult>,
    idle: Duration,
    /// From a line's first byte to its end.
    line_timeout: Duration,
    next: usize,
}

impl Reader {
    /// To the end of the lines, or until nobody takes them or the results. Answers why it ended early, if it did.
    async fn run(mut self, place: Place) -> Option<Interruption> {
        let interruption = self.read_all(place).await;
        // A connection that is closed while lines still arrive is reset, and the caller would not get the last line.
        tokio::spawn(timeout(DISCARD_TIME, self.lines.discard()));
        interruption
    }

    async fn read_all(&mut self, place: Place) -> Option<Interruption> {
        loop {
            let line = match self.lines.take() {
                Some(line) => line,
                None => tokio::select! {
                    line = next(&mut self.lines, self.idle, self.line_timeout) => match line {
                        Ok(Some(line)) => line,
                        Ok(None) => return None,
                        Err(interruption) => return Some(interruption),
                    },
                    () = place.closing() => return Some(Interruption::ShuttingDown),
                    () = self.to_send.closed() => return None,
                    () = self.results.closed() => return None,
                },
            };
            if place.is_closing() {
                return Some(Interruption::ShuttingDown);
            }
            if !self.hand_on(line).await {
                return None;
            }
        }
    }

    /// False: nobody takes the lines, or the results.
    async fn hand_on(&mut self, line: Line) -> bool {
        let index = self.next;
        let parsed = match line {
            Line::Text(text) if is_blank(&text) => return true,
            Line::Text(text) => admitted(&self.gate, index, &text).await,
            Line::TooLong => Err(Error::new(Kind::TooLarge, "line_too_long", "the line is too long")),
        };
        self.next += 1;
        match parsed {
            Ok(line) => self.to_send.send(line).await.is_ok(),
            Err(error) => {
                let result = DeliveryResult::untried(index, Fate::Failed(error));
                self.results.send(result).await.is_ok()
            }
        }
    }
}

/// The next line. It may be waited for long, but once it has begun it must go on.
async fn next(lines: &mut Lines, idle: Duration, line: Duration) -> Result<Option<Line>, Interruption> {
    let cut_off = |CutOff| Interruption::CutOff;
    timeout(idle, lines.begun()).await.map_err(|_| Interruption::Idle)?.map_err(cut_off)?;
    timeout(line, lines.next()).await.map_err(|_| Interruption::Idle)?.map_err(cut_off)
}

/// Parses the line when there is room for it.
async fn admitted(gate: &Gate, index: usize, text: &[u8]) -> Result<gateway::Line, Error> {
    // Small ones are parsed at once: nearly all are, and are not counted.
    if text.len() <= SMALL {
        let mut line = parse(index, text)?;
        if line.notification.is_some() {
            line.held = gate.pass(parsed_size(text), true).await?;
        }
        return Ok(line);
    }
    let held = gate.pass(parsed_size(text), true).await?;
    Ok(gateway::Line { held, ..parse(index, text)? })
}

fn parse(index: usize, text: &[u8]) -> Result<gateway::Line, Error> {
    let mut line = Object::parse(text, LINE_FIELDS)?;
    let target = line.value("target");
    let target = target.ok_or_else(|| Error::field("missing_target", "target", "there is no target"))?;
    Ok(gateway::Line {
        index,
        target: target::parse(target, || "target".to_owned())?,
        notification: line.object("notification")?.map(Arc::new),
        size: text.len(),
        held: None,
    })
}

/// The answer's body: results, many in a piece where many are there, and the last line. Where the last line
/// can not be true, the body breaks off instead.
fn pieces(results: Results, ends: Ends) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    let state = Some((results, ends, Summary::default(), Vec::with_capacity(PIECE)));
    futures_util::stream::unfold(state, async |state| {
        let (mut results, ends, mut summary, mut received) = state?;
        let mut piece = Vec::new();
        if results.recv_many(&mut received, PIECE).await == 0 {
            let Ok(interrupted) = ends.interrupted().await else {
                return Some((Err(io::Error::other("the stream failed")), None));
            };
            push_line(&mut piece, &End { summary, interrupted });
            return Some((Ok(piece.into()), None));
        }
        piece.reserve(received.len() * 96);
        for result in received.drain(..) {
            let result = TargetResult::new(result);
            summary.count(result.status);
            push_line(&mut piece, &result);
        }
        Some((Ok(piece.into()), Some((results, ends, summary, received))))
    })
}

fn push_line(piece: &mut Vec<u8>, line: &impl Serialize) {
    // A struct of texts and numbers can always be written into memory.
    if serde_json::to_writer(&mut *piece, line).is_ok() {
        piece.push(b'\n');
    }
}
