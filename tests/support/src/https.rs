//! An HTTP/1.1 server over TLS, for push services that answer in ways that no HTTP library would.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::Directory;

/// An accepted connection.
pub type Connection = tokio_rustls::server::TlsStream<TcpStream>;

const LONGEST_HANDSHAKE: Duration = Duration::from_secs(10);
const LONGEST_HEAD: usize = 64 << 10;

/// A request with its body.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// Returns the value of the header with this name, in lower case; an empty one if it is missing.
    pub fn header(&self, name: &str) -> &str {
        header(&self.head, name).unwrap_or_default()
    }
}

/// Returns the TLS side of a server on 127.0.0.1. Its authority is new, and is written to [`authority`].
pub fn acceptor(directory: &Directory) -> TlsAcceptor {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&authority_key).unwrap();
    std::fs::write(authority(directory), certificate.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &Issuer::new(params, authority_key)).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Returns the file that [`acceptor`] writes its authority to, in PEM.
pub fn authority(directory: &Directory) -> std::path::PathBuf {
    directory.path().join("ca.pem")
}

/// Accepts connections and serves each; all of them end when the future is dropped.
pub async fn listen<F: Future<Output = io::Result<()>> + Send + 'static>(
    listener: TcpListener,
    tls: TlsAcceptor,
    serve: impl Fn(Connection) -> F + Clone + Send + 'static,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let (tls, serve) = (tls.clone(), serve.clone());
                connections.spawn(async move {
                    if let Ok(Ok(connection)) = timeout(LONGEST_HANDSHAKE, tls.accept(socket)).await {
                        let _ = serve(connection).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Reads a request with its body. Returns `None` at the end of the connection, or if the head is too long.
pub async fn read_request(connection: &mut Connection) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let read = connection.read(&mut piece).await?;
        if read == 0 || bytes.len() > LONGEST_HEAD {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece[..read]);
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while body.len() < length {
        let read = connection.read(&mut piece).await?;
        if read == 0 {
            return Ok(None);
        }
        body.extend_from_slice(&piece[..read]);
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Some(Request { path, head, body }))
}

/// Sends a response without a body.
pub async fn respond(connection: &mut Connection, status: u16) -> io::Result<()> {
    send(connection, format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").as_bytes()).await
}

/// Sends bytes at once.
pub async fn send(connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
    connection.write_all(bytes).await?;
    connection.flush().await
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
