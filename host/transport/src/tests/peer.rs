//! A peer that does what a test tells it, frame by frame, over real TLS. It knows RFC 9113 by itself and
//! shares no code with what is tested.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::LONG;
use crate::{ClientIdentity, Origin, TlsCertificate};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const REFUSED_STREAM: u32 = 7;

/// Issues the certificates of one test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::new([]).unwrap();
        let name = format!("Authority {}", MADE.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    fn issue(&self, params: CertificateParams) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    pub fn client(&self, mark: u8) -> ClientIdentity {
        let (chain, key) = self.issue(CertificateParams::new([format!("client-{mark}")]).unwrap());
        let key = rustls::sign::CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap();
        ClientIdentity::Certificate(Arc::new(TlsCertificate { digest: [mark; 32], key: Arc::new(key) }))
    }
}

/// A listening peer.
pub struct Peer {
    pub authority: Authority,
    listener: TcpListener,
    tls: TlsAcceptor,
}

/// How the peer's TLS is set up.
pub struct Setup {
    pub alpn: &'static str,
    pub expired: bool,
    /// Whose client certificates are wanted, if any.
    pub clients: Option<CertificateDer<'static>>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { alpn: "h2", expired: false, clients: None }
    }
}

impl Peer {
    pub async fn start() -> Peer {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Peer {
        let authority = Authority::new();
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        if setup.expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let (chain, key) = authority.issue(params);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match setup.clients {
            None => builder.with_no_client_auth(),
            Some(root) => {
                let mut roots = RootCertStore::empty();
                roots.add(root).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = setup.alpn.split_whitespace().map(|name| name.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Peer { authority, listener, tls: TlsAcceptor::from(Arc::new(config)) }
    }

    pub fn origin(&self) -> Origin {
        format!("https://{}", self.listener.local_addr().unwrap()).parse().unwrap()
    }

    /// Ends the listener, so that connects are refused, until `listen` is called on what is returned.
    pub fn stop(self) -> Stopped {
        Stopped { address: self.listener.local_addr().unwrap(), authority: self.authority, tls: self.tls }
    }

    pub async fn accept_tcp(&self) -> TcpStream {
        timeout(LONG, self.listener.accept()).await.expect("a connection").unwrap().0
    }

    /// The TLS connection, or the error of the handshake.
    pub async fn accept_tls(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.tls.accept(self.accept_tcp().await).await
    }

    /// A connection whose preface has been read and acknowledged, with these settings.
    pub async fn accept(&self, settings: &[(u16, u32)]) -> Wire {
        let mut wire = Wire { stream: self.accept_tls().await.unwrap(), acks: 0, heads: HashMap::new() };
        let mut preface = [0; 24];
        wire.stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let first = wire.any_frame().await.unwrap();
        assert_eq!((first.kind, first.flags), (SETTINGS, 0));
        assert_eq!(first.setting(2), Some(0), "push must be disabled");
        wire.settings(settings).await;
        wire.send(SETTINGS, ACK, 0, &[]).await;
        wire
    }

    /// Whether nobody else has tried to connect.
    pub fn is_quiet(&self) -> bool {
        use futures_util::FutureExt;
        self.listener.accept().now_or_never().is_none()
    }
}

/// A peer that does not listen.
pub struct Stopped {
    pub authority: Authority,
    address: SocketAddr,
    tls: TlsAcceptor,
}

impl Stopped {
    pub async fn listen(self) -> Peer {
        let listener = TcpListener::bind(self.address).await.unwrap();
        Peer { authority: self.authority, listener, tls: self.tls }
    }
}

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The value of a setting in a SETTINGS frame.
    fn setting(&self, id: u16) -> Option<u32> {
        let pairs = self
            .payload
            .chunks_exact(6)
            .map(|p| (u16::from_be_bytes([p[0], p[1]]), [p[2], p[3], p[4], p[5]]));
        pairs.into_iter().find(|pair| pair.0 == id).map(|pair| u32::from_be_bytes(pair.1))
    }
}

/// A connection as the peer sees it.
pub struct Wire {
    pub stream: TlsStream<TcpStream>,
    /// Acknowledgements of SETTINGS that came.
    pub acks: usize,
    /// Header blocks of requests whose bodies are still to come.
    heads: HashMap<u32, Vec<u8>>,
}

impl Wire {
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn settings(&mut self, settings: &[(u16, u32)]) {
        let pair = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat();
        let payload = settings.iter().flat_map(pair).collect::<Vec<u8>>();
        self.send(SETTINGS, 0, 0, &payload).await;
    }

    /// The next frame, or nothing at the end of the connection.
    pub async fn any_frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        timeout(LONG, self.stream.read_exact(&mut head)).await.expect("a frame or the end").ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        self.acks += usize::from((head[3], head[4]) == (SETTINGS, ACK));
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame that is about more than flow control and acknowledgement.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            let frame = self.any_frame().await?;
            if frame.kind != WINDOW_UPDATE && !(frame.kind == SETTINGS && frame.flags == ACK) {
                return Some(frame);
            }
        }
    }

    /// Reads until a request is whole; its stream and header block. Requests may come interleaved.
    pub async fn request(&mut self) -> (u32, Vec<u8>) {
        loop {
            let frame = self.frame().await.expect("a request");
            match frame.kind {
                HEADERS => {
                    assert_eq!(frame.flags & END_HEADERS, END_HEADERS, "{frame:?}");
                    self.heads.insert(frame.stream, frame.payload);
                }
                DATA => assert!(self.heads.contains_key(&frame.stream), "{frame:?}"),
                _ => panic!("{frame:?}"),
            }
            if frame.flags & END_STREAM != 0 {
                return (frame.stream, self.heads.remove(&frame.stream).unwrap());
            }
        }
    }

    /// Status 200 without a body.
    pub async fn answer(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88]).await;
    }

    /// Serves one request with 200; its stream.
    pub async fn serve(&mut self) -> u32 {
        let (stream, _) = self.request().await;
        self.answer(stream).await;
        stream
    }

    pub async fn goaway(&mut self, last_stream: u32, code: u32, debug: &[u8]) {
        let payload = [&last_stream.to_be_bytes()[..], &code.to_be_bytes()[..], debug].concat();
        self.send(GOAWAY, 0, 0, &payload).await;
    }

    pub async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// Waits for the client to close in order: a GOAWAY, then the end.
    pub async fn closed(&mut self) {
        let frame = self.frame().await.expect("GOAWAY");
        assert_eq!(frame.kind, GOAWAY, "{frame:?}");
        assert!(self.frame().await.is_none());
    }
}
