//! The command line: `pushlet serve`, `pushlet simulator`, `pushlet check-config`.

mod arguments;
mod signals;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::config::{Config, Layers, Problem};
use crate::server::{self, Server};
use crate::{http, log, provider, simulated, start};
use arguments::{Action, Arguments};

/// At the end: for closing the connections to the push services, on which nothing is under way any more.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Runs the program. Exit code 0: done; 1: it could not start; 2: the command line is wrong.
pub fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(told) => {
            let code = told.exit_code();
            let _ = told.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    match run(arguments, std::env::vars_os()) {
        Ok(code) => code,
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "pushlet: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    arguments: Arguments,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<ExitCode, Problem> {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Problem::new(format_args!("cannot start threads: {error}")))
    };
    match &arguments.action {
        Action::Compile { memory, cpu } => return Ok(provider::compile(*memory, *cpu)),
        Action::Simulator { directory } => runtime()?.block_on(run_simulator(directory))?,
        Action::CheckConfig => {
            let layers = layers(&arguments, variables)?;
            let shown = layers.shown()?;
            check(&layers.finish()?)?;
            std::io::stdout().write_all(shown.as_bytes()).map_err(Problem::new)?;
        }
        Action::Serve { simulator } => {
            let config = layers(&arguments, variables)?.finish()?;
            runtime()?.block_on(serve(config, simulator.as_deref()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn layers(
    arguments: &Arguments,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Layers, Problem> {
    let mut layers = Layers::new()?;
    if let Some(file) = &arguments.config {
        layers.file(file)?;
    }
    layers.variables(variables)?;
    for (flag, values) in &arguments.flags {
        layers.flag(flag, values)?;
    }
    Ok(layers)
}

/// What can be wrong beyond the single values.
fn check(config: &Config) -> Result<(), Problem> {
    config.login()?;
    server::acceptor(&config.tls)?;
    Ok(())
}

async fn serve(mut config: Config, simulator: Option<&Path>) -> Result<(), Problem> {
    log::start(&config.log);
    let login = config.login()?;
    let tls = server::acceptor(&config.tls)?;
    let stop = signals::stop()?;
    let _simulator = match simulator {
        Some(directory) => Some(simulated::start(&mut config, directory).await?),
        None => None,
    };
    let gateway = start::gateway(&config)?;
    let listen = config.listen;
    let cannot_listen = |error| Problem::new(format_args!("cannot listen on {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!("pushlet {} is listening on {scheme}://{address}", env!("CARGO_PKG_VERSION"));
    let (router, under_way) = http::router(Arc::new(gateway.clone()), &config.limits, login.as_ref());
    Server::new(router, under_way, tls, &config).run(listener, stop).await;
    gateway.close(CLOSE_TIME).await;
    tracing::info!("stopped");
    Ok(())
}

async fn run_simulator(directory: &Path) -> Result<(), Problem> {
    let stop = signals::stop()?;
    let _running = simulated::alone(directory).await?;
    stop.await;
    Ok(())
}
