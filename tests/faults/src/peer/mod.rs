//! An HTTP/2 server, frame by frame over real TLS, that does what servers do on their worst days.

mod answer;
mod connection;
mod dice;
mod frame;
mod hpack;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub use dice::Manner;

use crate::ledger::Ledger;

const HANDSHAKE: Duration = Duration::from_secs(5);

/// Why something could not be set up; for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The certificate of peers, and of the authority that issued it, in PEM.
pub struct Certificate {
    pub chain: String,
    pub key: String,
    pub authority: String,
    acceptor: TlsAcceptor,
    http1: TlsAcceptor,
}

/// A running peer. It ends when this is dropped.
pub struct Peer {
    pub address: SocketAddr,
    pub ledger: Arc<Ledger>,
    task: tokio::task::JoinHandle<()>,
}

/// What all connections of a peer share.
struct Shared {
    ledger: Arc<Ledger>,
    seed: u64,
    manner: Manner,
    accepted: AtomicU64,
    /// How long the peer is down, each time that it goes down.
    restart: watch::Sender<Duration>,
}

impl Certificate {
    /// For a server on 127.0.0.1.
    pub fn new() -> Result<Self, Failure> {
        let mut params = CertificateParams::new([])?;
        params.distinguished_name.push(DnType::CommonName, "Authority of the peers");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
        Ok(Self {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            authority: issuer.pem(),
            acceptor: acceptor(&certificate, &key, b"h2")?,
            http1: acceptor(&certificate, &key, b"http/1.1")?,
        })
    }

    /// For a server that speaks HTTP/1.1.
    pub fn http1(&self) -> TlsAcceptor {
        self.http1.clone()
    }
}

fn acceptor(
    certificate: &rcgen::Certificate,
    key: &KeyPair,
    protocol: &[u8],
) -> Result<TlsAcceptor, Failure> {
    let private: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Peer {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(
        certificate: &Certificate,
        seed: u64,
        manner: Manner,
        ledger: Arc<Ledger>,
    ) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (accepted, restart) = (AtomicU64::new(0), watch::Sender::new(Duration::ZERO));
        let shared = Arc::new(Shared { ledger: ledger.clone(), seed, manner, accepted, restart });
        let task = tokio::spawn(listen(listener, address, certificate.acceptor.clone(), shared));
        Ok(Self { address, ledger, task })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(mut listener: TcpListener, address: SocketAddr, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut restart = shared.restart.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                // Small frames leave at once, as from every server; else what is measured is their waiting.
                let _ = socket.set_nodelay(true);
                let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
                let (tls, shared) = (tls.clone(), shared.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
                        connection::serve(stream, shared, number).await;
                    }
                });
            }
            _ = restart.changed() => {
                let pause = *restart.borrow_and_update();
                drop(listener);
                tokio::time::sleep(pause).await;
                listener = again(address).await;
            }
        }
    }
}

/// Listens where it listened before.
async fn again(address: SocketAddr) -> TcpListener {
    loop {
        let listener = TcpSocket::new_v4().and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(1024)
        });
        match listener {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
