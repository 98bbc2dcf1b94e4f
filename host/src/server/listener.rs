//! What callers connect to: the listening socket, its certificate, and the file descriptors that connections take.

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;

use pushlet_settings::{Problem, TlsConfig, secrets};
use pushlet_transport::read_certificates;

/// Connections that wait to be accepted. One more is dropped by the kernel, and its caller tries again after a
/// second; the library's own number, 128, is too few where many begin at once.
const BACKLOG: u32 = 4096;

/// Opens the listening socket.
pub fn listen(address: SocketAddr, scheme: &str) -> Result<TcpListener, Problem> {
    let listener = bound(address);
    let listening = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) =
        listening.map_err(|error| Problem::new(format_args!("cannot listen on {address}: {error}")))?;
    tracing::info!("pushlet {} is listening on {scheme}://{address}", env!("CARGO_PKG_VERSION"));
    Ok(listener)
}

fn bound(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // So that a new process can listen while connections of the one before it end.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Creates what accepts TLS, if it is configured. TLS 1.2 and 1.3; HTTP/2 and HTTP/1.1.
pub fn acceptor(config: &TlsConfig) -> Result<Option<TlsAcceptor>, Problem> {
    let (cert, key) = match (&config.cert, &config.key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        _ => return Err(Problem::new("tls.cert and tls.key belong together: one of them is not set")),
    };
    secrets::check_file("tls.key", key)?;
    let chain = read_certificates(cert).map_err(|why| Problem::new(format_args!("tls.cert: {why}")))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| Problem::new(format_args!("tls.key: {}: {error}", key.display())))?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| Problem::new(format_args!("tls.cert and tls.key: {error}")))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

/// Descriptors for everything but callers' connections: those to push services, files, and connections that are being
/// closed while others take their place.
const OTHERS: u64 = 256;

/// Raises the soft limit to the hard one, and returns how many of these connections there may be. If they did not
/// fit, accepting one more would fail, and those that are idle would not make room for it.
pub fn that_fit(connections: usize) -> usize {
    let limit = raised();
    let fit = fitting(connections, limit);
    if fit < connections {
        tracing::warn!(
            "limits.connections is {connections}, but this process may have {} file descriptors: \
             at most {fit} connections are served; raise the hard limit (ulimit -Hn, LimitNOFILE) to {} or more",
            limit.unwrap_or_default(),
            connections as u64 + OTHERS,
        );
    }
    fit
}

/// Raises the soft limit to the hard one. Returns the limit that holds now; None: there is none.
fn raised() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    if before.current != before.maximum
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(%error, "the limit of file descriptors cannot be raised");
    }
    getrlimit(Resource::Nofile).current
}

fn fitting(connections: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return connections };
    // Where there are very few, others must not have them all.
    let for_callers = limit.saturating_sub(OTHERS).max(limit / 2).max(1);
    connections.min(usize::try_from(for_callers).unwrap_or(usize::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use futures_util::future::try_join_all;
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// Connections are not accepted: what exceeds the backlog is not connected at all.
    #[tokio::test]
    async fn many_may_connect_at_once() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), "http").unwrap();
        let address = listener.local_addr().unwrap();
        let all = try_join_all((0..400).map(|_| TcpStream::connect(address)));
        assert_eq!(timeout(Duration::from_secs(30), all).await.unwrap().unwrap().len(), 400);
    }

    #[test]
    fn connections_fit_into_the_limit() {
        assert_eq!(fitting(1024, None), 1024);
        assert_eq!(fitting(1024, Some(1 << 20)), 1024);
        assert_eq!(fitting(1024, Some(1280)), 1024);
        assert_eq!(fitting(1024, Some(1024)), 768);
        assert_eq!(fitting(1024, Some(256)), 128);
        assert_eq!(fitting(1024, Some(0)), 1);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        that_fit(1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
