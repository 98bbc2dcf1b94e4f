//! A TCP proxy between gateway and peer that does what networks do: latency, little bandwidth, slow readers,
//! cut and half-open connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::ledger::Ledger;

/// How long a half-open connection stays.
const GRAVE: Duration = Duration::from_secs(30);

/// A running proxy. It accepts no more when this is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

/// How one connection is treated.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Added to everything, each way.
    latency: Duration,
    /// Bytes that pass at once, and the pause after them.
    window: usize,
    pause: Duration,
    end: End,
}

/// How it ends, after so many bytes in both directions.
#[derive(Debug, Clone, Copy)]
enum End {
    Never,
    Cut(usize),
    /// Nothing passes any more, and nobody is told.
    HalfOpen(usize),
}

impl Proxy {
    /// Listens on a free port and passes everything on to `to`. What befalls goes into the ledger's events.
    pub async fn start(to: SocketAddr, seed: u64, ledger: Arc<Ledger>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut rng = StdRng::seed_from_u64(seed);
        let task = tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { continue };
                let line = Line::random(&mut rng);
                tokio::spawn(pass(near, to, line, ledger.clone()));
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    fn random(rng: &mut StdRng) -> Self {
        let slow = rng.random_bool(0.2);
        let latency = Duration::from_millis(rng.random_range(0..30));
        let (window, pause) = if slow { (rng.random_range(200..2000), 2) } else { (16 << 10, 0) };
        let bytes = rng.random_range(500..200_000);
        let end = match rng.random_range(0..10) {
            0..2 => End::Never,
            2..8 => End::Cut(bytes),
            _ => End::HalfOpen(bytes),
        };
        Line { latency, window, pause: Duration::from_millis(pause), end }
    }
}

async fn pass(near: TcpStream, to: SocketAddr, line: Line, ledger: Arc<Ledger>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let left = std::sync::atomic::AtomicUsize::new(match line.end {
        End::Never => usize::MAX,
        End::Cut(bytes) | End::HalfOpen(bytes) => bytes,
    });
    let both = async {
        tokio::select! {
            spent = carry(near_read, far_write, line, &left) => spent,
            spent = carry(far_read, near_write, line, &left) => spent,
        }
    };
    // The halves live on in `both`, so that the sockets stay open while it is not dropped.
    let mut both = Box::pin(both);
    match ((&mut both).await, line.end) {
        (false, _) | (true, End::Never) => {}
        (true, End::Cut(_)) => ledger.event("proxy: cut"),
        (true, End::HalfOpen(_)) => {
            ledger.event("proxy: half-open");
            sleep(GRAVE).await;
        }
    }
}

/// Carries bytes until one side ends or the connection's bytes are spent, which is true.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    line: Line,
    left: &std::sync::atomic::AtomicUsize,
) -> bool {
    use std::sync::atomic::Ordering::Relaxed;
    let mut buffer = vec![0; line.window];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return false };
        sleep(line.latency + line.pause).await;
        let before = left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(read))).unwrap_or(0);
        let passed = buffer.get(..read.min(before)).unwrap_or_default();
        if to.write_all(passed).await.is_err() {
            return false;
        }
        if before <= read {
            return true;
        }
    }
}
