//! The certificate that callers see.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use pushlet_settings::{Problem, TlsConfig, private};

/// What accepts TLS, if it is configured. TLS 1.2 and 1.3; HTTP/2 and HTTP/1.1.
pub fn acceptor(config: &TlsConfig) -> Result<Option<TlsAcceptor>, Problem> {
    let (cert, key) = match (&config.cert, &config.key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        _ => return Err(Problem::new("tls.cert and tls.key belong together: one of them is not set")),
    };
    private::check_file("tls.key", key)?;
    let chain = read_chain(cert)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| Problem::new(format_args!("tls.key: {}: {error}", key.display())))?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| Problem::new(format_args!("tls.cert and tls.key: {error}")))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let wrong =
        |why: &dyn std::fmt::Display| Problem::new(format_args!("tls.cert: {}: {why}", path.display()));
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    match chain {
        Ok(chain) if chain.is_empty() => Err(wrong(&"the file holds no certificate")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(wrong(&error)),
    }
}
