//! Push services that harm whoever sends to them: slow, large, endless or silent answers, and tokens that are all dead.

use std::net::SocketAddr;
use std::time::Duration;

use pushlet_test_support::https::{self, Connection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::peer::{Certificate, Failure};

/// A connection without a request ends.
const IDLE: Duration = Duration::from_secs(30);
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
    /// As a push service should: the warm-up sends there.
    Calm,
}

/// A server for all of them, each below a path of its own. It ends when this is dropped.
pub struct PushService {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Manner {
    pub const ALL: [Self; 6] =
        [Self::Slow, Self::Endless, Self::Informational, Self::Silent, Self::Dead, Self::Calm];

    /// The tenant that sends there.
    pub fn tenant(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Endless => "endless",
            Self::Informational => "informational",
            Self::Silent => "silent",
            Self::Dead => "dead",
            Self::Calm => "calm",
        }
    }
}

impl PushService {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(certificate: &Certificate) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { address, task: tokio::spawn(https::listen(listener, certificate.http1(), serve)) })
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

async fn serve(mut connection: Connection) -> std::io::Result<()> {
    while let Some(request) = timeout(IDLE, https::read_request(&mut connection)).await?? {
        let name = request.path.split('/').nth(1).unwrap_or_default();
        let Some(manner) = Manner::ALL.into_iter().find(|manner| manner.tenant() == name) else { break };
        match manner {
            Manner::Slow => slow(&mut connection).await?,
            Manner::Endless => endless(&mut connection).await?,
            Manner::Informational => informational(&mut connection).await?,
            Manner::Silent => {
                let _ = connection.read(&mut [0; 64]).await?;
                return Ok(());
            }
            Manner::Dead => https::respond(&mut connection, 410).await?,
            Manner::Calm => https::respond(&mut connection, 200).await?,
        }
    }
    Ok(())
}

async fn slow(connection: &mut Connection) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    for _ in 0..LARGE / PIECE {
        connection.write_all(&[b' '; PIECE]).await?;
        connection.flush().await?;
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn endless(connection: &mut Connection) -> std::io::Result<()> {
    connection.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    let chunk = [format!("{PIECE:x}\r\n").as_bytes(), &[b' '; PIECE], b"\r\n"].concat();
    loop {
        connection.write_all(&chunk).await?;
        connection.flush().await?;
    }
}

async fn informational(connection: &mut Connection) -> std::io::Result<()> {
    loop {
        connection.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await?;
        connection.flush().await?;
    }
}
