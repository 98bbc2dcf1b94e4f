//! Limits for callers that stall: a connection must begin to speak, and what is sent to it must be read at a minimum
//! rate.
//!
//! The HTTP library has a limit for a request's head, but it begins only when the protocol is known.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::connection::ConnectionState;
use pushlet_settings::LimitsConfig;

/// How an HTTP/2 connection begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub struct StallTimeout<S> {
    stream: S,
    connection: Arc<ConnectionState>,
    /// Ends when the protocol must be known; None once it is.
    opening: Option<Pin<Box<Sleep>>>,
    /// Bytes of the preface that were read.
    opened: usize,
    pace: TransferPace,
    /// Ends when a write must have made progress; None: none had to wait yet.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S> StallTimeout<S> {
    /// `header_timeout` is also the time until it is clear which protocol the other side speaks, and `write_timeout`
    /// and `min_data_rate` are for what it reads. Tells the connection what comes in.
    pub fn new(stream: S, connection: Arc<ConnectionState>, limits: &LimitsConfig) -> Self {
        Self {
            stream,
            connection,
            opening: Some(Box::pin(sleep(limits.header_timeout))),
            opened: 0,
            pace: TransferPace::new(limits.write_timeout, limits.min_data_rate),
            stall: None,
        }
    }

    fn opened_by(&mut self, read: &[u8]) {
        let expected = PREFACE.get(self.opened..).unwrap_or_default();
        let common = expected.len().min(read.len());
        self.opened += common;
        if read.get(..common) != expected.get(..common) || read.is_empty() {
            self.opening = None;
        } else if self.opened == PREFACE.len() {
            self.connection.speaks_http2();
            self.opening = None;
        }
    }

    /// Lets a write wait for a limited time. `bytes`: how many a completed write has written.
    fn waiting<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(done)) => {
                self.pace.moved(bytes(&done));
                Poll::Ready(Ok(done))
            }
            Poll::Ready(failed) => Poll::Ready(failed),
            Poll::Pending => {
                ready!(stalled(&mut self.stall, self.pace.wait(), cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallTimeout<S> {
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
                let read = buf.filled().get(before..).unwrap_or_default();
                if this.opening.is_some() {
                    this.opened_by(read);
                }
                if !read.is_empty() {
                    this.connection.heard();
                }
                done
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallTimeout<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.waiting(cx, written, |bytes| *bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.waiting(cx, written, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.waiting(cx, flushed, |()| 0)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.waiting(cx, shut, |()| 0)
    }
}

/// Only time in which the other side is waited for counts, so a transfer that has nothing to say is never late. What
/// was fast for a while is no credit: the lag is never less than nothing.
pub struct TransferPace {
    grace: Duration,
    /// Bytes per second.
    rate: u32,
    lag: Duration,
    waiting: Option<Instant>,
}

impl TransferPace {
    /// `grace`: how far it may lag behind. `rate`: bytes per second.
    pub fn new(grace: Duration, rate: usize) -> Self {
        Self {
            grace,
            rate: u32::try_from(rate).unwrap_or(u32::MAX).max(1),
            lag: Duration::ZERO,
            waiting: None,
        }
    }

    /// Records that the other side takes nothing now. Returns until when that may go on.
    pub fn wait(&mut self) -> Instant {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        since + self.grace.saturating_sub(self.lag)
    }

    /// Records that the other side took this many bytes. Reads no clock if nothing was waited for.
    pub fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.waiting.take() {
            self.lag += since.elapsed();
        }
        if !self.lag.is_zero() {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let made_up = Duration::from_secs_f64(f64::from(bytes) / f64::from(self.rate));
            self.lag = self.lag.saturating_sub(made_up);
        }
    }
}

/// Ready when the time has come; else the task is woken then.
pub fn stalled(timer: &mut Option<Pin<Box<Sleep>>>, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
    if timer.deadline() != until {
        timer.as_mut().reset(until);
    }
    timer.as_mut().poll(cx)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{advance, timeout};

    use super::*;
    use pushlet_api::Peer;
    use pushlet_settings::ConfigLayers;

    const SHORT: Duration = Duration::from_millis(50);

    fn patience<S>(stream: S) -> StallTimeout<S> {
        let limits = ConfigLayers::new().unwrap().finish().unwrap().limits;
        // As many bytes in that time as the slow reader below takes.
        let limits =
            LimitsConfig { header_timeout: SHORT, write_timeout: SHORT, min_data_rate: 320, ..limits };
        let peer = Peer::new(std::net::Ipv4Addr::LOCALHOST.into(), &Arc::default());
        StallTimeout::new(stream, Arc::new(ConnectionState::new(Arc::new(peer))), &limits)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_connection() {
        for start in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            let (mut near, far) = duplex(1024);
            near.write_all(start).await.unwrap();
            let mut far = patience(far);
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
            let mut far = patience(far);
            let mut read = [0; 64];
            assert_eq!(far.read(&mut read).await.unwrap(), start.len());
            let waited = timeout(SHORT * 100, far.read(&mut read)).await;
            assert!(waited.is_err(), "{start:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_ends_the_connection() {
        let (near, far) = duplex(16);
        let mut far = patience(far);
        let failed = timeout(SHORT * 2, far.write_all(&[0; 1024])).await.unwrap().unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(near);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_waited_for() {
        let (mut near, far) = duplex(16);
        let mut far = patience(far);
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

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_too_slow_ends_the_connection() {
        let (mut near, far) = duplex(16);
        let mut far = patience(far);
        let reader = async {
            let mut read = [0; 1];
            loop {
                tokio::time::sleep(SHORT / 2).await;
                if near.read_exact(&mut read).await.is_err() {
                    return;
                }
            }
        };
        let both = async {
            tokio::select! {
                written = far.write_all(&[0; 1024]) => written,
                () = reader => Ok(()),
            }
        };
        let failed = timeout(SHORT * 100, both).await.unwrap().unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_learns_what_is_spoken() {
        for (start, is_http2, head) in [
            (&b"GE"[..], false, true),
            (b"GET / HTTP/1.1 and so on and on", false, true),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", true, false),
        ] {
            let (mut near, far) = duplex(1024);
            near.write_all(start).await.unwrap();
            let mut far = patience(far);
            assert!(far.read(&mut [0; 64]).await.unwrap() > 0);
            let activity = far.connection.activity();
            assert_eq!((activity.is_http2, activity.head), (is_http2, head));
        }
    }

    const GRACE: Duration = Duration::from_secs(10);

    /// Returns seconds until a reader that takes `bytes` after each wait of `pause` is late; None: it never is.
    async fn late_after(bytes: usize, pause: Duration) -> Option<u64> {
        let mut pace = TransferPace::new(GRACE, 1000);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3600) {
            if pace.wait() < Instant::now() + pause {
                return Some(start.elapsed().as_secs());
            }
            advance(pause).await;
            pace.moved(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_late_in_the_end_and_a_fast_one_never() {
        assert_eq!(late_after(2000, Duration::from_secs(2)).await, None);
        assert_eq!(late_after(1000, Duration::from_secs(2)).await, Some(18));
        assert_eq!(late_after(0, Duration::from_secs(11)).await, Some(0));
        assert_eq!(late_after(1_000_000, Duration::from_secs(11)).await, Some(0), "speed is no credit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_has_nothing_to_say_is_not_late() {
        let mut pace = TransferPace::new(GRACE, 1000);
        for _ in 0..100 {
            advance(GRACE).await;
            pace.moved(1);
        }
        assert_eq!(pace.wait(), Instant::now() + GRACE);
    }
}
