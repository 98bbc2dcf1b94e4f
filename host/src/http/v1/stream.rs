//! `POST /v1/notifications:stream`: newline-delimited JSON in and out.
//!
//! The first line holds what all targets share; each further line is a target. Results come as they are
//! there, each with the number of its line; the last line, without a number, sums up.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::super::Api;
use super::super::admission::Place;
use super::notifications::seconds;
use super::result::{Summary, TargetResult};
use super::{Failure, target};
use crate::error::{Error, Kind};
use crate::gateway::{Fate, Line};
use crate::tenant::TenantId;

const LONGEST_LINE: usize = 64 << 10;
/// Lines and results that wait between two steps.
const WAITING: usize = 512;
/// Results in one piece of the answer.
const PIECE: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    application_id: String,
    #[serde(default)]
    notification: Map<String, Value>,
    /// Seconds, for each target.
    deadline: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetLine {
    target: Value,
    notification: Option<Map<String, Value>>,
}

/// The last line.
#[derive(Serialize)]
struct End {
    summary: Summary,
    /// Why it ended before the caller's lines did.
    #[serde(skip_serializing_if = "Option::is_none")]
    interrupted: Option<&'static str>,
}

type Lines = FramedRead<
    StreamReader<Pin<Box<dyn futures_util::Stream<Item = io::Result<Bytes>> + Send>>, Bytes>,
    LinesCodec,
>;

pub(super) async fn send(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Extension(place): Extension<Place>,
    request: Request,
) -> Result<Response, Failure> {
    let body = request.into_body().into_data_stream().map_err(io::Error::other);
    let body: Pin<Box<dyn futures_util::Stream<Item = io::Result<Bytes>> + Send>> = Box::pin(body);
    let mut lines = FramedRead::new(StreamReader::new(body), LinesCodec::new_with_max_length(LONGEST_LINE));
    let header = header(lines.next().await)?;
    let deadline = header.deadline.map(seconds).transpose()?;
    let stream = api.backend.stream(&tenant, &header.application_id, header.notification, deadline)?;
    let (to_send, received) = mpsc::channel(WAITING);
    let (settled, results) = mpsc::channel(WAITING);
    let (ended, end) = tokio::sync::oneshot::channel();
    tokio::spawn({
        let (settled, place) = (settled.clone(), place.clone());
        async move {
            let _ = ended.send(read(lines, to_send, settled, &place).await);
        }
    });
    tokio::spawn(async move {
        let _place = place;
        stream.run(received, settled).await;
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pieces(results, end))).into_response())
}

fn header(line: Option<Result<String, LinesCodecError>>) -> Result<Header, Error> {
    let wrong = |why: String| {
        let message =
            format!("the first line must be a JSON object with application_id and notification: {why}");
        Error::new(Kind::Invalid, "invalid_header", message)
    };
    let line =
        line.ok_or_else(|| wrong("there is no line".into()))?.map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))
}

/// Reads the targets' lines to their end; what is wrong with a line is that line's result. Answers why it
/// ended early, if it did.
async fn read(
    mut lines: Lines,
    to_send: mpsc::Sender<Line>,
    results: mpsc::Sender<(usize, Fate)>,
    place: &Place,
) -> Option<&'static str> {
    let mut index = 0;
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = place.closing() => return Some("shutting_down"),
            () = results.closed() => return Some("nobody reads the results"),
        };
        let parsed = match line {
            None => return None,
            Some(Err(LinesCodecError::Io(_))) => return Some("the request was cut off"),
            Some(Err(LinesCodecError::MaxLineLengthExceeded)) => Err(Error::new(
                Kind::TooLarge,
                "line_too_long",
                format!("a line is longer than {LONGEST_LINE} bytes"),
            )),
            Some(Ok(line)) if line.trim().is_empty() => continue,
            Some(Ok(line)) => parse(index, &line),
        };
        let taken = match parsed {
            Ok(line) => to_send.send(line).await.is_ok(),
            Err(error) => results.send((index, Fate::Failed(error))).await.is_ok(),
        };
        if !taken {
            return Some("nobody reads the results");
        }
        index += 1;
    }
}

fn parse(index: usize, line: &str) -> Result<Line, Error> {
    let wrong = |error: serde_json::Error| {
        Error::new(Kind::Invalid, "invalid_line", format!("the line can not be read: {error}"))
    };
    let line: TargetLine = serde_json::from_str(line).map_err(wrong)?;
    Ok(Line { index, target: target::parse(&line.target, "target")?, notification: line.notification })
}

/// The answer's body: results, many in a piece where many are there, and the last line.
fn pieces(
    results: mpsc::Receiver<(usize, Fate)>,
    end: tokio::sync::oneshot::Receiver<Option<&'static str>>,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    let state = Some((results, end, Summary::default(), Vec::with_capacity(PIECE)));
    futures_util::stream::unfold(state, async |state| {
        let (mut results, end, mut summary, mut received) = state?;
        if results.recv_many(&mut received, PIECE).await == 0 {
            let interrupted = end.await.unwrap_or(Some("an unexpected error"));
            let mut piece = Vec::new();
            push_line(&mut piece, &End { summary, interrupted });
            return Some((Ok(piece.into()), None));
        }
        let mut piece = Vec::with_capacity(received.len() * 96);
        for (index, fate) in received.drain(..) {
            let result = TargetResult::new(index, fate);
            summary.count(result.status);
            push_line(&mut piece, &result);
        }
        Some((Ok(piece.into()), Some((results, end, summary, received))))
    })
}

fn push_line(piece: &mut Vec<u8>, line: &impl Serialize) {
    // A struct of texts and numbers can always be written into memory.
    if serde_json::to_writer(&mut *piece, line).is_ok() {
        piece.push(b'\n');
    }
}
