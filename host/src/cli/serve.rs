//! `pushlet serve`: from the configuration to an orderly end.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::server::{self, Server};
use crate::{bootstrap, simulator};
use pushlet_api as http;
use pushlet_api::telemetry::Tracer;
use pushlet_api::{InFlightRequests, Observability, log};
use pushlet_settings::{Config, Problem};
use pushlet_transport::http_client;

/// At the end: for closing the connections to the push services, which have no request in flight.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// At the end: for the last spans.
const EXPORT_TIME: Duration = Duration::from_secs(2);

/// `simulator`: its options, if it runs too.
pub async fn run(mut config: Config, simulator: Option<&simulator::Options>) -> Result<(), Problem> {
    let _flush = log::start(&config.log);
    config.limits.connections = server::connections_that_fit(config.limits.connections);
    let callers = config.callers()?;
    let tls = server::acceptor(&config.tls)?;
    // Before the slow part of the start, so that a signal during it is not lost.
    let stop = stop_signal()?;
    let _simulator = match simulator {
        Some(options) => Some(simulator::start(&mut config, options).await?),
        None => None,
    };
    let gateway = bootstrap::gateway(&config)?;
    let client = http_client(&config.tls.extra_roots).map_err(Problem::new)?;
    let (tracer, exporting) = Tracer::start(&config.telemetry, client)?.unzip();
    let observability = Observability::new(tracer, config.metrics.listen.is_some());
    let (router, in_flight) = http::router(gateway.clone(), &config.limits, &callers, &observability);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listener = server::listen(config.listen, scheme)?;
    let (ended, mut end) = watch::channel(());
    let watching = match config.metrics.listen {
        Some(address) => {
            let router = http::metrics_router(gateway.clone(), &config.limits, &observability, &in_flight);
            let server =
                Server::new(router, InFlightRequests::at_most(config.limits.requests), None, &config);
            let listener = server::listen(address, "http")?;
            Some(tokio::spawn(server.run(listener, async move {
                // Also when the other end is dropped.
                let _ = end.changed().await;
            })))
        }
        None => None,
    };
    Server::new(router, in_flight, tls, &config).run(listener, stop).await;
    drop(ended);
    if let Some(watching) = watching {
        watching.await.map_err(Problem::new)?;
    }
    drop(observability);
    gateway.close(CLOSE_TIME).await;
    if let Some(exporting) = exporting {
        exporting.ended(EXPORT_TIME).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Returns a future that completes with the first signal. Signals are caught from now on.
pub fn stop_signal() -> Result<impl Future<Output = ()>, Problem> {
    let listen =
        |kind| signal(kind).map_err(|error| Problem::new(format_args!("cannot listen for signals: {error}")));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let (first, stop) = oneshot::channel();
    tokio::spawn(async move {
        next_signal(&mut terminate, &mut interrupt).await;
        let _ = first.send(());
        let number = next_signal(&mut terminate, &mut interrupt).await;
        // As a shell reports a program that a signal ended.
        std::process::exit(128 + number);
    });
    Ok(async {
        let _ = stop.await;
    })
}

async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
