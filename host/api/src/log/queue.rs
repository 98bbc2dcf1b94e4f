//! The queue of log lines on their way to standard error.
//!
//! Lines of requests wait as what they say, and become text on the writer's thread.
//!
//! Not `tracing-appender`: its queue is bounded by lines, not by bytes, takes an allocation for each line, and a
//! write for each.

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing_subscriber::fmt::MakeWriter;

use super::line::RequestLine;
use super::repeats::Repeats;
use pushlet_model::text::escape_json;

/// Bytes of lines that wait. Beyond that, such as while standard error is not read, new lines are dropped.
const CAPACITY: usize = 1 << 20;
/// Bytes that a request's line counts for while it waits.
const REQUEST: usize = 512;
/// Capacity that is kept for the next lines: after a burst the rest is freed.
const KEPT: usize = 64 << 10;
/// How long the writer waits for more lines after the first one, to write them all at once.
const LINGER: Duration = Duration::from_millis(5);
/// How long [`Flush`] waits for standard error.
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// How often lines that were left out are summed up.
const SUM_UP_INTERVAL: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);
/// The queue of this process, once its writer runs.
static QUEUE: OnceLock<LineQueue> = OnceLock::new();

thread_local! {
    /// While a request's line becomes text: when the request ended, and the text.
    static FORMATTED: RefCell<Option<(SystemTime, Vec<u8>)>> = const { RefCell::new(None) };
}

/// Returns how many lines this process dropped so far because standard error was too slow.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct LineQueue(Arc<QueueInner>);

struct QueueInner {
    state: Mutex<QueueState>,
    changed: Condvar,
    repeats: Arc<Repeats>,
    is_json: bool,
}

#[derive(Default)]
struct QueueState {
    lines: Vec<u8>,
    requests: Vec<WaitingRequest>,
    /// Requests whose lines the writer has taken but not formatted yet.
    unformatted: usize,
    /// Lines that were dropped since the last line that says so.
    dropped: u64,
    /// The process ends: the writer writes what is left and ends too.
    ending: bool,
    /// The writer has ended.
    ended: bool,
}

/// A request's line that is no text yet.
struct WaitingRequest {
    line: RequestLine,
    ended: SystemTime,
    /// How many bytes of `lines` come before it.
    after: usize,
}

/// Logs a request: with the time of now, and later.
pub fn write(line: RequestLine) {
    if !line.is_wanted() {
        return;
    }
    match QUEUE.get() {
        Some(queue) => queue.add_request(line),
        // The log of another program, or a test's.
        None => line.write(),
    }
}

/// Returns the time of the event that is being logged.
pub fn event_time() -> SystemTime {
    FORMATTED
        .with_borrow(|formatted| formatted.as_ref().map(|(ended, _)| *ended))
        .unwrap_or_else(SystemTime::now)
}

/// When dropped, waits until the queue is written, for a second at most.
#[derive(Default)]
pub struct Flush(Option<LineQueue>);

impl LineQueue {
    pub fn new(repeats: Arc<Repeats>, is_json: bool) -> Self {
        Self(Arc::new(QueueInner { state: Mutex::default(), changed: Condvar::new(), repeats, is_json }))
    }

    /// Starts the writer's thread.
    pub fn write_to(self, output: impl Write + Send + 'static) -> Flush {
        let queue = self.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        match thread.spawn(move || queue.run(output)) {
            Ok(_) => Flush(Some(self)),
            Err(_) => Flush(None),
        }
    }

    /// Takes the lines of this process' requests from now on.
    pub fn take_requests(self) {
        // There is one log in a process.
        let _ = QUEUE.set(self);
    }

    fn wake(&self) {
        // Others than the writer may wait too.
        self.0.changed.notify_all();
    }

    fn add(&self, line: &[u8]) {
        let formatted = |formatted: &mut Option<(SystemTime, Vec<u8>)>| {
            formatted.as_mut().map(|(_, text)| text.extend_from_slice(line))
        };
        if FORMATTED.with_borrow_mut(formatted).is_some() {
            return;
        }
        self.add_to(line.len(), |state| state.lines.extend_from_slice(line));
    }

    fn add_request(&self, line: RequestLine) {
        let ended = SystemTime::now();
        self.add_to(REQUEST, |state| {
            let after = state.lines.len();
            state.requests.push(WaitingRequest { line, ended, after });
        });
    }

