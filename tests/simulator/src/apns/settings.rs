//! The number of streams that a connection announces, changed while it runs.
//!
//! Apple lets a connection with a provider token open one stream until a request with a valid token was
//! answered. h2 sends `SETTINGS_MAX_CONCURRENT_STREAMS` once, in its first frame; so this sits between h2 and
//! TLS and rewrites SETTINGS frames on their way out: in the first one it sets the value, and a later one
//! (h2 sends it for `set_initial_window_size`, here always with the value that is in force) becomes a new
//! announcement of the same length. h2 sees every acknowledgement that it waits for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const FRAME_HEAD: usize = 9;
const SETTING: usize = 6;
/// RFC 9113 section 6.
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
/// RFC 9113 section 6.5.2.
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// The client's first bytes (RFC 9113 section 3.4).
const PREFACE: usize = 24;
const MAX_WRITE: usize = 32 * 1024;

/// What is announced, and whether the client knows it.
pub(super) struct StreamLimit {
    announced: AtomicU32,
    acknowledged: AtomicBool,
    before: AtomicU32,
}

impl StreamLimit {
    pub fn new(streams: u32) -> Arc<StreamLimit> {
        Arc::new(StreamLimit {
            announced: AtomicU32::new(streams),
            acknowledged: AtomicBool::new(false),
            before: AtomicU32::new(0),
        })
    }

    /// The value of the next SETTINGS frame.
    pub fn announce(&self, streams: u32) {
        self.announced.store(streams, Ordering::Release);
    }

    /// Whether the client had acknowledged the first limit when it opened its `nth` stream (from 1).
    pub fn was_known_at(&self, nth: u32) -> bool {
        self.acknowledged.load(Ordering::Acquire) && nth > self.before.load(Ordering::Acquire)
    }
}

/// A connection whose SETTINGS frames say what `limit` says.
pub(super) struct Announcing<S> {
    inner: S,
    limit: Arc<StreamLimit>,
    outgoing: Outgoing,
    incoming: Incoming,
}

impl<S> Announcing<S> {
    pub fn new(inner: S, limit: Arc<StreamLimit>) -> Self {
        Announcing { inner, limit, outgoing: Outgoing::default(), incoming: Incoming::default() }
    }
}

impl<S: AsyncWrite + Unpin> Announcing<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outgoing.ready.get(self.outgoing.sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.sent += written;
        }
        self.outgoing.ready.clear();
        self.outgoing.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Announcing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        let taken = buf.get(..MAX_WRITE).unwrap_or(buf);
        let streams = self.limit.announced.load(Ordering::Acquire);
        self.outgoing.push(taken, streams);
        // What cannot be written now is written first by the next call, or by the flush.
        if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Announcing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let this = &mut *self;
        if let Some(read) = buf.filled().get(before..) {
            this.incoming.scan(read, &this.limit);
        }
        Poll::Ready(Ok(()))
    }
}

/// Outgoing bytes: whole frames pass through, SETTINGS are rewritten.
#[derive(Default)]
struct Outgoing {
    ready: Vec<u8>,
    sent: usize,
    /// The frame head, and for SETTINGS the payload, collected so far.
    held: Vec<u8>,
    /// Bytes of the current payload that are still to pass.
    passing: usize,
    first_done: bool,
}

impl Outgoing {
    fn push(&mut self, mut bytes: &[u8], streams: u32) {
        while let Some((&byte, _)) = bytes.split_first() {
            if self.passing > 0 {
                let (now, rest) = bytes.split_at(self.passing.min(bytes.len()));
                self.ready.extend_from_slice(now);
                self.passing -= now.len();
                bytes = rest;
                continue;
            }
            self.held.push(byte);
            bytes = bytes.get(1..).unwrap_or_default();
            self.settle(streams);
        }
    }

    /// Lets the held frame go once enough of it is there.
    fn settle(&mut self, streams: u32) {
        let Some(head) = Head::of(&self.held) else { return };
        let rewritten = head.kind == SETTINGS && head.flags & ACK == 0;
        if rewritten && self.held.len() < FRAME_HEAD + head.length {
            return;
        }
        if rewritten {
            let wanted = if self.first_done { INITIAL_WINDOW_SIZE } else { MAX_CONCURRENT_STREAMS };
            rewrite(&mut self.held, wanted, streams);
            self.first_done = true;
        } else {
            self.passing = head.length;
        }
        self.ready.append(&mut self.held);
    }
}

