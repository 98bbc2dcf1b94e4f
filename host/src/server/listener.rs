//! What callers connect to: the listening sockets, their certificate, and the file descriptors that connections take.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use pushlet_credential::certificate_end;
use pushlet_settings::{CallerConfig, ListenAddress, Problem, TlsConfig, secrets};
use pushlet_transport::read_certificates;

/// Connections that wait to be accepted. One more is dropped by the kernel, and its caller tries again after a
/// second; the library's own number, 128, is too few where many begin at once.
const BACKLOG: u32 = 4096;

/// The listening sockets of one server.
pub struct Listeners {
    sockets: Vec<Listener>,
    /// The socket that is asked first for the next connection, so that none waits for the others.
    first: AtomicUsize,
    /// Another process listens on the same address.
    shared: bool,
}

enum Listener {
    Tcp(TcpListener),
    /// With the path of the socket, if it is removed at the end.
    Unix(UnixListener, Option<PathBuf>),
}

/// An accepted connection, which no runtime has yet.
pub enum CallerStream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// Sockets that the service manager opened (`LISTEN_FDS`); see sd_listen_fds(3).
pub struct InheritedSockets(ListenFd);

impl InheritedSockets {
    /// Takes the sockets, of which the environment says how many there are. Call it before there are other threads,
    /// since it changes the environment.
    pub fn take() -> Self {
        Self(ListenFd::from_env())
    }

    /// Returns the socket with this number, counted from 0. `callers`: None: any machine may reach it.
    pub fn listener(
        &mut self,
        number: usize,
        callers: Option<&CallerConfig>,
    ) -> Result<Option<Listeners>, Problem> {
        if number >= self.0.len() {
            return Ok(None);
        }
        let wrong = |error: io::Error| Problem::new(format_args!("socket {number} of LISTEN_FDS: {error}"));
        let socket = match self.0.take_tcp_listener(number) {
            Ok(socket) => {
                let socket = socket.ok_or_else(|| wrong(io::ErrorKind::NotFound.into()))?;
                socket.set_nonblocking(true).map_err(wrong)?;
                let address = socket.local_addr().map_err(wrong)?;
                callers.map_or(Ok(()), |callers| callers.may_listen(&ListenAddress::Ip(address)))?;
                Listener::Tcp(TcpListener::from_std(socket).map_err(wrong)?)
            }
            Err(_) => {
                let socket = self.0.take_unix_listener(number).map_err(wrong)?;
                let socket = socket.ok_or_else(|| wrong(io::ErrorKind::NotFound.into()))?;
                socket.set_nonblocking(true).map_err(wrong)?;
                Listener::Unix(UnixListener::from_std(socket).map_err(wrong)?, None)
            }
        };
        Ok(Some(Listeners::of(vec![socket])))
    }
}

impl From<TcpListener> for Listeners {
    fn from(socket: TcpListener) -> Self {
        Self::of(vec![Listener::Tcp(socket)])
    }
}

impl Listeners {
    /// Opens the sockets of an address. `reuse_port`: another process may have opened them too.
    pub fn open(address: &ListenAddress, reuse_port: bool) -> Result<Self, Problem> {
        let wrong = |error: io::Error| Problem::new(format_args!("cannot listen on {address}: {error}"));
        let bound = |address| bound(address, reuse_port).map(Listener::Tcp);
        let sockets = match address {
            ListenAddress::Ip(address) => vec![bound(*address).map_err(wrong)?],
            ListenAddress::Name(name, port) => {
                let addresses = (name.as_str(), *port).to_socket_addrs().map_err(wrong)?;
                addresses.map(bound).collect::<io::Result<_>>().map_err(wrong)?
            }
            ListenAddress::Unix(path) => {
                remove_stale(path).map_err(wrong)?;
                vec![Listener::Unix(UnixListener::bind(path).map_err(wrong)?, Some(path.clone()))]
            }
        };
        Ok(Self { shared: reuse_port, ..Self::of(sockets) })
    }

    fn of(sockets: Vec<Listener>) -> Self {
        Self { sockets, first: AtomicUsize::new(0), shared: false }
    }

    /// Logs where callers connect to.
    pub fn announce(&self, scheme: &str) -> Result<(), Problem> {
        for socket in &self.sockets {
            let address = match socket {
                Listener::Tcp(socket) => format!("{scheme}://{}", socket.local_addr().map_err(Problem::new)?),
                Listener::Unix(_, Some(path)) => format!("unix:{}", path.display()),
                Listener::Unix(_, None) => "a UNIX socket".to_owned(),
            };
            tracing::info!("pushlet {} is listening on {address}", env!("CARGO_PKG_VERSION"));
        }
        Ok(())
    }

