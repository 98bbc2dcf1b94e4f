//! `POST /v1/notifications:stream`: targets out, results in, at the pace of the slowest part.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::channel::{Channel, Sender};
use parking_lot::Mutex;
use reqwest::{Body, Method};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::progress::{self, ProgressDisplay, StopSignal};
use super::targets::{OTHER_SPELLING, RecentTargets, ResultsFile, Target, TargetReader};
use crate::server::ApiClient;
use crate::terminal;
use pushlet_settings::Problem;

/// Targets that are read ahead.
const AHEAD: usize = 1024;
/// Targets in one piece of the request.
const PIECE: usize = 256;
/// Targets without a result. More than the server has in flight, so that it never waits for us; few, so that Ctrl-C
/// is soon done: without this bound, the buffers of the sockets would hold many thousands.
const IN_FLIGHT: usize = 4096;
/// Longest line of an answer.
const LONGEST_LINE: usize = 1 << 20;
/// Failures that are shown.
const EXAMPLES: usize = 5;

/// How the stream ended.
#[derive(Default)]
pub struct StreamEnd {
    /// Why the server ended it early, if it did.
    pub interrupted: Option<String>,
    /// Ctrl-C ended it.
    pub stopped: bool,
    /// Some of what went wrong, for people.
    pub examples: Vec<String>,
}

#[derive(Default)]
struct SentTarget {
    /// The text of each target that has no result, by its number in the stream.
    texts: HashMap<u64, String>,
    earlier: RecentTargets,
}

/// The targets that are in flight. Cheap to clone.
#[derive(Clone)]
struct TargetsInFlight {
    sent: Arc<Mutex<SentTarget>>,
    /// For how many more there is room.
    room: Arc<Semaphore>,
}

impl TargetsInFlight {
    fn new() -> Self {
        Self { sent: Arc::default(), room: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, SentTarget> {
        self.sent.lock()
    }

    /// Removes the target of this number. `duplicate_of`: the line that it repeats, if it does. Returns also whether
    /// that one is spelled otherwise.
    fn remove(&self, index: u64, duplicate_of: Option<u64>) -> Option<(String, bool)> {
        let mut sent = self.lock();
        let text = sent.texts.remove(&index)?;
        self.room.add_permits(1);
        let is_other = duplicate_of.is_some_and(|line| sent.earlier.differs(line, &text));
        Some((text, is_other))
    }
}

/// Sends to all targets. What is wrong with a single target is no error.
pub async fn send(
    server: &ApiClient,
    header: &Value,
    targets: TargetReader,
    results: &mut ResultsFile,
    progress: &mut ProgressDisplay,
    mut stop: StopSignal,
) -> Result<StreamEnd, Problem> {
    let (sender, body) = Channel::<Bytes, std::io::Error>::new(4);
    let (read, waiting) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || read_all(targets, &read));
    let in_flight = TargetsInFlight::new();
    let feeding = tokio::spawn(feed(sender, format!("{header}\n"), waiting, in_flight.clone(), stop.clone()));
    let request = server.plain(Method::POST, "/v1/notifications:stream");
    let request = request.header("content-type", "application/x-ndjson").body(Body::wrap(body));
    let received = async {
        let response = server.answer(request).await?;
        receive(server, response, results, progress, &in_flight).await
    };
    let end = tokio::select! {
        end = received => end,
        () = stop.pressed(2) => Ok(StreamEnd::default()),
    };
    // The server has ended the stream: it reads no further targets.
    feeding.abort();
    if stop.is_pressed() {
        // It may wait for input that never comes.
        reading.abort();
        return end.map(|end| StreamEnd { stopped: true, ..end });
    }
    if end.is_err() {
        // It may be waiting for input that is no longer needed.
        reading.abort();
        return end;
    }
    finish(end?, reading, &in_flight).await
}

/// Hands all targets over, without waiting for their results. Returns the delivery.
pub async fn hand_over(server: &ApiClient, header: &Value, targets: TargetReader) -> Result<Value, Problem> {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(4);
    let (read, mut waiting) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || read_all(targets, &read));
    let header = format!("{header}\n");
    let feeding = tokio::spawn(async move {
        let mut piece = BytesMut::from(header.as_bytes());
        let mut received: Vec<Target> = Vec::with_capacity(PIECE);
        while sender.send_data(piece.split().freeze()).await.is_ok()
            && waiting.recv_many(&mut received, PIECE).await > 0
        {
            for Target { line, .. } in received.drain(..) {
                piece.extend_from_slice(line.as_bytes());
                piece.extend_from_slice(b"\n");
            }
        }
        drop(waiting);
        let read = reading.await.map_err(Problem::new).flatten();
        if read.is_err() {
            // The body breaks off, so that the server accepts nothing of it.
            sender.abort(std::io::Error::other("the targets cannot be read"));
        }
        read
    });
    let request = server.plain(Method::POST, "/v1/notifications:stream");
    let request = request.header("content-type", "application/x-ndjson").header("prefer", "respond-async");
    let accepted = server.json(request.body(Body::wrap(body))).await;
    if accepted.is_err() && !feeding.is_finished() {
        // The server has refused it: it reads no further targets.
        feeding.abort();
    }
    match feeding.await {
        Ok(Err(problem)) => Err(problem),
        _ => accepted,
    }
}

