//! TLS as a client: who is trusted and who we are.

use std::fmt;
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use super::error::SetupError;
use super::message::ClientIdentity;
use super::settings::TransportSettings;

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

    /// A configuration of its own, so that TLS sessions are not resumed across identities.
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
