//! A push service that belongs to the attacker: HTTPS under an authority of its own, at two addresses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pushlet_test_support::https::{self, Connection};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Directory;

/// Between two informational responses. They fill no buffer of the kernel meanwhile.
const INFORMATIONAL_PAUSE: Duration = Duration::from_millis(10);

/// How it answers every request.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Not at all.
    Silent,
    /// With this status and no body.
    Status(u16),
    /// With informational responses (1xx), and nothing else.
    Informational,
    /// With a body of so many bytes whose last one never comes.
    Endless(usize),
}

/// Ends when it is dropped.
pub struct PushService {
    addresses: [SocketAddr; 2],
    written: Arc<AtomicUsize>,
    directory: Directory,
    tasks: Vec<JoinHandle<()>>,
}

/// What its connections share.
#[derive(Clone)]
struct Shared {
    manner: Manner,
    /// Responses whose heads were written.
    written: Arc<AtomicUsize>,
}

impl PushService {
    pub async fn start(manner: Manner) -> Self {
        let directory = Directory::new();
        let (acceptor, written) = (https::acceptor(&directory), Arc::<AtomicUsize>::default());
        let shared = Shared { manner, written: written.clone() };
        let (mut addresses, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let shared = shared.clone();
            let serve = move |connection| shared.clone().serve(connection);
            addresses.push(listener.local_addr().unwrap());
            tasks.push(tokio::spawn(https::listen(listener, acceptor.clone(), serve)));
        }
        Self { addresses: [addresses[0], addresses[1]], written, directory, tasks }
    }

    /// The file of its authority.
    pub fn ca(&self) -> PathBuf {
        https::authority(&self.directory)
    }

    /// Configuration that leads the attacker's provider `webhook` here, with an address for each environment.
    pub fn settings(&self) -> String {
        let [production, development] = self.addresses.map(|address| format!("https://{address}"));
        format!(
            "endpoints.\"attacker/webhook\" = {{ production = {production:?}, development = {development:?} }}\n"
        )
    }

    /// How many responses it has begun, informational ones included.
    pub fn responses(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }
}

impl Drop for PushService {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    /// HTTP/1.1, since it chooses no other protocol, until the other side has had enough.
    async fn serve(self, mut connection: Connection) -> std::io::Result<()> {
        while https::read_request(&mut connection).await?.is_some() {
            self.respond(&mut connection).await?;
        }
        Ok(())
    }

    async fn respond(&self, connection: &mut Connection) -> std::io::Result<()> {
        match self.manner {
            Manner::Silent => std::future::pending().await,
            Manner::Status(status) => {
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                self.write(connection, head.as_bytes()).await
            }
            Manner::Informational => loop {
                self.write(connection, b"HTTP/1.1 103 Early Hints\r\n\r\n").await?;
                tokio::time::sleep(INFORMATIONAL_PAUSE).await;
            },
            Manner::Endless(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
                self.write(connection, head.as_bytes()).await?;
                connection.write_all(&vec![b'x'; bytes - 1]).await?;
                connection.flush().await
            }
        }
    }

    async fn write(&self, connection: &mut Connection, head: &[u8]) -> std::io::Result<()> {
        self.written.fetch_add(1, Ordering::Relaxed);
        https::send(connection, head).await
    }
}
