//! Puts the heads of requests on the wire in our own coding.
//!
//! The h2 crate codes every header anew for each request, and keeps no form of one that must not be indexed. So it is
//! given heads with nothing in them, and the frames that it makes of these are replaced on their way out.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hpack::{HeadEncoder, RequestHead, size_update};
use crate::frames::{FRAME_HEADER, HEADERS, PREFACE, parse_header, take};

const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The largest frame that every peer takes (RFC 9113, section 4.2).
const MAX_FRAME: usize = 16_384;
/// Heads that wait. There is one for each stream, and those of streams that were given up until another leaves: only a
/// peer that reads nothing lets them become many.
const MOST_PENDING: usize = 10_000;
/// From here on what waits is handed on before more is taken.
const BUFFER: usize = 16 * 1024;

/// The heads of requests that h2 has been given, until they leave.
#[derive(Default)]
pub struct PendingHeads(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    /// By stream, which is the order in which they leave.
    heads: VecDeque<(u32, RequestHead)>,
    /// Who waits for a head that is about to come.
    waiting: Option<Waker>,
}

impl PendingHeads {
    /// False: too many wait already.
    pub fn have_room(&self) -> bool {
        self.0.lock().heads.len() < MOST_PENDING
    }

    /// Adds the head of a stream that h2 has just opened. Its frame may be on its way already, on another thread.
    pub fn put(&self, stream: u32, head: RequestHead) {
        let waiting = {
            let mut pending = self.0.lock();
            // Nearly always the last: another thread may have opened a later stream meanwhile.
            let later = pending.heads.iter().rev().take_while(|(other, _)| *other > stream).count();
            let place = pending.heads.len() - later;
            pending.heads.insert(place, (stream, head));
            pending.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Takes a stream's head. Streams leave in order, so those before it that were given up are forgotten.
    fn poll_take(&self, stream: u32, cx: &Context<'_>) -> Poll<RequestHead> {
        let mut pending = self.0.lock();
        while let Some((id, head)) = pending.heads.pop_front_if(|(id, _)| *id <= stream) {
            if id == stream {
                return Poll::Ready(head);
            }
        }
        pending.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The stream that h2 writes to. It hands on what it was given when it is flushed, so that the frames of one wake-up
/// leave in one write.
pub struct HeadStream<S> {
    inner: S,
    heads: Arc<PendingHeads>,
    encoder: HeadEncoder,
    /// Bytes before the first frame that are still to come.
    preface: usize,
    /// As much as has come of the next frame's header.
    header: Vec<u8>,
    /// Bytes of the current frame's payload that are still to come.
    left: usize,
    replaced: Option<ReplacedFrame>,
    /// What h2 wrote in the place of a head.
    stub: Vec<u8>,
    buffer: Vec<u8>,
    /// As much of the buffer as has been handed on.
    handed: usize,
}

/// A frame that is replaced once it has come whole.
#[derive(Clone, Copy)]
struct ReplacedFrame {
    stream: u32,
    flags: u8,
}

impl<S: AsyncWrite + Unpin> HeadStream<S> {
    pub fn new(inner: S, authority: String, heads: Arc<PendingHeads>) -> Self {
        HeadStream {
            inner,
            heads,
            encoder: HeadEncoder::new(authority),
            preface: PREFACE,
            header: Vec::with_capacity(FRAME_HEADER),
            left: 0,
            replaced: None,
            stub: Vec::new(),
            buffer: Vec::new(),
            handed: 0,
        }
    }

    /// Takes what h2 has written, up to a head that has not come yet. Returns how much is left.
    fn take_in(&mut self, mut bytes: &[u8], cx: &Context<'_>) -> io::Result<usize> {
        while self.poll_replace(cx).is_ready() && !bytes.is_empty() {
            self.take_piece(&mut bytes)?;
        }
        Ok(bytes.len())
    }

    /// Takes the rest of the preface, of a frame's header, or of its payload, as far as it is there.
    fn take_piece(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        if self.preface > 0 {
            let piece = take(bytes, self.preface);
            self.preface -= piece.len();
            self.buffer.extend_from_slice(piece);
        } else if self.left > 0 {
            let piece = take(bytes, self.left);
            self.left -= piece.len();
            let to = if self.replaced.is_some() { &mut self.stub } else { &mut self.buffer };
            to.extend_from_slice(piece);
        } else {
            self.header.extend_from_slice(take(bytes, FRAME_HEADER - self.header.len()));
            self.begin_frame()?;
        }
        Ok(())
    }

    /// Reads the header of a frame once it is complete.
    fn begin_frame(&mut self) -> io::Result<()> {
        let Ok(header) = <[u8; FRAME_HEADER]>::try_from(self.header.as_slice()) else { return Ok(()) };
        self.header.clear();
        let (length, kind, flags, stream) = parse_header(header);
        self.left = length;
        if kind != HEADERS {
            self.buffer.extend_from_slice(&header);
            return Ok(());
        }
        // Not what h2 does with a head this small; anything else would be lost with it.
        if flags & (END_HEADERS | PADDED | PRIORITY) != END_HEADERS {
            return Err(io::Error::other("a header block in another form than expected"));
        }
        self.replaced = Some(ReplacedFrame { stream, flags });
        Ok(())
    }

    /// Puts the head in the place of a frame that has come whole. Waits if the head has not come.
    fn poll_replace(&mut self, cx: &Context<'_>) -> Poll<()> {
        if let Some(frame) = self.replaced.filter(|_| self.left == 0) {
            let head = ready!(self.heads.poll_take(frame.stream, cx));
            self.replaced = None;
            self.put_head(frame, &head);
            self.stub.clear();
        }
        Poll::Ready(())
    }

    fn put_head(&mut self, frame: ReplacedFrame, head: &RequestHead) {
        let start = self.buffer.len() + FRAME_HEADER;
        self.buffer.resize(start, 0);
        if let Some(size) = size_update(&self.stub) {
            self.encoder.resize(size, &mut self.buffer);
        }
        self.encoder.encode(head, &mut self.buffer);
        let most = self.buffer.len().min(start + MAX_FRAME);
        let rest = self.buffer.split_off(most);
        let flags = if rest.is_empty() { frame.flags } else { frame.flags & !END_HEADERS };
        let header = frame_header(most - start, HEADERS, flags, frame.stream);
        self.buffer.splice(start - FRAME_HEADER..start, header);
        let mut pieces = rest.chunks(MAX_FRAME).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            self.buffer.extend_from_slice(&frame_header(piece.len(), CONTINUATION, flags, frame.stream));
            self.buffer.extend_from_slice(piece);
        }
    }

    fn poll_hand_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.buffer.get(self.handed..) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.handed += written,
            }
        }
        self.buffer.clear();
        self.handed = 0;
        Poll::Ready(Ok(()))
    }

    /// Hands on all that was taken.
    fn poll_hand_on_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let replaced = self.poll_replace(cx);
        ready!(self.poll_hand_on(cx))?;
        replaced.map(Ok)
    }
}

/// Returns the header of a frame (RFC 9113, section 4.1).
fn frame_header(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; FRAME_HEADER] {
    let [.., a, b, c] = length.to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    [a, b, c, kind, flags, s, t, u, v]
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

/// Not vectored, so that h2 writes a payload of up to 1 KiB together with its frame's header, and flushes once for many.
impl<S: AsyncWrite + Unpin> AsyncWrite for HeadStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.buffer.len() >= BUFFER {
            ready!(self.poll_hand_on(cx))?;
        }
        match bytes.len() - self.take_in(bytes, cx)? {
            0 if !bytes.is_empty() => Poll::Pending,
            taken => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_on_all(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_on_all(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "heads_tests.rs"]
mod tests;
