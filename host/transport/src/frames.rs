//! The HTTP/2 frames on a connection (RFC 9113, section 4.1), read by a passive observer.
//!
//! The h2 crate tells neither whether a request was written nor what a GOAWAY said. Both decide whether a
//! request may be sent again, so they are read off the wire here.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::FailureCause;

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const RST_STREAM: u8 = 0x3;
pub const GOAWAY: u8 = 0x7;
pub const END_STREAM: u8 = 0x1;

/// A GOAWAY's fixed part, and as much of its debug data as is kept.
pub const KEPT: usize = 8 + 1024;
pub const FRAME_HEADER: usize = 9;
/// Informational answers (1xx) before the answer itself.
pub const MOST_INFORMATIONAL: u8 = 8;
/// Streams whose answers are counted. They are those whose head has come and whose body has not.
const MOST_STREAMS: usize = 10_000;

/// One frame that has passed whole. `payload` is kept only where it is needed.
pub struct WireFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Splits a byte stream into frames, one direction.
pub struct FrameScanner {
    /// Bytes of the current frame's payload that are still to come.
    left: usize,
    /// Bytes before the first frame that are still to come: the client preface.
    preface: usize,
    /// Whether the payload of GOAWAY is kept.
    keep: bool,
    header: Vec<u8>,
    frame: Option<WireFrame>,
}

impl FrameScanner {
    pub fn new(preface: usize, keep: bool) -> Self {
        FrameScanner { left: 0, preface, keep, header: Vec::with_capacity(FRAME_HEADER), frame: None }
    }

    pub fn scan(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(&WireFrame)) {
        let skipped = take(&mut bytes, self.preface);
        self.preface -= skipped.len();
        while !bytes.is_empty() {
            match &mut self.frame {
                None => self.header.extend_from_slice(take(&mut bytes, FRAME_HEADER - self.header.len())),
                Some(frame) => {
                    let payload = take(&mut bytes, self.left);
                    self.left -= payload.len();
                    if self.keep && frame.kind == GOAWAY {
                        let room = KEPT - frame.payload.len();
                        frame.payload.extend_from_slice(payload.get(..room).unwrap_or(payload));
                    }
                }
            }
            self.start_frame();
            if self.left == 0
                && let Some(frame) = self.frame.take()
            {
                on_frame(&frame);
            }
        }
    }

    /// Reads the header once it is complete.
    fn start_frame(&mut self) {
        let Ok(header) = <[u8; FRAME_HEADER]>::try_from(self.header.as_slice()) else { return };
        self.header.clear();
        let (length, kind, flags, stream) = parse_header(header);
        self.left = length;
        self.frame = Some(WireFrame { kind, flags, stream, payload: Vec::new() });
    }
}

/// Returns the length, kind, flags and stream that a frame's header says (RFC 9113, section 4.1).
pub fn parse_header([a, b, c, kind, flags, s, t, u, v]: [u8; FRAME_HEADER]) -> (usize, u8, u8, u32) {
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    (length, kind, flags, u32::from_be_bytes([s & 0x7f, t, u, v]))
}

/// Cuts at most `count` bytes off the front.
pub fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    taken
}

/// Counts the answers to each request that are not its last. They cost the peer a few bytes each and us as much as an
/// answer, and there is no end of them unless one is set.
#[derive(Default)]
pub struct HeaderCounts(BTreeMap<u32, u8>);

impl HeaderCounts {
    /// False: there were too many on this frame's stream.
    pub fn received(&mut self, frame: &WireFrame) -> bool {
        let ends = frame.flags & END_STREAM != 0;
        match frame.kind {
            HEADERS if !ends => {
                // The peer chooses the numbers of streams: beyond the bound, counting starts again.
                if self.0.len() >= MOST_STREAMS {
                    self.0.clear();
                }
                let heads = self.0.entry(frame.stream).or_insert(0);
                *heads += 1;
                // One of them may be the answer itself.
                *heads <= MOST_INFORMATIONAL + 1
            }
            HEADERS | DATA | RST_STREAM => {
                self.0.remove(&frame.stream);
                true
            }
            _ => true,
        }
    }
}

pub const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// The content of a GOAWAY frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoAway {
    pub last_stream_id: u32,
    pub code: u32,
    pub debug: Vec<u8>,
}

impl GoAway {
    pub fn cause(&self) -> FailureCause {
        #[derive(serde::Deserialize)]
        struct GoAwayDebug {
            reason: String,
        }
        let reason = match serde_json::from_slice(&self.debug) {
            Ok(GoAwayDebug { reason }) => Some(reason),
            Err(_) => Some(String::from_utf8_lossy(&self.debug).into_owned()).filter(|text| !text.is_empty()),
        };
        FailureCause::GoAway { code: self.code, reason }
    }
}

/// The frames seen so far on one connection.
pub struct ConnectionRecord {
    started: Instant,
    /// Milliseconds after `started`, of the last byte that came in. 0 while none came.
    heard: AtomicU64,
    /// A GOAWAY came that was not reported yet.
    news: AtomicBool,
    seen: Mutex<PeerSignals>,
}

#[derive(Default)]
struct PeerSignals {
    /// Streams whose HEADERS left, and whether their END_STREAM left too.
    written: BTreeMap<u32, bool>,
    goaway: Option<GoAway>,
    tls_error: Option<rustls::Error>,
}

