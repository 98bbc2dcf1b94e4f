//! A passive observer of the HTTP/2 frames on a connection (RFC 9113, section 4.1).
//!
//! The h2 crate tells neither whether a request was written nor what a GOAWAY said. Both decide whether a
//! request may be sent again, so they are read off the wire here.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::error::FailureCause;
use crate::frames::{DATA, END_STREAM, FrameScanner, GOAWAY, HEADERS, HeaderCounts, RST_STREAM, WireFrame};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

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
    written: HashMap<u32, bool>,
    goaway: Option<GoAway>,
    tls_error: Option<rustls::Error>,
}

impl ConnectionRecord {
    pub fn new() -> Self {
        let (heard, news, seen) = Default::default();
        ConnectionRecord { started: Instant::now(), heard, news, seen }
    }

    /// Whether the whole request was handed to the socket.
    pub fn is_written(&self, stream: u32) -> bool {
        self.seen().written.get(&stream).copied().unwrap_or(false)
    }

    /// The stream has ended: nothing of it need be remembered.
    pub fn forget(&self, stream: u32) {
        self.seen().written.remove(&stream);
    }

    pub fn goaway(&self) -> Option<GoAway> {
        self.seen().goaway.clone()
    }

    /// Whether a GOAWAY came since the last call.
    pub fn goaway_came(&self) -> bool {
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::Relaxed)
    }

    /// Why TLS failed, if it did.
    pub fn tls_error(&self) -> Option<rustls::Error> {
        self.seen().tls_error.clone()
    }

    /// When the peer was last heard of; when the connection was opened if never.
    pub fn heard_at(&self) -> Instant {
        self.started + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    pub fn heard_anything(&self) -> bool {
        self.heard.load(Ordering::Relaxed) != 0
    }

    fn hear(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(elapsed.max(1), Ordering::Relaxed);
    }

    fn seen(&self) -> MutexGuard<'_, PeerSignals> {
        self.seen.lock()
    }

    fn frame_sent(&self, frame: &WireFrame) {
        match frame.kind {
            HEADERS => {
                self.seen().written.insert(frame.stream, frame.flags & END_STREAM != 0);
            }
            DATA if frame.flags & END_STREAM != 0 => {
                if let Some(written) = self.seen().written.get_mut(&frame.stream) {
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
        self.seen().goaway = Some(goaway);
        self.news.store(true, Ordering::Relaxed);
    }
}

/// A stream that keeps a [`ConnectionRecord`] of the frames that pass.
pub struct ObservedStream<S> {
    inner: S,
    record: Arc<ConnectionRecord>,
    sent: FrameScanner,
    received: FrameScanner,
    heads: HeaderCounts,
}

impl<S> ObservedStream<S> {
    pub fn new(inner: S, record: Arc<ConnectionRecord>) -> Self {
        let (sent, received) = (FrameScanner::new(PREFACE, false), FrameScanner::new(0, true));
        ObservedStream { inner, record, sent, received, heads: HeaderCounts::default() }
    }

    fn wrote(&mut self, bytes: &[u8]) {
        self.sent.scan(bytes, |frame| self.record.frame_sent(frame));
    }

    fn note(&self, error: &io::Error) {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            self.record.seen().tls_error = Some(tls.clone());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if let Err(error) = ready!(Pin::new(&mut this.inner).poll_read(cx, buf)) {
            this.note(&error);
            return Poll::Ready(Err(error));
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            this.record.hear();
            let mut allowed = true;
            this.received.scan(new, |frame| {
                this.record.frame_received(frame);
                allowed &= this.heads.received(frame);
            });
            if !allowed {
                return Poll::Ready(Err(io::Error::other("too many informational answers")));
            }
        }
        Poll::Ready(Ok(()))
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frames::{KEPT, take};

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Feeds both directions in pieces of the given sizes.
    fn observe(sent: &[u8], received: &[u8], sizes: &[usize]) -> Arc<ConnectionRecord> {
        let record = Arc::new(ConnectionRecord::new());
        let mut observed = ObservedStream::new((), record.clone());
        let mut sizes = sizes.iter().copied().cycle();
        let (mut sent, mut received) = (sent, received);
        while !sent.is_empty() {
            observed.wrote(take(&mut sent, sizes.next().unwrap()));
        }
        while !received.is_empty() {
            let piece = take(&mut received, sizes.next().unwrap());
            observed.received.scan(piece, |frame| observed.record.frame_received(frame));
        }
        record
    }

    fn goaway(last: u32, code: u32, debug: &[u8]) -> Vec<u8> {
        frame(GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &code.to_be_bytes(), debug].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn pieces_of_any_size_give_the_same_record(sizes in proptest::collection::vec(1usize..40, 1..8)) {
            let sent = [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                frame(4, 0, 0, &[0; 12]),
                frame(HEADERS, 4, 1, &[0; 20]),
                frame(HEADERS, 4 | END_STREAM, 3, &[0; 20]),
                frame(DATA, 0, 1, &[0; 33]),
                frame(HEADERS, 4, 5, &[0; 20]),
                frame(DATA, END_STREAM, 1, &[]),
                frame(HEADERS, 4 | END_STREAM, 7, &[0; 20]),
                frame(RST_STREAM, 0, 7, &[0; 4]),
            ].concat();
            let received = [frame(4, 0, 0, &[0; 6]), goaway(3, 2, b"why"), frame(DATA, 0, 1, &[7; 50])].concat();
            let record = observe(&sent, &received, &sizes);
            let written = [1, 3, 5, 7, 9].map(|stream| record.is_written(stream));
            prop_assert_eq!(written, [true, true, false, false, false]);
            let expected = GoAway { last_stream_id: 3, code: 2, debug: b"why".to_vec() };
            prop_assert_eq!(record.goaway(), Some(expected));
        }

        #[test]
        fn hostile_bytes_do_no_harm(received in proptest::collection::vec(any::<u8>(), 0..2000)) {
            observe(&[], &received, &[1, 100, 7]);
        }
    }

    #[test]
    fn a_frame_counts_when_its_last_byte_has_left() {
        let record = Arc::new(ConnectionRecord::new());
        let mut observed = ObservedStream::new((), record.clone());
        observed.wrote(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        observed.wrote(&frame(HEADERS, 4, 1, &[0; 20]));
        let data = frame(DATA, END_STREAM, 1, &[0; 10]);
        let (most, last) = data.split_at(data.len() - 1);
        observed.wrote(most);
        assert!(!record.is_written(1));
        observed.wrote(last);
        assert!(record.is_written(1));
        record.forget(1);
        assert!(!record.is_written(1));
    }

    #[test]
    fn nothing_is_kept_of_streams_that_have_ended() {
        let record = Arc::new(ConnectionRecord::new());
        let mut observed = ObservedStream::new((), record.clone());
        observed.wrote(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        observed.wrote(&frame(HEADERS, 4, 1, &[]));
        record.forget(1);
        observed.wrote(&frame(DATA, END_STREAM, 1, &[]));
        observed.wrote(&frame(HEADERS, 4, 3, &[]));
        observed.wrote(&frame(RST_STREAM, 0, 3, &[0; 4]));
        assert!(record.seen().written.is_empty());
    }

    #[test]
    fn the_debug_data_is_bounded_and_its_reason_is_read() {
        let record = observe(&[], &goaway(1, 0, &[b'x'; 100_000]), &[1000]);
        assert_eq!(record.goaway().unwrap().debug.len(), KEPT - 8);
        let reason = |debug: &[u8]| match observe(&[], &goaway(1, 0, debug), &[3]).goaway().unwrap().cause() {
            FailureCause::GoAway { reason, .. } => reason,
            _ => None,
        };
        assert_eq!(reason(br#"{"reason":"Shutdown","timestamp":1}"#).as_deref(), Some("Shutdown"));
        assert_eq!(reason(b"max_age").as_deref(), Some("max_age"));
        assert_eq!(reason(b""), None);
    }
}
