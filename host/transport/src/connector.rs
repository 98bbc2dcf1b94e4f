//! Connections for the HTTPS client, dialled as all others are, with a limit for informational answers.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper::ext::on_informational;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::dial::{HostResolver, dial_any};
use super::error::DialError;
use super::frames::{FrameScanner, HeaderCounts, MOST_INFORMATIONAL};
use super::origin::Origin;

/// Opens connections to one origin as one identity.
#[derive(Clone)]
pub(super) struct TlsConnector(Arc<DialTarget>);

struct DialTarget {
    origin: Origin,
    tls: Arc<ClientConfig>,
    resolver: HostResolver,
    within: Duration,
}

impl TlsConnector {
    pub fn new(origin: Origin, tls: Arc<ClientConfig>, resolver: HostResolver, within: Duration) -> Self {
        Self(Arc::new(DialTarget { origin, tls, resolver, within }))
    }
}

impl Service<Uri> for TlsConnector {
    type Response = TokioIo<CountedStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self(dialled) = self.clone();
        Box::pin(async move {
            let DialTarget { origin, tls, resolver, within } = &*dialled;
            let stream = dial_any(origin, tls, resolver, *within).await?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let frames = is_http2.then(|| Box::new((FrameScanner::new(0, false), HeaderCounts::default())));
            Ok(TokioIo::new(CountedStream { stream, frames }))
        })
    }
}

/// Notifies when more informational answers (1xx) came over HTTP/1.1 than there may be. Over HTTP/2 the connection
/// counts them itself.
pub(super) fn limit_informational<B>(request: &mut http::Request<B>) -> Arc<Notify> {
    let (too_many, came) = (Arc::new(Notify::new()), AtomicUsize::new(0));
    let notify = too_many.clone();
    on_informational(request, move |_| {
        if came.fetch_add(1, Ordering::Relaxed) >= usize::from(MOST_INFORMATIONAL) {
            notify.notify_one();
        }
    });
    too_many
}

/// A TLS connection that fails where a stream of HTTP/2 gets too many informational answers.
pub(super) struct CountedStream {
    stream: TlsStream<TcpStream>,
    frames: Option<Box<(FrameScanner, HeaderCounts)>>,
}

impl Connection for CountedStream {
    fn connected(&self) -> Connected {
        if self.frames.is_some() { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some((scanner, heads)) = self.frames.as_deref_mut() {
            let mut allowed = true;
            let read = buf.filled().get(before..).unwrap_or_default();
            scanner.scan(read, |frame| allowed &= heads.received(frame));
            if !allowed {
                return Poll::Ready(Err(io::Error::other("too many informational answers")));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
