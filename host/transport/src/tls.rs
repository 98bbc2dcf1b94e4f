//! TLS as a client: trusted roots and client certificates; and an HTTP client for everything that is not a push
//! service: collectors of traces, and other Pushlet servers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use reqwest::redirect::Policy;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::TransportSettings;
use super::error::SetupError;
use super::request::ClientIdentity;

/// TLS sessions that can be resumed: what rustls keeps for one server.
const TICKETS: usize = 8;

/// Makes the configurations, which all trust the same roots.
pub(super) struct TlsConfigs {
    roots: Arc<TrustedRoots>,
    provider: Arc<CryptoProvider>,
}

impl TlsConfigs {
    pub fn new(settings: &TransportSettings) -> Result<Self, SetupError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verifier(&settings.extra_roots, &provider)?;
        Ok(TlsConfigs { roots: Arc::new(TrustedRoots(ArcSwap::new(verifier))), provider })
    }

    /// Reads the system's roots again, and trusts these in addition from now on.
    pub fn set_extra_roots(&self, extra: &[CertificateDer<'static>]) -> Result<(), SetupError> {
        self.roots.0.store(verifier(extra, &self.provider)?);
        Ok(())
    }

    /// Creates a configuration for one identity, so that TLS sessions are not resumed across identities.
    pub fn config(&self, identity: &ClientIdentity, alpn: &[&[u8]]) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(self.roots.clone());
        let mut config = match identity {
            ClientIdentity::Certificate(certificate) => {
                builder.with_client_cert_resolver(Arc::new(OneCertificate(certificate.key.clone())))
            }
            ClientIdentity::Anonymous | ClientIdentity::Token(_) => builder.with_no_client_auth(),
        };
        // A configuration is for one server; the default has room for 32, and there are thousands of configurations.
        config.resumption = Resumption::in_memory_sessions(TICKETS);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}

/// Trusts the system's roots and these.
fn verifier(
    extra: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, SetupError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for root in extra {
        roots.add(root.clone()).map_err(SetupError::InvalidRoot)?;
    }
    // The only reason why there would be none.
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|_| SetupError::NoRoots)
}

/// rustls' own verifier, which can be replaced by one with other roots. Configurations and their connections stay.
#[derive(Debug)]
struct TrustedRoots(ArcSwap<WebPkiServerVerifier>);

impl ServerCertVerifier for TrustedRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.load().verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.load().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.load().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().supported_verify_schemes()
    }
}

/// Shows the same certificate to every server that asks for one.
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OneCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for OneCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneCertificate")
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no client, in one sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(String);

/// Trusts the system's authorities and those in the PEM files; follows no redirects and uses no proxy.
pub fn http_client(extra_roots: &[PathBuf]) -> Result<reqwest::Client, ClientError> {
    let failed = |error: &dyn std::fmt::Display| ClientError(format!("TLS cannot start: {error}"));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in extra_roots {
        for root in read_certificates(path)? {
            roots.add(root).map_err(|error| failed(&error))?;
        }
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| failed(&error))
}

/// Reads the certificates in a PEM file; a file without any is an error.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let wrong = |why: &dyn std::fmt::Display| ClientError(format!("{}: {why}", path.display()));
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?.collect();
    match found.map_err(|error| wrong(&error))? {
        none if none.is_empty() => Err(wrong(&"it holds no certificate in PEM format")),
        some => Ok(some),
    }
}
