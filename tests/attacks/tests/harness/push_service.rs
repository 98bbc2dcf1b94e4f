//! A push service that belongs to the attacker: HTTPS under an authority of its own, at two addresses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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
    acceptor: TlsAcceptor,
    manner: Manner,
    /// Responses whose heads were written.
    written: Arc<AtomicUsize>,
}

impl PushService {
    pub async fn start(manner: Manner) -> Self {
        let directory = Directory::new();
        let (acceptor, written) =
            (TlsAcceptor::from(Arc::new(tls(&directory))), Arc::<AtomicUsize>::default());
        let shared = Shared { acceptor, manner, written: written.clone() };
        let (mut addresses, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            tasks.push(tokio::spawn(accept(listener, shared.clone())));
        }
        Self { addresses: [addresses[0], addresses[1]], written, directory, tasks }
    }

    /// The file of its authority.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
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

fn tls(directory: &Directory) -> ServerConfig {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&authority_key).unwrap();
    std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap()
}

async fn accept(listener: TcpListener, shared: Shared) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Ok(stream) = shared.acceptor.accept(stream).await {
                shared.serve(stream).await;
            }
        });
    }
}

impl Shared {
    /// HTTP/1.1, since it chooses no other protocol, until the other side has had enough.
    async fn serve(self, mut stream: TlsStream<TcpStream>) {
        while read_request(&mut stream).await.is_some() {
            if self.respond(&mut stream).await.is_err() {
                return;
            }
        }
    }

    async fn respond(&self, stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
        match self.manner {
            Manner::Silent => std::future::pending().await,
            Manner::Status(status) => {
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                self.write(stream, head.as_bytes()).await
            }
            Manner::Informational => loop {
                self.write(stream, b"HTTP/1.1 103 Early Hints\r\n\r\n").await?;
                tokio::time::sleep(INFORMATIONAL_PAUSE).await;
            },
            Manner::Endless(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
                self.write(stream, head.as_bytes()).await?;
                stream.write_all(&vec![b'x'; bytes - 1]).await?;
                stream.flush().await
            }
        }
    }

    async fn write(&self, stream: &mut TlsStream<TcpStream>, head: &[u8]) -> std::io::Result<()> {
        self.written.fetch_add(1, Ordering::Relaxed);
        stream.write_all(head).await?;
        stream.flush().await
    }
}

/// Reads a request with its body; returns `None` at the end of the connection.
async fn read_request(stream: &mut TlsStream<TcpStream>) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(())
}