    /// Adds a line that counts for so many bytes, if there is room for it.
    fn add_to(&self, bytes: usize, add: impl FnOnce(&mut QueueState)) {
        let mut state = self.state();
        if state.bytes() + bytes > CAPACITY {
            state.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.is_empty();
        add(&mut state);
        drop(state);
        if was_empty {
            self.wake();
        }
    }

    fn run(&self, mut output: impl Write) {
        let (mut lines, mut requests, mut batch) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let ending = self.wait();
            if !ending {
                thread::sleep(LINGER);
            }
            self.0.repeats.sum_up(ending);
            let dropped = {
                let mut state = self.state();
                mem::swap(&mut lines, &mut state.lines);
                mem::swap(&mut requests, &mut state.requests);
                state.unformatted = requests.len();
                mem::take(&mut state.dropped)
            };
            append(&lines, &mut requests, &mut batch);
            self.state().unformatted = 0;
            self.0.changed.notify_all();
            // There is no other place where a failure could be reported.
            let _ = output.write_all(&batch).and_then(|()| output.flush());
            for buffer in [&mut lines, &mut batch] {
                buffer.clear();
                buffer.shrink_to(KEPT);
            }
            requests.shrink_to(KEPT / REQUEST);
            if dropped > 0 {
                tracing::warn!(lines = dropped, "log lines were dropped, since standard error took no more");
            }
            let mut state = self.state();
            if state.ending && state.is_empty() {
                state.ended = true;
                drop(state);
                self.0.changed.notify_all();
                return;
            }
        }
    }

    /// Waits until there is something to write. Returns whether the process ends.
    fn wait(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.ending || !state.is_empty() {
                return state.ending;
            }
            if self.0.repeats.some_left_out() {
                let (after, waited) = self
                    .0
                    .changed
                    .wait_timeout(state, SUM_UP_INTERVAL)
                    .unwrap_or_else(PoisonError::into_inner);
                state = after;
                if waited.timed_out() {
                    return state.ending;
                }
            } else {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    fn bytes(&self) -> usize {
        self.lines.len() + self.requests.len() * REQUEST
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.requests.is_empty()
    }
}

/// Appends to `batch` what waited, in its order.
fn append(lines: &[u8], requests: &mut Vec<WaitingRequest>, batch: &mut Vec<u8>) {
    let mut written = 0;
    for WaitingRequest { line, ended, after } in requests.drain(..) {
        batch.extend_from_slice(&lines[written..after]);
        written = after;
        FORMATTED.set(Some((ended, mem::take(batch))));
        line.write();
        *batch = FORMATTED.take().map(|(_, text)| text).unwrap_or_default();
    }
    batch.extend_from_slice(&lines[written..]);
}

impl Flush {
    /// Waits until all lines of requests are text, for a second at most.
    pub fn settle(&self) {
        let Some(queue) = &self.0 else { return };
        let is_open = |state: &mut QueueState| !state.requests.is_empty() || state.unformatted > 0;
        let _ = queue.0.changed.wait_timeout_while(queue.state(), FLUSH_TIME, is_open);
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let Some(queue) = self.0.take() else { return };
        let mut state = queue.state();
        state.ending = true;
        queue.0.changed.notify_all();
        let _ = queue.0.changed.wait_timeout_while(state, FLUSH_TIME, |state| !state.ended);
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { queue: self, left_out: None }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineWriter<'a> {
        let takes = self.0.repeats.takes(metadata);
        LineWriter { queue: self, left_out: (!takes).then(|| metadata.callsite()) }
    }
}

/// Takes one line; the formatter writes it in one piece.
pub(super) struct LineWriter<'a> {
    queue: &'a LineQueue,
    /// The kind of the line, if there were too many of it.
    left_out: Option<Identifier>,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The JSON serializer does not escape all characters that terminals take for commands. All of these are beyond
        // ASCII, except DEL.
        let plain = |byte: &u8| byte.is_ascii() && *byte != 0x7f;
        let Self { queue, left_out } = self;
        match (std::str::from_utf8(line), left_out) {
            (Ok(text), Some(kind)) => {
                if queue.0.repeats.leave_out(kind, text) {
                    queue.wake();
                }
            }
            (Ok(text), None) if queue.0.is_json && !line.iter().all(plain) => {
                queue.add(escape_json(text).as_bytes());
            }
            _ => queue.add(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