async fn finish(
    end: StreamEnd,
    reading: JoinHandle<Result<(), Problem>>,
    in_flight: &TargetsInFlight,
) -> Result<StreamEnd, Problem> {
    if end.interrupted.is_some() {
        return Ok(end);
    }
    reading.await.map_err(Problem::new)??;
    match in_flight.lock().texts.len() {
        0 => Ok(end),
        lost => Err(Problem::new(format_args!("{lost} targets got no result"))),
    }
}

fn read_all(mut targets: TargetReader, read: &mpsc::Sender<Target>) -> Result<(), Problem> {
    while let Some(target) = targets.next()? {
        if read.blocking_send(target).is_err() {
            break;
        }
    }
    Ok(())
}

async fn feed(
    mut sender: Sender<Bytes, std::io::Error>,
    header: String,
    mut waiting: mpsc::Receiver<Target>,
    in_flight: TargetsInFlight,
    mut stop: StopSignal,
) {
    let mut piece = BytesMut::from(header.as_bytes());
    let mut received = Vec::with_capacity(PIECE);
    let mut next = 0;
    // When the server does not read any more, its answer tells why.
    while sender.send_data(piece.split().freeze()).await.is_ok()
        && next_targets(&mut waiting, &mut received, &in_flight.room, &mut stop).await
    {
        let mut sent = in_flight.lock();
        for Target { text, line } in received.drain(..) {
            piece.extend_from_slice(line.as_bytes());
            piece.extend_from_slice(b"\n");
            sent.earlier.push(&text);
            sent.texts.insert(next, text);
            next += 1;
        }
    }
}

/// False: there are no more. After Ctrl-C there are none, whatever waits.
async fn next_targets(
    waiting: &mut mpsc::Receiver<Target>,
    received: &mut Vec<Target>,
    room: &Semaphore,
    stop: &mut StopSignal,
) -> bool {
    let next = async {
        let place = room.acquire().await.ok()?;
        let most = PIECE.min(1 + room.available_permits());
        let count = waiting.recv_many(received, most).await;
        // This is the only consumer, so those that were counted are still there.
        let others = room.acquire_many(u32::try_from(count.saturating_sub(1)).ok()?).await.ok()?;
        (count > 0).then(|| {
            place.forget();
            others.forget();
        })
    };
    tokio::select! {
        biased;
        () = stop.pressed(1) => false,
        more = next => more.is_some(),
    }
}

async fn receive(
    server: &ApiClient,
    mut response: reqwest::Response,
    results: &mut ResultsFile,
    progress: &mut ProgressDisplay,
    in_flight: &TargetsInFlight,
) -> Result<StreamEnd, Problem> {
    let mut end = StreamEnd::default();
    let mut buffer = BytesMut::new();
    loop {
        let piece = next_piece(&mut response, progress).await;
        let Some(piece) = piece.map_err(|error| broke_off(&server.unreachable(&error)))? else { break };
        buffer.extend_from_slice(&piece);
        while let Some(length) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(length + 1);
            let mut result: Map<String, Value> = serde_json::from_slice(&line).map_err(|_| not_ours())?;
            let Some(index) = result.get("index").and_then(Value::as_u64) else {
                let interrupted = result.get("interrupted").and_then(Value::as_str);
                return Ok(StreamEnd { interrupted: interrupted.map(str::to_owned), ..end });
            };
            let duplicate_of = result.get("duplicate_of").and_then(Value::as_u64);
            let (target, is_other_spelling) = in_flight.remove(index, duplicate_of).ok_or_else(not_ours)?;
            if is_other_spelling {
                result.insert(OTHER_SPELLING.to_owned(), true.into());
            }
            settle(&target, &result, results, progress, &mut end)?;
        }
        if buffer.len() > LONGEST_LINE {
            return Err(not_ours());
        }
        // Before waiting for more: a run that is killed then has lost no result that came.
        results.flush()?;
        progress.draw();
    }
    Err(broke_off(&"it ended too early"))
}

/// Returns the next piece of the answer. The progress line goes on while none comes.
async fn next_piece(
    response: &mut reqwest::Response,
    progress: &mut ProgressDisplay,
) -> Result<Option<Bytes>, reqwest::Error> {
    loop {
        match tokio::time::timeout(progress::PAUSE, response.chunk()).await {
            Ok(piece) => return piece,
            Err(_) => progress.draw(),
        }
    }
}

fn broke_off(why: &dyn std::fmt::Display) -> Problem {
    Problem::new(format_args!("the server's answer broke off: {why}; with --results, --resume goes on"))
}

fn settle(
    target: &str,
    result: &Map<String, Value>,
    results: &mut ResultsFile,
    progress: &mut ProgressDisplay,
    end: &mut StreamEnd,
) -> Result<(), Problem> {
    let text = |name| result.get(name).and_then(Value::as_str).unwrap_or_default();
    let status = text("status");
    progress.count(status);
    if !progress.is_good(status) && end.examples.len() < EXAMPLES {
        let told = format!("{target}: {status} {} {}", text("code"), text("message"));
        end.examples.push(terminal::printable(told.trim_end()));
    }
    results.write(target, result)
}

fn not_ours() -> Problem {
    Problem::new("the server's response is not one of Pushlet")
}
