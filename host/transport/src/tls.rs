//! TLS as a client: trusted roots and client certificates; and an HTTP client for everything that is not a push
//! service: collectors of traces, and other Pushlet servers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use super::TransportSettings;
use super::error::SetupError;
use super::request::ClientIdentity;

/// TLS sessions that can be resumed: what rustls keeps for one server.
const TICKETS: usize = 8;

/// The trusted roots, read once.
pub(super) struct TlsConfigs {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl TlsConfigs {
    pub fn new(settings: &TransportSettings) -> Result<Self, SetupError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for root in &settings.extra_roots {
            roots.add(root.clone()).map_err(SetupError::InvalidRoot)?;
        }
        if roots.is_empty() {
            return Err(SetupError::NoRoots);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(TlsConfigs { roots: Arc::new(roots), provider })
    }

    /// Creates a configuration for one identity, so that TLS sessions are not resumed across identities.
    pub fn config(&self, identity: &ClientIdentity, alpn: &[&[u8]]) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone());
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