/// Turns the entry `wanted` into MAX_CONCURRENT_STREAMS = `streams`.
fn rewrite(frame: &mut [u8], wanted: u16, streams: u32) {
    let entries = frame.get_mut(FRAME_HEAD..).unwrap_or_default();
    for entry in entries.chunks_exact_mut(SETTING) {
        if entry.starts_with(&wanted.to_be_bytes()) {
            let [a, b] = MAX_CONCURRENT_STREAMS.to_be_bytes();
            let [c, d, e, f] = streams.to_be_bytes();
            entry.copy_from_slice(&[a, b, c, d, e, f]);
        }
    }
}

/// Looks for the client's first acknowledgement and counts the streams that were opened before it.
#[derive(Default)]
struct Incoming {
    preface_read: usize,
    head: Vec<u8>,
    passing: usize,
    done: bool,
}

impl Incoming {
    fn scan(&mut self, mut bytes: &[u8], limit: &StreamLimit) {
        while !self.done && !bytes.is_empty() {
            let skip = if self.preface_read < PREFACE { PREFACE - self.preface_read } else { self.passing };
            let (skipped, rest) = bytes.split_at(skip.min(bytes.len()));
            if self.preface_read < PREFACE {
                self.preface_read += skipped.len();
            } else {
                self.passing -= skipped.len();
            }
            let (head, rest) = rest.split_at((FRAME_HEAD - self.head.len()).min(rest.len()));
            self.head.extend_from_slice(head);
            bytes = rest;
            if let Some(head) = Head::of(&self.head) {
                self.head.clear();
                self.passing = head.length;
                self.note(&head, limit);
            }
        }
    }

    fn note(&mut self, head: &Head, limit: &StreamLimit) {
        if head.kind == HEADERS {
            limit.before.fetch_add(1, Ordering::AcqRel);
        }
        if head.kind == SETTINGS && head.flags & ACK != 0 {
            limit.acknowledged.store(true, Ordering::Release);
            self.done = true;
        }
    }
}

struct Head {
    length: usize,
    kind: u8,
    flags: u8,
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Head> {
        let &[a, b, c, kind, flags, ..] = bytes.first_chunk::<FRAME_HEAD>()?;
        let length = u32::from_be_bytes([0, a, b, c]);
        Some(Head { length: usize::try_from(length).ok()?, kind, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = &[0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 3, 232, 0, 4, 0, 0, 255, 255];
    const LATER: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 255, 255];
    const DATA: &[u8] = &[0, 0, 3, 0, 1, 0, 0, 0, 1, 4, 0, 0];
    const ACKNOWLEDGE: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
    const OPEN: &[u8] = &[0, 0, 1, 1, 4, 0, 0, 0, 1, 130];

    #[test]
    fn settings_are_rewritten_whatever_the_pieces() {
        let all = [FIRST, ACKNOWLEDGE, DATA, LATER].concat();
        for size in 1..=all.len() {
            let mut outgoing = Outgoing::default();
            let sizes = all.chunks(size);
            for piece in sizes {
                outgoing.push(piece, if outgoing.first_done { 1000 } else { 1 });
            }
            let first = [0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 4, 0, 0, 255, 255];
            // A piece that holds both frames announces one value in both.
            let later: &[u8] = match size == all.len() {
                true => &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1],
                false => &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 3, 232],
            };
            assert_eq!(outgoing.ready, [&first, ACKNOWLEDGE, DATA, later].concat(), "pieces of {size}");
        }
    }

    #[test]
    fn streams_before_the_acknowledgement_are_counted() {
        let all = [&[0; PREFACE], LATER, OPEN, OPEN, ACKNOWLEDGE, OPEN].concat();
        for size in 1..=all.len() {
            let limit = StreamLimit::new(1);
            let mut incoming = Incoming::default();
            for piece in all.chunks(size) {
                incoming.scan(piece, &limit);
            }
            assert!(!limit.was_known_at(2), "pieces of {size}");
            assert!(limit.was_known_at(3), "pieces of {size}");
        }
    }
}