    /// Accepts a connection; callers of a UNIX socket count as callers from this machine.
    pub async fn accept(&self) -> io::Result<(CallerStream, SocketAddr)> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(CallerStream, SocketAddr)>> {
        let first = self.first.fetch_add(1, Ordering::Relaxed);
        for number in 0..self.sockets.len() {
            let accepted = match &self.sockets[(first.wrapping_add(number)) % self.sockets.len()] {
                Listener::Tcp(socket) => {
                    // The reactor that it is registered with is that of the thread which serves it.
                    let detached = |(stream, peer): (TcpStream, SocketAddr)| {
                        Ok((CallerStream::Tcp(stream.into_std()?), peer))
                    };
                    socket.poll_accept(context).map(|accepted| accepted.and_then(detached))
                }
                Listener::Unix(socket, _) => {
                    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                    let detached = |stream: UnixStream| Ok((CallerStream::Unix(stream.into_std()?), peer));
                    socket
                        .poll_accept(context)
                        .map(|accepted| accepted.and_then(|(stream, _)| detached(stream)))
                }
            };
            if accepted.is_ready() {
                return accepted;
            }
        }
        Poll::Pending
    }

    /// Lets no more connections come where another process listens too: they go to that one. Those that wait to be
    /// accepted would be lost with the socket, so they are still to be accepted.
    pub fn refuse_new(&self) {
        for socket in self.sockets.iter().filter(|_| self.shared) {
            if let Listener::Tcp(socket) = socket
                && let Err(error) = rustix::net::listen(socket, 0)
            {
                tracing::warn!(%error, "connections that come now may be lost");
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, Some(path)) = self {
            // Without a listener, callers would see an error either way.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bound(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // So that a new process can listen while connections of the one before it end.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Removes a socket that a process left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(file) if !file.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(io::ErrorKind::AddrInUse.into())
        }
        Ok(_) => std::fs::remove_file(path),
    }
}

/// The certificate that callers are shown; it can be replaced. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerCertificate(Arc<ArcSwap<CertifiedKey>>);

impl ServerCertificate {
    /// Replaces it by what the files hold now. Returns true if that is another one.
    pub fn reload(&self, config: &TlsConfig) -> Result<bool, Problem> {
        let Some(key) = certified_key(config)? else { return Ok(false) };
        let is_other = self.0.load().cert != key.cert;
        self.0.store(Arc::new(key));
        Ok(is_other)
    }

    /// Returns the end of its validity in seconds since the Unix epoch.
    pub fn ends_at(&self) -> Option<i64> {
        certificate_end(self.0.load().cert.first()?)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Creates what accepts TLS, if it is configured. TLS 1.2 and 1.3; HTTP/2 and HTTP/1.1.
pub fn acceptor(config: &TlsConfig) -> Result<Option<TlsAcceptor>, Problem> {
    Ok(reloadable_acceptor(config)?.map(|(acceptor, _)| acceptor))
}

/// The same, with its certificate.
pub fn reloadable_acceptor(config: &TlsConfig) -> Result<Option<(TlsAcceptor, ServerCertificate)>, Problem> {
    let Some(key) = certified_key(config)? else { return Ok(None) };
    let certificate = ServerCertificate(Arc::new(ArcSwap::from_pointee(key)));
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Problem::new(format_args!("tls.cert and tls.key: {error}")))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate.clone()));
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some((TlsAcceptor::from(Arc::new(server)), certificate)))
}

/// Reads the certificate and its key, and checks that they belong together.
fn certified_key(config: &TlsConfig) -> Result<Option<CertifiedKey>, Problem> {
    let (cert, key) = match (&config.cert, &config.key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        _ => return Err(Problem::new("tls.cert and tls.key belong together: one of them is not set")),
    };
    secrets::check_file("tls.key", key)?;
    let chain = read_certificates(cert).map_err(|why| Problem::new(format_args!("tls.cert: {why}")))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| Problem::new(format_args!("tls.key: {}: {error}", key.display())))?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
    certified.map(Some).map_err(|error| Problem::new(format_args!("tls.cert and tls.key: {error}")))
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
        let listener = bound("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = listener.local_addr().unwrap();
        let all = try_join_all((0..400).map(|_| TcpStream::connect(address)));
        assert_eq!(timeout(Duration::from_secs(30), all).await.unwrap().unwrap().len(), 400);
    }

    #[tokio::test]
    async fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_or_another_file_is_not() {
        let path = std::env::temp_dir().join(format!("pushlet-listener-{}.sock", uuid::Uuid::new_v4()));
        let address = ListenAddress::Unix(path.clone());
        let open = || Listeners::open(&address, false).map(drop).map_err(|problem| problem.to_string());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listeners = Listeners::open(&address, false).unwrap();
        assert!(open().unwrap_err().contains("in use"));
        let connecting = tokio::spawn(UnixStream::connect(path.clone()));
        let (stream, peer) = listeners.accept().await.unwrap();
        assert!(matches!(stream, CallerStream::Unix(_)) && peer.ip().is_loopback());
        connecting.await.unwrap().unwrap();
        drop(listeners);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        assert!(open().unwrap_err().contains("exists"));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_name_is_all_of_its_addresses_and_two_servers_share_a_port_only_if_they_are_told_to() {
        let name = ListenAddress::parse("localhost:0").unwrap();
        assert!(!Listeners::open(&name, false).unwrap().sockets.is_empty());
        let first = bound("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let address = first.local_addr().unwrap();
        assert!(bound(address, false).is_err());
        bound(address, true).unwrap();
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
