//! Push services that harm whoever sends to them: slow, large, endless or silent answers, and tokens that are all dead.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::peer::{Certificate, Failure};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection without a request ends.
const IDLE: Duration = Duration::from_secs(30);
const LONGEST_HEAD: usize = 16 << 10;
/// Just below the longest answer that the server takes.
const LARGE: usize = 480 << 10;
const PIECE: usize = 32 << 10;

/// How a push service answers. Each has a tenant of its own, whose component sends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// The longest answer that is taken, as late as possible.
    Slow,
    /// An answer without an end.
    Endless,
    /// Informational answers (1xx) without an end.
    Informational,
    /// No answer.
    Silent,
    /// Every token is dead.
    Dead,
}

/// A server for all of them, each below a path of its own. It ends when this is dropped.
pub struct PushService {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Manner {
    pub const ALL: [Self; 5] = [Self::Slow, Self::Endless, Self::Informational, Self::Silent, Self::Dead];

    /// The tenant that sends there.
    pub fn tenant(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Endless => "endless",
            Self::Informational => "informational",
            Self::Silent => "silent",
            Self::Dead => "dead",
        }
    }
}

impl PushService {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(certificate: &Certificate) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { address, task: tokio::spawn(listen(listener, certificate.http1())) })
    }

    /// The base URL of the service that behaves so.
    pub fn url(&self, manner: Manner) -> String {
        format!("https://{}/{}", self.address, manner.tenant())
    }
}

impl Drop for PushService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, tls: TlsAcceptor) {
    // With this task all connections end.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let tls = tls.clone();
                connections.spawn(async move {
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(socket)).await {
                        let _ = serve(stream).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TlsStream<TcpStream>) -> std::io::Result<()> {
    while let Some(manner) = timeout(IDLE, request(&mut stream)).await?? {
        match manner {
            Manner::Slow => slow(&mut stream).await?,
            Manner::Endless => endless(&mut stream).await?,
            Manner::Informational => informational(&mut stream).await?,
            Manner::Silent => {
                let _ = stream.read(&mut [0; 64]).await?;
                return Ok(());
            }
            Manner::Dead => {
                stream.write_all(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n").await?;
                stream.flush().await?;
            }
        }
    }
    Ok(())
}

/// Reads one request. None: the connection ended, or it is none that belongs here.
async fn request(stream: &mut TlsStream<TcpStream>) -> std::io::Result<Option<Manner>> {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    let end = loop {
        if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        let read = stream.read(&mut piece).await?;
        if read == 0 || head.len() > LONGEST_HEAD {
            return Ok(None);
        }
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
    };
    let text = String::from_utf8_lossy(head.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut missing = length.unwrap_or(0_usize).saturating_sub(head.len() - end);
    while missing > 0 {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Ok(None);
        }
        missing = missing.saturating_sub(read);
    }
    let path = text.split(' ').nth(1).unwrap_or_default();
    Ok(Manner::ALL.into_iter().find(|manner| path.split('/').nth(1) == Some(manner.tenant())))
}

async fn slow(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..LARGE / PIECE {
        stream.write_all(&[b' '; PIECE]).await?;
        stream.flush().await?;
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn endless(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    let chunk = [format!("{PIECE:x}\r\n").as_bytes(), &[b' '; PIECE], b"\r\n"].concat();
    loop {
        stream.write_all(&chunk).await?;
        stream.flush().await?;
    }
}

async fn informational(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    loop {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await?;
        stream.flush().await?;
    }
}
