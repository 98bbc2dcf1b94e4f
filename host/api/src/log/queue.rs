//! Lines on their way to standard error.
//!
//! Not `tracing-appender`: its queue is bounded by lines, not by bytes, takes an allocation for each line, and a
//! write for each.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing_subscriber::fmt::MakeWriter;

use super::repeats::Repeats;
use pushlet_model::escape::escape_json;

/// Bytes of lines that wait; beyond that, as while nobody reads standard error, new lines are dropped.
const CAPACITY: usize = 1 << 20;
/// Room that is kept for the next lines: after a burst the rest is given back.
const KEPT: usize = 64 << 10;
/// After the first line the writer waits this long for more, to write them all at once.
const LINGER: Duration = Duration::from_millis(5);
/// How long an end waits for standard error.
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// How often lines that were left out are summed up.
const SUM_UP: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that this process dropped so far, since nobody read them in time.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    repeats: Arc<Repeats>,
    is_json: bool,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// Lines that were dropped, and of which no line of the log speaks yet.
    dropped: u64,
    /// The process ends: write what is there.
    ending: bool,
    /// Everything was written.
    ended: bool,
}

/// Writes what waits when it is dropped, for a second at most.
#[derive(Default)]
pub struct Flush(Option<Queue>);

impl Queue {
    pub fn new(repeats: Arc<Repeats>, is_json: bool) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), changed: Condvar::new(), repeats, is_json }))
    }

    /// Starts the thread that writes.
    pub fn write_to(self, output: impl Write + Send + 'static) -> Flush {
        let queue = self.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        match thread.spawn(move || queue.run(output)) {
            Ok(_) => Flush(Some(self)),
            Err(_) => Flush(None),
        }
    }

    /// Has the writer look whether there is something to sum up.
    pub fn wake(&self) {
        self.0.changed.notify_one();
    }

    fn add(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() + line.len() > CAPACITY {
            state.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.lines.is_empty();
        state.lines.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.wake();
        }
    }

    fn run(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        loop {
            let ending = self.wait();
            if !ending {
                thread::sleep(LINGER);
            }
            self.0.repeats.sum_up(ending);
            let dropped = {
                let mut state = self.state();
                std::mem::swap(&mut batch, &mut state.lines);
                std::mem::take(&mut state.dropped)
            };
            // Nobody could be told of a failure.
            let _ = output.write_all(&batch).and_then(|()| output.flush());
            batch.clear();
            batch.shrink_to(KEPT);
            if dropped > 0 {
                tracing::warn!(lines = dropped, "log lines were dropped, since standard error took no more");
            }
            let mut state = self.state();
            if state.ending && state.lines.is_empty() {
                state.ended = true;
                drop(state);
                self.0.changed.notify_all();
                return;
            }
        }
    }

    /// Until there is something to write. Does the process end?
    fn wait(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.ending || !state.lines.is_empty() {
                return state.ending;
            }
            if self.0.repeats.some_left_out() {
                let (after, waited) =
                    self.0.changed.wait_timeout(state, SUM_UP).unwrap_or_else(PoisonError::into_inner);
                state = after;
                if waited.timed_out() {
                    return state.ending;
                }
            } else {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// For tests: the lines that wait.
    #[cfg(test)]
    pub fn waiting(&self) -> String {
        String::from_utf8_lossy(&self.state().lines).into_owned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
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

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: self, left_out: None }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        let takes = self.0.repeats.takes(metadata);
        Line { queue: self, left_out: (!takes).then(|| metadata.callsite()) }
    }
}

/// Takes one line, whole.
pub(super) struct Line<'a> {
    queue: &'a Queue,
    /// There were too many of this kind.
    left_out: Option<Identifier>,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The serializer leaves some characters as they are that terminals take for commands; all of them are
        // beyond ASCII but one.
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
