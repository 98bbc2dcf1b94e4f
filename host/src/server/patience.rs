//! A stream whose other side must begin to speak, and must read what it is sent, within limits.
//!
//! The HTTP library has a limit for a request's head, but it begins only when the protocol is known.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How an HTTP/2 connection begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub struct Patience<S> {
    stream: S,
    /// Ends when the protocol must be known; None once it is.
    opening: Option<Pin<Box<Sleep>>>,
    /// Bytes of the preface that were read.
    opened: usize,
    /// Ends when a write that made no progress must have.
    stall: Pin<Box<Sleep>>,
    stalled: bool,
    write_timeout: Duration,
}

impl<S> Patience<S> {
    /// `open_timeout`: until it is clear which protocol the other side speaks.
    /// `write_timeout`: without any progress of a write.
    pub fn new(stream: S, open_timeout: Duration, write_timeout: Duration) -> Self {
        Self {
            stream,
            opening: Some(Box::pin(sleep(open_timeout))),
            opened: 0,
            stall: Box::pin(sleep(write_timeout)),
            stalled: false,
            write_timeout,
        }
    }

    fn opened_by(&mut self, read: &[u8]) {
        let expected = PREFACE.get(self.opened..).unwrap_or_default();
        let common = expected.len().min(read.len());
        self.opened += common;
        if self.opened == PREFACE.len() || read.get(..common) != expected.get(..common) || read.is_empty() {
            self.opening = None;
        }
    }

    /// Lets a write wait, but not for ever.
    fn waiting<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = false;
            return written;
        }
        if !self.stalled {
            self.stalled = true;
            self.stall.as_mut().reset(Instant::now() + self.write_timeout);
        }
        ready!(self.stall.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => match &mut this.opening {
                Some(opening) => {
                    ready!(opening.as_mut().poll(cx));
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                None => Poll::Pending,
            },
            done => {
                if this.opening.is_some() {
                    this.opened_by(buf.filled().get(before..).unwrap_or_default());
                }
                done
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.waiting(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.waiting(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.waiting(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.waiting(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_connection() {
        for start in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            let (mut near, far) = duplex(1024);
            near.write_all(start).await.unwrap();
            let mut far = Patience::new(far, SHORT, SHORT);
            let mut read = [0; 64];
            if !start.is_empty() {
                assert_eq!(far.read(&mut read).await.unwrap(), start.len());
            }
            let failed = timeout(SHORT * 2, far.read(&mut read)).await.unwrap().unwrap_err();
            assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn once_the_protocol_is_known_silence_is_allowed() {
        for start in [&b"GET"[..], b"POST /", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRIZE"] {
            let (mut near, far) = duplex(1024);
            near.write_all(start).await.unwrap();
            let mut far = Patience::new(far, SHORT, SHORT);
            let mut read = [0; 64];
            assert_eq!(far.read(&mut read).await.unwrap(), start.len());
            let waited = timeout(SHORT * 100, far.read(&mut read)).await;
            assert!(waited.is_err(), "{start:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_ends_the_connection() {
        let (near, far) = duplex(16);
        let mut far = Patience::new(far, SHORT, SHORT);
        let failed = timeout(SHORT * 2, far.write_all(&[0; 1024])).await.unwrap().unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(near);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_waited_for() {
        let (mut near, far) = duplex(16);
        let mut far = Patience::new(far, SHORT, SHORT);
        let reader = async {
            let mut read = [0; 16];
            for _ in 0..64 {
                tokio::time::sleep(SHORT / 2).await;
                near.read_exact(&mut read).await.unwrap();
            }
        };
        let both = async { tokio::join!(far.write_all(&[0; 1024]), reader) };
        timeout(SHORT * 100, both).await.unwrap().0.unwrap();
    }
}
