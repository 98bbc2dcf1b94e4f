//! An HTTP client for everything that is no push service: collectors of traces, and other Pushlet servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no client, in one sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(String);

/// Trusts the system's authorities and those in the PEM files; follows no redirects and uses no proxy.
pub fn client(extra_roots: &[PathBuf]) -> Result<reqwest::Client, ClientError> {
    let failed = |error: &dyn std::fmt::Display| ClientError(format!("TLS can not start: {error}"));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in extra_roots {
        for root in certificates(path)? {
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

/// The certificates in a PEM file; none is an error.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let wrong = |why: &dyn std::fmt::Display| ClientError(format!("{}: {why}", path.display()));
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?.collect();
    match found.map_err(|error| wrong(&error))? {
        none if none.is_empty() => Err(wrong(&"it holds no certificate in PEM format")),
        some => Ok(some),
    }
}
