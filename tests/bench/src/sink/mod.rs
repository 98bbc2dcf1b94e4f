//! A process that takes pushes and answers at once: HTTP/2 over TLS on loopback, one port per push service.

mod answer;
mod peer;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use answer::Answer;
use peer::Peer;

use crate::failure::{Failure, at};

/// What the process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// Authority of clients' certificates, PEM.
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Milliseconds before every answer.
    pub latency: u64,
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub streams: u32,
    /// 0: any.
    pub oauth_port: u16,
}

/// Where it listens; printed as one line of JSON.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ports {
    pub apns: u16,
    pub fcm: u16,
    pub gcm: u16,
    pub oauth: u16,
    pub web_push: u16,
}

/// Serves until standard input ends.
pub fn run(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(at("sink"))?;
    runtime.block_on(async {
        let tls = TlsAcceptor::from(Arc::new(tls(options)?));
        let start = async |answer, port| listen(tls.clone(), answer, port, options).await;
        let ports = Ports {
            apns: start(Answer::apns(), 0).await?,
            fcm: start(Answer::fcm(), 0).await?,
            gcm: start(Answer::Gcm, 0).await?,
            oauth: start(Answer::oauth(), options.oauth_port).await?,
            web_push: start(Answer::web_push(), 0).await?,
        };
        let line = serde_json::to_string(&ports).map_err(at("sink"))?;
        writeln!(std::io::stdout(), "{line}").map_err(at("sink"))?;
        let mut rest = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut rest).await;
        Ok(())
    })
}

async fn listen(tls: TlsAcceptor, answer: Answer, port: u16, options: &Options) -> Result<u16, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(at("sink"))?;
    let port = listener.local_addr().map_err(at("sink"))?.port();
    let (latency, streams) = (Duration::from_millis(options.latency), options.streams);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (tls, peer) = (tls.clone(), Peer::new(answer.clone(), latency, streams));
            tokio::spawn(async move { serve(tls, socket, peer).await.ok() });
        }
    });
    Ok(port)
}

async fn serve(tls: TlsAcceptor, socket: TcpStream, mut peer: Peer) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut stream = tls.accept(socket).await?;
    let far = Duration::from_secs(3600);
    loop {
        if !peer.output().is_empty() {
            stream.write_all(peer.output()).await?;
            stream.flush().await?;
            peer.output().clear();
        }
        let read = match peer.due_at() {
            None => stream.read_buf(peer.input()).await?,
            Some(due) => tokio::select! {
                read = stream.read_buf(peer.input()) => read?,
                () = tokio::time::sleep_until(due.min(Instant::now() + far).into()) => {
                    peer.due(Instant::now());
                    continue;
                }
            },
        };
        if read == 0 || peer.received(Instant::now()).is_err() {
            return Ok(());
        }
    }
}

fn tls(options: &Options) -> Result<ServerConfig, Failure> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&options.certificate).map_err(at("certificate"))?.collect();
    let key = PrivateKeyDer::from_pem_file(&options.key).map_err(at("key"))?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&options.ca).map_err(at("authority"))? {
        roots.add(root.map_err(at("authority"))?).map_err(at("authority"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(at("authority"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_client_cert_verifier(clients).with_single_cert(chain.unwrap_or_default(), key)
        })
        .map_err(at("sink"))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
