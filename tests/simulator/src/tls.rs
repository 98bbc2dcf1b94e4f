//! TLS of both listeners, and what a client certificate says.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{Issuer, KeyPair};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::X509Certificate;

use crate::connections::ClientCertificate;
use crate::credentials::{self, Material};
use crate::error::StartError;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// userId, where Apple puts the topic.
const USER_ID: &str = "0.9.2342.19200300.100.1.1";
const APPLE_DEVELOPMENT: &str = "1.2.840.113635.100.6.3.1";
const APPLE_PRODUCTION: &str = "1.2.840.113635.100.6.3.2";
const APPLE_VOIP: &str = "1.2.840.113635.100.6.3.4";
const APPLE_TOPICS: &str = "1.2.840.113635.100.6.3.6";

/// A client certificate, as APNs reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    pub certificate: ClientCertificate,
    /// The UID, or the list of Apple's topic extension; empty where there is neither.
    pub topics: Vec<String>,
    pub development: bool,
    pub production: bool,
}

/// HTTP/2 only; a client certificate is optional, but one that is shown must be the simulator's and in date.
pub(crate) fn apns_config(material: &Material) -> Result<TlsAcceptor, StartError> {
    let mut roots = RootCertStore::empty();
    roots.add(material.ca.clone()).map_err(broken)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .allow_unauthenticated()
        .build()
        .map_err(broken)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(broken)?
        .with_client_cert_verifier(verifier);
    // A client that offers no protocol at all is taken to speak HTTP/2, as Apple does.
    acceptor(builder, material, &[b"h2"])
}

/// HTTP/2 and HTTP/1.1, no client certificate.
pub(crate) fn google_config(material: &Material) -> Result<TlsAcceptor, StartError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(broken)?
        .with_no_client_auth();
    acceptor(builder, material, &[b"h2", b"http/1.1"])
}

/// HTTP/2 and HTTP/1.1, for whatever name a client asks for; any client certificate. Returns its new authority too.
pub(crate) fn any_name_config() -> Result<(TlsAcceptor, CertificateDer<'static>), StartError> {
    let (authority, issuer) = credentials::new_authority()?;
    let key = credentials::new_key()?;
    let signing = any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into())).map_err(broken)?;
    let names = NewCertificates { issuer, key, signing, made: Mutex::default() };
    let algorithms = default_provider().signature_verification_algorithms;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(broken)?
        .with_client_cert_verifier(Arc::new(AnyClient(algorithms)))
        .with_cert_resolver(Arc::new(names));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), authority))
}

/// Names whose certificates are kept.
const MOST_NAMES: usize = 1000;

/// A certificate for each name that a client asks for, made when it is needed.
struct NewCertificates {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for NewCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewCertificates")
    }
}

impl ResolvesServerCert for NewCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A client that asks for no name dials an address.
        let name = hello.server_name().unwrap_or("127.0.0.1");
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(name) {
            return Some(known.clone());
        }
        let certificate = credentials::server_certificate_for(name, &self.key, &self.issuer).ok()?;
        let new = Arc::new(CertifiedKey::new(vec![certificate], self.signing.clone()));
        if made.len() >= MOST_NAMES {
            made.clear();
        }
        made.insert(name.to_owned(), new.clone());
        Some(new)
    }
}

/// Takes any client certificate whose key the client has, and none too.
#[derive(Debug)]
struct AnyClient(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// A byte stream without ALPN. `with_certificate`: the client must show a certificate of the simulator's.
pub(crate) fn stream_config(material: &Material, with_certificate: bool) -> Result<TlsAcceptor, StartError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(broken)?;
    if !with_certificate {
        return acceptor(builder.with_no_client_auth(), material, &[]);
    }
    let mut roots = RootCertStore::empty();
    roots.add(material.ca.clone()).map_err(broken)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    acceptor(builder.with_client_cert_verifier(verifier.build().map_err(broken)?), material, &[])
}

/// The handshake; `None` where it failed or took too long.
pub(crate) async fn handshake(acceptor: &TlsAcceptor, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
    tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await.ok()?.ok()
}

/// What the client's certificate says, if it showed one.
pub(crate) fn identity(tls: &TlsStream<TcpStream>) -> Option<ClientIdentity> {
    let certificates = tls.get_ref().1.peer_certificates()?;
    read_identity(certificates.first()?)
}

fn read_identity(der: &CertificateDer<'_>) -> Option<ClientIdentity> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let has =
        |oid: &str| certificate.extensions().iter().any(|extension| extension.oid.to_id_string() == oid);
    let (development, production) = (has(APPLE_DEVELOPMENT), has(APPLE_PRODUCTION));
    // VoIP certificates and those with a list of topics are good for both, where no mark says otherwise.
    let universal = !development && !production && (has(APPLE_VOIP) || has(APPLE_TOPICS));
    Some(ClientIdentity {
        certificate: ClientCertificate {
            sha256: hex::encode(ring::digest::digest(&ring::digest::SHA256, der)),
            subject: certificate.subject().to_string(),
        },
        topics: topics(&certificate),
        development: development || universal,
        production: production || universal,
    })
}

fn topics(certificate: &X509Certificate<'_>) -> Vec<String> {
    let list = certificate.extensions().iter().find(|extension| extension.oid.to_id_string() == APPLE_TOPICS);
    if let Some(topics) = list.and_then(|extension| topic_list(extension.value).ok()) {
        return topics;
    }
    let attributes = certificate.subject().iter_attributes();
    let uid = attributes.into_iter().find(|attribute| attribute.attr_type().to_id_string() == USER_ID);
    uid.and_then(|attribute| attribute.as_str().ok()).map(str::to_owned).into_iter().collect()
}

/// SEQUENCE of topic, tags, topic, tags, ….
fn topic_list(der: &[u8]) -> yasna::ASN1Result<Vec<String>> {
    let mut topics = Vec::new();
    yasna::parse_der(der, |reader| {
        reader.read_sequence_of(|item| {
            if item.lookahead_tag()? == yasna::tags::TAG_UTF8STRING {
                topics.push(item.read_utf8string()?);
            } else {
                item.read_der()?;
            }
            Ok(())
        })
    })?;
    Ok(topics)
}

fn acceptor(
    builder: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
    material: &Material,
    protocols: &[&[u8]],
) -> Result<TlsAcceptor, StartError> {
    let chain = vec![material.server_certificate.clone()];
    let mut config = builder.with_single_cert(chain, material.server_key.clone_key()).map_err(broken)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn broken(problem: impl std::fmt::Display) -> StartError {
    StartError::Make(problem.to_string())
}
