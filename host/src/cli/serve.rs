//! `pushlet serve`: from the configuration to an orderly end.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::reload::{InForce, Reloader, notify};
use crate::server::{self, InheritedSockets, Listeners, Server, ServerCertificate, ShardThreads};
use crate::{bootstrap, program_pages, simulator};
use pushlet_api as http;
use pushlet_api::telemetry::{Exports, RunningExports, Telemetry};
use pushlet_api::{InFlightRequests, LiveConfig, Observability, log};
use pushlet_gateway::Gateway;
use pushlet_settings::{Config, ConfigLayers, ListenAddress, Problem};
use pushlet_transport::http_client;

/// At the end: for closing the connections to the push services, which have no request in flight.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// At the end: for the last spans, log records and metrics.
const EXPORT_TIME: Duration = Duration::from_secs(2);

/// `simulator`: its options, if it runs too.
///
/// `read`: reads the configuration again.
pub async fn run(
    (started, read): (ConfigLayers, Box<dyn Fn() -> Result<ConfigLayers, Problem> + Send + Sync>),
    mut sockets: InheritedSockets,
    simulator: Option<&simulator::Options>,
) -> Result<(), Problem> {
    let mut config = started.clone().finish()?;
    let instance = format!("{}/{}", bootstrap::node_name(), config.listen);
    let (telemetry, exports) = Telemetry::new(&config.telemetry, &instance).unzip();
    let log = Arc::new(log::start(&config.log, telemetry.as_ref()));
    config.limits.connections = server::connections_that_fit(config.limits.connections);
    let callers = config.callers()?;
    let (tls, certificate) = server::reloadable_acceptor(&config.tls)?.unzip();
    // Before the slow part of the start, so that a signal during it is not lost.
    let stop = stop_signal()?;
    let hangup = listen_for(SignalKind::hangup())?;
    let _simulator = match simulator {
        Some(options) => Some(simulator::start(&mut config, options).await?),
        None => None,
    };
    let gateway = bootstrap::gateway(&config)?;
    bootstrap::register_files(&config, &gateway).await?;
    let observability = Observability::new(telemetry, config.metrics.listen.is_some());
    observability.set_certificate_end(certificate.as_ref().and_then(ServerCertificate::ends_at));
    let live = LiveConfig::new(&callers);
    let (router, in_flight) =
        http::router_with(gateway.clone(), &config.limits, (&callers, &live), &observability);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listeners = match sockets.listener(0, Some(&callers))? {
        Some(listeners) => listeners,
        None => Listeners::open(&config.listen, config.reuse_port)?,
    };
    listeners.announce(scheme)?;
    let (ended, end) = watch::channel(());
    let metrics = http::metrics_router(gateway.clone(), &config.limits, &observability, &in_flight);
    let watching = serve_metrics(metrics, &config, &mut sockets, end)?;
    let exporting = exports.map(|exports| export(exports, &config, &gateway, &observability, &in_flight));
    let exporting = exporting.transpose()?;
    let reloader = Arc::new(Reloader {
        read,
        current: Mutex::new(InForce {
            layers: started.clone(),
            callers,
            extra_roots: bootstrap::extra_roots(&config)?,
        }),
        started,
        live,
        certificate,
        observability: observability.clone(),
        gateway: gateway.clone(),
        log: log.clone(),
    });
    reloader.on_request();
    let reloading = tokio::spawn(reloader.on_signal(hangup));
    notify(&[NotifyState::Ready]);
    let threads =
        ShardThreads::start().map_err(|error| Problem::new(format_args!("cannot start threads: {error}")))?;
    let mut server = Server::new(router, in_flight, tls, &config);
    server.shards = Some(threads.shards().clone());
    let told = async {
        stop.await;
        notify(&[NotifyState::Stopping]);
    };
    program_pages::unmap();
    server.run(listeners, told).await;
    reloading.abort();
    drop(ended);
    if let Some(watching) = watching {
        watching.await.map_err(Problem::new)?;
    }
    gateway.close(CLOSE_TIME).await;
    // Until now, its connections to push services were driven there.
    drop(threads);
    tracing::info!("stopped");
    if let Some(exporting) = exporting {
        let log = log.clone();
        tokio::task::spawn_blocking(move || log.settle()).await.map_err(Problem::new)?;
        exporting.end(EXPORT_TIME).await;
    }
    // The last to go, so that every line is written.
    drop(log);
    Ok(())
}

/// Starts the export to a collector.
fn export(
    exports: Exports,
    config: &Config,
    gateway: &Gateway,
    observability: &Observability,
    in_flight: &InFlightRequests,
) -> Result<RunningExports, Problem> {
    let client = http_client(&config.tls.extra_roots).map_err(Problem::new)?;
    let (gateway, limits) = (gateway.clone(), config.limits.clone());
    let (observability, in_flight) = (observability.clone(), in_flight.clone());
    Ok(exports.start(client, move || http::metrics_text(&gateway, &limits, &observability, &in_flight).ok()))
}

/// Serves metrics and health checks on their own address, if there is one, until `end`.
fn serve_metrics(
    router: Router,
    config: &Config,
    sockets: &mut InheritedSockets,
    mut end: watch::Receiver<()>,
) -> Result<Option<JoinHandle<()>>, Problem> {
    let Some(address) = config.metrics.listen else { return Ok(None) };
    let listeners = match sockets.listener(1, None)? {
        Some(listeners) => listeners,
        None => Listeners::open(&ListenAddress::Ip(address), config.reuse_port)?,
    };
    listeners.announce("http")?;
    let in_flight = InFlightRequests::at_most(config.limits.requests);
    // It ends after the server that callers know.
    let server = Server { lame_duck: Duration::ZERO, ..Server::new(router, in_flight, None, config) };
    Ok(Some(tokio::spawn(server.run(listeners, async move {
        // Also when the other end is dropped.
        let _ = end.changed().await;
    }))))
}

/// Returns a future that completes with the first signal. Signals are caught from now on.
pub fn stop_signal() -> Result<impl Future<Output = ()>, Problem> {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
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

fn listen_for(kind: SignalKind) -> Result<Signal, Problem> {
    signal(kind).map_err(|error| Problem::new(format_args!("cannot listen for signals: {error}")))
}

async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