impl ConnectionRecord {
    pub fn new() -> Self {
        let (heard, news, seen) = Default::default();
        ConnectionRecord { started: Instant::now(), heard, news, seen }
    }

    /// Returns true if the whole request was handed to the socket.
    pub fn is_written(&self, stream: u32) -> bool {
        self.seen.lock().written.get(&stream).copied().unwrap_or(false)
    }

    /// Forgets a stream that has ended.
    pub fn forget(&self, stream: u32) {
        self.seen.lock().written.remove(&stream);
    }

    pub fn goaway(&self) -> Option<GoAway> {
        self.seen.lock().goaway.clone()
    }

    /// Returns true if a GOAWAY came since the last call.
    pub fn goaway_came(&self) -> bool {
        // Nearly always false, and a load costs less than a swap.
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::Relaxed)
    }

    /// Returns why TLS failed, if it did.
    pub fn tls_error(&self) -> Option<rustls::Error> {
        self.seen.lock().tls_error.clone()
    }

    /// Returns when the peer was last heard of; when the connection was opened if never.
    pub fn heard_at(&self) -> Instant {
        self.started + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    pub fn heard_anything(&self) -> bool {
        self.heard.load(Ordering::Relaxed) != 0
    }

    fn failed(&self, error: &io::Error) {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            self.seen.lock().tls_error = Some(tls.clone());
        }
    }

    fn hear(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(elapsed.max(1), Ordering::Relaxed);
    }

    fn frame_sent(&self, frame: &WireFrame) {
        match frame.kind {
            HEADERS => {
                self.seen.lock().written.insert(frame.stream, frame.flags & END_STREAM != 0);
            }
            DATA if frame.flags & END_STREAM != 0 => {
                if let Some(written) = self.seen.lock().written.get_mut(&frame.stream) {
                    *written = true;
                }
            }
            RST_STREAM => self.forget(frame.stream),
            _ => {}
        }
    }

    fn frame_received(&self, frame: &WireFrame) {
        if frame.kind != GOAWAY {
            return;
        }
        let Some((fixed, debug)) = frame.payload.split_first_chunk::<8>() else { return };
        let [a, b, c, d, e, f, g, h] = *fixed;
        let last_stream_id = u32::from_be_bytes([a & 0x7f, b, c, d]);
        let goaway = GoAway { last_stream_id, code: u32::from_be_bytes([e, f, g, h]), debug: debug.to_vec() };
        self.seen.lock().goaway = Some(goaway);
        self.news.store(true, Ordering::Relaxed);
    }
}

/// A stream that keeps a [`ConnectionRecord`] of the frames that pass.
pub struct ObservedStream<S> {
    inner: S,
    /// None: the protocol is not HTTP/2.
    received: Option<Box<(FrameScanner, HeaderCounts)>>,
    /// None: nothing is recorded.
    sent: Option<(FrameScanner, Arc<ConnectionRecord>)>,
}

impl<S> ObservedStream<S> {
    /// Records both directions.
    pub fn new(inner: S, record: Arc<ConnectionRecord>) -> Self {
        let received = Box::new((FrameScanner::new(0, true), HeaderCounts::default()));
        ObservedStream {
            inner,
            received: Some(received),
            sent: Some((FrameScanner::new(PREFACE, false), record)),
        }
    }

    /// Records nothing, and bounds informational answers if the protocol is HTTP/2.
    pub fn counting(inner: S, is_http2: bool) -> Self {
        let received = is_http2.then(|| Box::new((FrameScanner::new(0, false), HeaderCounts::default())));
        ObservedStream { inner, received, sent: None }
    }

    pub fn is_http2(&self) -> bool {
        self.received.is_some()
    }

    fn wrote(&mut self, bytes: &[u8]) {
        if let Some((scanner, record)) = &mut self.sent {
            scanner.scan(bytes, |frame| record.frame_sent(frame));
        }
    }

    /// Returns false if the peer sends too many informational answers.
    fn heard(&mut self, bytes: &[u8]) -> bool {
        let record = self.sent.as_ref().map(|(_, record)| record);
        record.iter().filter(|_| !bytes.is_empty()).for_each(|record| record.hear());
        let mut allowed = true;
        if let Some((scanner, heads)) = self.received.as_deref_mut() {
            scanner.scan(bytes, |frame| {
                record.iter().for_each(|record| record.frame_received(frame));
                allowed &= heads.received(frame);
            });
        }
        allowed
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        if let (Err(error), Some((_, record))) = (&result, &self.sent) {
            record.failed(error);
        }
        if result.is_ok() && !self.heard(buf.filled().get(before..).unwrap_or_default()) {
            return Poll::Ready(Err(io::Error::other("too many informational answers")));
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ObservedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.inner).poll_write(cx, buf));
        // After a failure some of it may have left.
        let written = result.as_ref().map_or(buf.len(), |written| *written);
        self.wrote(buf.get(..written).unwrap_or(buf));
        Poll::Ready(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs));
        let mut left = result.as_ref().map_or(usize::MAX, |written| *written);
        for buf in bufs {
            let taken = buf.get(..left).unwrap_or(buf);
            self.wrote(taken);
            left -= taken.len();
        }
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "frames_tests.rs"]
mod tests;
