//! TLS of both listeners, and what a client certificate says.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::X509Certificate;

use crate::connections::ClientCertificate;
use crate::credentials::Material;
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
