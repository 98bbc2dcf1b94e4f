//! What a component printed, and what became of its calls: for its author, on the account of its tenant.
//!
//! A call runs on one thread to its end, so what is printed on that thread meanwhile was printed by that call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::error::ProviderError;

/// Bytes kept per tenant and component.
const CAPACITY: usize = 16 << 10;

/// Characters of the last words.
const WORDS: usize = 300;

/// Calls that are kept of those that failed or printed something, and of the others: the many that go well do not
/// drive out the few that do not.
const MOST_NOTABLE: usize = 50;
const MOST_OTHERS: usize = 20;
/// Bytes of what is kept of the texts of all calls, and of one text: its end.
const MOST_TEXT: usize = 48 << 10;
const LONGEST_TEXT: usize = 4 << 10;

thread_local! {
    /// What the call on this thread printed so far; None: there is none.
    static PRINTED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
    /// The id of the request that the calls on this thread are for.
    static REQUEST: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// One call of a component, as it went.
#[derive(Debug, Clone)]
pub struct CallRecord {
    pub at: SystemTime,
    /// The function, such as `encode`.
    pub call: &'static str,
    /// The id of the application that it was for.
    pub application: String,
    /// The id of the HTTP request that it was for, if it was for one.
    pub request: Option<Arc<str>>,
    pub took: Duration,
    /// The end of what it printed.
    pub printed: String,
    /// Why it failed: it trapped, took too long or too much, or its output breaks the contract.
    pub error: Option<String>,
}

#[derive(Default)]
struct CallRecords {
    notable: VecDeque<CallRecord>,
    /// Bytes of their texts.
    text: usize,
    others: VecDeque<CallRecord>,
}

/// Runs something whose calls are for an HTTP request.
pub(super) fn for_request<T>(request: Option<Arc<str>>, run: impl FnOnce() -> T) -> T {
    let before = REQUEST.replace(request);
    let result = run();
    REQUEST.set(before);
    result
}

/// A ring of bytes.
#[derive(Default)]
pub struct GuestLog {
    ring: Mutex<VecDeque<u8>>,
    /// The end of what was printed before the last failure, on one line.
    last_words: Mutex<String>,
    calls: Mutex<CallRecords>,
}

impl GuestLog {
    /// Returns the end of what was printed, as text.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.ring.lock().iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn append(&self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let mut ring = self.ring.lock();
        let excess = (ring.len() + bytes.len()).saturating_sub(CAPACITY);
        ring.drain(..excess);
        ring.extend(bytes);
    }

    /// Adds why a call failed, apart from what the guest printed in it.
    pub(super) fn failed(&self, explanation: &str) {
        let text = self.text();
        let words =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ");
        let beyond = words.chars().count().saturating_sub(WORDS);
        *self.last_words.lock() = words.chars().skip(beyond).collect();
        self.append(explanation.as_bytes());
    }

    /// Returns what was printed before the last failure, if anything was.
    pub fn last_words(&self) -> Option<String> {
        let words = self.last_words.lock();
        (!words.is_empty()).then(|| words.clone())
    }

    /// Returns the calls that are kept, the latest first.
    pub fn calls(&self) -> Vec<CallRecord> {
        let calls = self.calls.lock();
        let mut all: Vec<CallRecord> = calls.notable.iter().chain(&calls.others).cloned().collect();
        drop(calls);
        all.sort_by_key(|call| std::cmp::Reverse(call.at));
        all
    }

    /// Runs a call and records it; one that went well and printed nothing only if `all` is true. What is no fault of
    /// the component is not recorded.
    pub(super) fn record<T>(
        &self,
        (call, application): (&'static str, &str),
        all: bool,
        run: impl FnOnce() -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let before = PRINTED.replace(Some(Vec::new()));
        let start = Instant::now();
        let result = run();
        let printed = PRINTED.replace(before).unwrap_or_default();
        let error = result.as_ref().err();
        if error.is_some_and(|error| !error.is_components_fault())
            || (error.is_none() && printed.is_empty() && !all)
        {
            return result;
        }
        let took = start.elapsed();
        self.calls.lock().add(CallRecord {
            at: SystemTime::now() - took,
            call,
            application: application.to_owned(),
            request: REQUEST.with_borrow(Clone::clone),
            took,
            printed: end_of(&printed),
            error: error.map(|error| end_of(error.to_string().as_bytes())),
        });
        result
    }
}

impl CallRecord {
    fn text(&self) -> usize {
        self.application.len() + self.printed.len() + self.error.as_ref().map_or(0, String::len)
    }
}

impl CallRecords {
    fn add(&mut self, call: CallRecord) {
        if call.error.is_none() && call.printed.is_empty() {
            self.others.truncate(MOST_OTHERS - 1);
            return self.others.push_front(call);
        }
        self.text += call.text();
        self.notable.push_front(call);
        while self.notable.len() > MOST_NOTABLE || self.text > MOST_TEXT {
            self.text -= self.notable.pop_back().map_or(self.text, |oldest| oldest.text());
        }
    }
}

/// Returns the end of a text, as long as one may be that is kept.
fn end_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LONGEST_TEXT)..]).into_owned()
}

