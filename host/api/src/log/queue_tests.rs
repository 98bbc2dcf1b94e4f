#![allow(clippy::unwrap_used)]

use std::sync::mpsc;

use axum::http::{HeaderValue, Method, StatusCode};

use super::*;
use crate::log::line::REQUESTS;
use crate::log::repeats::MOST_PER_KIND;
use crate::log::{EventTime, RequestNotes, TextFields};

/// Takes nothing before it may.
struct Output {
    gate: mpsc::Receiver<()>,
    written: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Open for good once the test dropped its end.
        let _ = self.gate.recv();
        self.written.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start() -> (LineQueue, Flush, mpsc::Sender<()>, Arc<Mutex<Vec<Vec<u8>>>>) {
    let (open, gate) = mpsc::channel();
    let written = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let queue = LineQueue::new(Arc::default(), false);
    let flush = queue.clone().write_to(Output { gate, written: written.clone() });
    (queue, flush, open, written)
}

#[test]
fn lines_that_nobody_reads_are_dropped_and_counted_and_no_one_waits() {
    let (queue, flush, open, written) = start();
    let line = [b'a'; 999].into_iter().chain([b'\n']).collect::<Vec<u8>>();
    let before = dropped();
    // Ten times what fits, while standard error takes nothing at all.
    let count = 10 * CAPACITY / line.len();
    for _ in 0..count {
        assert_eq!(queue.make_writer().write(&line).unwrap(), line.len());
    }
    assert!(queue.state().lines.len() <= CAPACITY);
    drop(open);
    drop(flush);
    let written = written.lock().unwrap();
    let kept = written.iter().map(Vec::len).sum::<usize>() / line.len();
    assert!(kept > 0 && kept < count);
    assert!(dropped() - before >= (count - kept) as u64);
    assert!(written.len() <= 3, "{} writes for {kept} lines", written.len());
}

#[test]
fn an_end_writes_what_waits_and_does_not_wait_for_ever() {
    let (queue, flush, open, written) = start();
    queue.make_writer().write_all(b"first\n").unwrap();
    queue.make_writer().write_all(b"last\n").unwrap();
    drop(open);
    drop(flush);
    assert_eq!(written.lock().unwrap().concat(), b"first\nlast\n");

    let (queue, flush, _open, written) = start();
    queue.make_writer().write_all(b"never\n").unwrap();
    drop(flush);
    assert!(written.lock().unwrap().is_empty());
}

#[test]
fn json_keeps_no_character_that_steers_a_terminal() {
    let queue = LineQueue::new(Arc::default(), true);
    queue.make_writer().write_all("{\"a\":\"\u{9b}2J\u{7f}ü\u{202e}\"}\n".as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8(queue.state().lines.clone()).unwrap(),
        "{\"a\":\"\\u009b2J\\u007fü\\u202e\"}\n"
    );
}

fn waiting(queue: &LineQueue) -> String {
    String::from_utf8_lossy(&queue.state().lines).into_owned()
}

#[test]
fn repeats_are_counted_and_summed_up() {
    let repeats = Arc::<Repeats>::default();
    let queue = LineQueue::new(repeats.clone(), false);
    let lines = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(queue.clone());
    tracing::subscriber::with_default(lines.finish(), || {
        for number in 0..1_000 {
            tracing::warn!(number, "outcome unknown");
            tracing::info!(target: REQUESTS, "request");
        }
        tracing::warn!("another kind");
        repeats.sum_up(false);
        assert!(!waiting(&queue).contains("left out"), "the window is not over");
        repeats.sum_up(true);
    });
    let text = waiting(&queue);
    assert_eq!(text.matches("outcome unknown number=").count(), MOST_PER_KIND as usize + 1, "{text}");
    assert_eq!(text.matches("request\n").count(), 1_000);
    assert_eq!(text.matches("another kind").count(), 1);
    let sum = text.lines().last().unwrap_or_default();
    assert!(sum.contains("count=990") && sum.contains("outcome unknown number=10"), "{sum}");
    assert!(!repeats.some_left_out());
}

fn request(path: &str) -> RequestLine {
    RequestLine {
        method: Method::POST,
        path: path.to_owned(),
        id: HeaderValue::from_static("r-1"),
        peer: None,
        trace: None,
        ms: 7,
        is_routine: false,
        notes: RequestNotes { status: Some(StatusCode::OK), ..RequestNotes::default() },
    }
}

#[test]
fn requests_become_text_later_in_their_order_with_the_time_of_their_end() {
    let queue = LineQueue::new(Arc::default(), false);
    let lines = tracing_subscriber::fmt().with_ansi(false).with_target(false).with_timer(EventTime);
    let subscriber = lines.fmt_fields(TextFields).with_writer(queue.clone()).finish();
    let mut batch = Vec::new();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("before");
        queue.add_request(request("/one"));
        queue.add_request(request("/two"));
        tracing::info!("after");
        let mut waits = mem::take(&mut *queue.state());
        assert_eq!((waits.requests.len(), waits.lines.split(|byte| *byte == b'\n').count()), (2, 3));
        for (number, request) in waits.requests.iter_mut().enumerate() {
            request.ended = SystemTime::UNIX_EPOCH + Duration::from_micros(number as u64);
        }
        append(&waits.lines, &mut waits.requests, &mut batch);
        assert!(queue.state().is_empty() && waits.requests.is_empty());
    });
    let text = String::from_utf8(batch).unwrap();
    let [before, one, two, after] = &text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(before.ends_with(" INFO before") && after.ends_with(" INFO after"), "{text}");
    let fields = "ms=7 request_id=\"r-1\"";
    assert_eq!(
        *one,
        format!(
            "1970-01-01T00:00:00.000000Z  INFO request method=\"POST\" path=\"/one\" status=200 {fields}"
        )
    );
    assert_eq!(
        *two,
        format!(
            "1970-01-01T00:00:00.000001Z  INFO request method=\"POST\" path=\"/two\" status=200 {fields}"
        )
    );
}

#[test]
fn requests_that_wait_are_bounded_too() {
    let queue = LineQueue::new(Arc::default(), false);
    let before = dropped();
    let fit = CAPACITY / REQUEST;
    for _ in 0..fit + 10 {
        queue.add_request(request("/one"));
    }
    queue.make_writer().write_all(b"a line\n").unwrap();
    let state = queue.state();
    assert_eq!((state.requests.len(), state.dropped, state.lines.len()), (fit, 11, 0));
    assert!(dropped() - before >= 11);
}

#[test]
fn settling_waits_for_the_text_of_requests_and_not_for_standard_error() {
    let (queue, flush, _open, written) = start();
    queue.add_request(request("/one"));
    flush.settle();
    let state = queue.state();
    assert_eq!((state.requests.len(), state.unformatted), (0, 0));
    assert!(written.lock().unwrap().is_empty());
}
