//! `pushlet serve`: from the configuration to a server that has ended.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::signals;
use crate::config::{Config, Problem};
use crate::http::{self, UnderWay, Watch};
use crate::server::{self, Server};
use crate::telemetry::Tracer;
use crate::{log, simulated, start};

/// At the end: for closing the connections to the push services, on which nothing is under way any more.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// At the end: for the last spans.
const EXPORT_TIME: Duration = Duration::from_secs(2);

/// `simulator`: where its files go, if it shall run too.
pub async fn run(mut config: Config, simulator: Option<&Path>) -> Result<(), Problem> {
    log::start(&config.log);
    let callers = config.callers()?;
    let tls = server::acceptor(&config.tls)?;
    let stop = signals::stop()?;
    let _simulator = match simulator {
        Some(directory) => Some(simulated::start(&mut config, directory).await?),
        None => None,
    };
    let gateway = start::gateway(&config)?;
    let (tracer, exporting) = Tracer::start(&config.telemetry, &config.tls.extra_roots)?.unzip();
    let watch = Watch::new(tracer, config.metrics.listen.is_some());
    let backend = Arc::new(gateway.clone());
    let (router, under_way) = http::router(backend.clone(), &config.limits, &callers, &watch);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listener = listen(config.listen, scheme).await?;
    let (ended, mut end) = watch::channel(());
    let watching = match config.metrics.listen {
        Some(address) => {
            let router = http::watch_router(backend, &config.limits, &watch, &under_way);
            let server = Server::new(router, UnderWay::at_most(config.limits.requests), None, &config);
            let listener = listen(address, "http").await?;
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

async fn listen(address: SocketAddr, scheme: &str) -> Result<TcpListener, Problem> {
    let cannot_listen = |error| Problem::new(format_args!("cannot listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    tracing::info!("pushlet {} is listening on {scheme}://{address}", env!("CARGO_PKG_VERSION"));
    Ok(listener)
}
