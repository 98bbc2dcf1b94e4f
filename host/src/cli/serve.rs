//! `pushlet serve`: from the configuration to a server that has ended.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use super::signals;
use crate::server::{self, Server};
use crate::{bootstrap, simulator};
use pushlet_api::log;
use pushlet_api::telemetry::Tracer;
use pushlet_api::{self as http, UnderWay, Watch};
use pushlet_settings::{Config, Problem};
use pushlet_transport::http_client;

/// At the end: for closing the connections to the push services, which have no request in flight.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// At the end: for the last spans.
const EXPORT_TIME: Duration = Duration::from_secs(2);

/// `simulator`: how it runs, if it shall run too.
pub async fn run(mut config: Config, simulator: Option<&simulator::Options>) -> Result<(), Problem> {
    let _flush = log::start(&config.log);
    config.limits.connections = server::connections_that_fit(config.limits.connections);
    let callers = config.callers()?;
    let tls = server::acceptor(&config.tls)?;
    let stop = signals::stop()?;
    let _simulator = match simulator {
        Some(options) => Some(simulator::start(&mut config, options).await?),
        None => None,
    };
    let gateway = bootstrap::gateway(&config)?;
    let client = http_client(&config.tls.extra_roots).map_err(Problem::new)?;
    let (tracer, exporting) = Tracer::start(&config.telemetry, client)?.unzip();
    let watch = Watch::new(tracer, config.metrics.listen.is_some());
    let (router, under_way) = http::router(gateway.clone(), &config.limits, &callers, &watch);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listener = listen(config.listen, scheme)?;
    let (ended, mut end) = watch::channel(());
    let watching = match config.metrics.listen {
        Some(address) => {
            let router = http::watch_router(gateway.clone(), &config.limits, &watch, &under_way);
            let server = Server::new(router, UnderWay::at_most(config.limits.requests), None, &config);
            let listener = listen(address, "http")?;
            Some(tokio::spawn(server.run(listener, async move {
                // Also when the other end is dropped.
                let _ = end.changed().await;
            })))
        }
        None => None,
    };
    Server::new(router, under_way, tls, &config).run(listener, stop).await;
    drop(ended);
    if let Some(watching) = watching {
        watching.await.map_err(Problem::new)?;
    }
    drop(watch);
    gateway.close(CLOSE_TIME).await;
    if let Some(exporting) = exporting {
        exporting.ended(EXPORT_TIME).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Connections that wait to be accepted. One more is dropped by the kernel, and its caller tries again after a
/// second; the library's own number, 128, is too few where many begin at once.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr, scheme: &str) -> Result<TcpListener, Problem> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
}