/// A guest's stdout and stderr. Always ready, never an error: printing cannot make a call fail.
#[derive(Clone)]
pub(super) struct GuestOutput(Arc<GuestLog>);

impl GuestOutput {
    pub(super) fn new(log: &Arc<GuestLog>) -> Self {
        Self(log.clone())
    }

    fn print(&self, bytes: &[u8]) {
        self.0.append(bytes);
        PRINTED.with_borrow_mut(|printed| {
            let Some(printed) = printed else { return };
            printed.extend_from_slice(&bytes[bytes.len().saturating_sub(LONGEST_TEXT)..]);
            // Not at each line: what is moved is as much as was printed.
            if printed.len() > 2 * LONGEST_TEXT {
                printed.drain(..printed.len() - LONGEST_TEXT);
            }
        });
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.print(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CAPACITY)
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.print(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_bytes() {
        let log = GuestLog::default();
        log.append(b"old");
        log.append(&vec![b'x'; CAPACITY - 1]);
        assert_eq!(log.text().len(), CAPACITY);
        assert!(log.text().starts_with("dx"));
        log.append(&vec![b'y'; 3 * CAPACITY]);
        assert_eq!(log.text(), "y".repeat(CAPACITY));
    }

    #[test]
    fn the_last_words_are_those_before_the_failure() {
        let log = GuestLog::default();
        log.append(b"one\n\n  two\n");
        assert_eq!(log.last_words(), None);
        log.failed("trap\n");
        assert_eq!(log.last_words().unwrap(), "one / two");
        assert_eq!(log.text(), "one\n\n  two\ntrap\n");
        log.append("é".repeat(WORDS).as_bytes());
        log.failed("trap\n");
        assert_eq!(log.last_words().unwrap(), "é".repeat(WORDS));
    }

    fn failed(log: &GuestLog, printed: &[u8]) {
        let output = GuestOutput(Arc::default());
        let _ = log.record::<()>(("encode", "app"), true, || {
            output.print(printed);
            Err(ProviderError::TimedOut)
        });
    }

    #[test]
    fn a_record_says_what_the_call_was_and_printed() {
        let log = Arc::<GuestLog>::default();
        let output = GuestOutput::new(&log);
        output.print(b"before");
        let request: Arc<str> = "one".into();
        let done = for_request(Some(request), || {
            log.record(("encode", "app"), false, || {
                output.print(b"a");
                output.print(b"b");
                Ok(7)
            })
        });
        assert!(matches!(done, Ok(7)));
        output.print(b"after");
        let calls = log.calls();
        let [call] = calls.as_slice() else { panic!("{calls:?}") };
        assert_eq!((call.call, call.application.as_str(), call.printed.as_str()), ("encode", "app", "ab"));
        assert_eq!((call.request.as_deref(), &call.error), (Some("one"), &None));
        assert_eq!(log.text(), "beforeabafter");
        failed(&log, b"c");
        let calls = log.calls();
        assert_eq!((calls[0].printed.as_str(), calls[0].request.as_deref()), ("c", None));
        assert!(calls[0].error.is_some());
    }

    #[test]
    fn what_went_well_in_silence_drives_nothing_out_and_is_not_asked_for_everywhere() {
        let log = GuestLog::default();
        failed(&log, b"");
        let fine = |all| log.record(("decode", "app"), all, || Ok(()));
        (0..10).for_each(|_| assert!(fine(false).is_ok()));
        assert_eq!(log.calls().len(), 1);
        (0..10 * MOST_OTHERS).for_each(|_| assert!(fine(true).is_ok()));
        assert_eq!(log.calls().len(), 1 + MOST_OTHERS);
        let quarantined = ProviderError::Quarantined { retry_after: Duration::ZERO };
        let _ = log.record::<()>(("encode", "app"), true, || Err(quarantined));
        assert_eq!(log.calls().len(), 1 + MOST_OTHERS);
    }

    #[test]
    fn number_and_texts_of_calls_are_bounded() {
        let log = GuestLog::default();
        (0..2 * MOST_NOTABLE).for_each(|_| failed(&log, b"x"));
        assert_eq!(log.calls().len(), MOST_NOTABLE);
        for _ in 0..MOST_NOTABLE {
            failed(&log, &[b"start".as_slice(), &[b'y'; 3 * LONGEST_TEXT], b"end"].concat());
        }
        let calls = log.calls();
        assert!(calls.iter().all(|call| call.printed.len() == LONGEST_TEXT && call.printed.ends_with("end")));
        let text: usize = calls.iter().map(CallRecord::text).sum();
        assert!(text <= MOST_TEXT && text > MOST_TEXT - 2 * LONGEST_TEXT, "{text}");
    }
}
