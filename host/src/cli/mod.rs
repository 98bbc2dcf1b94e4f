//! The command line: the server, its simulators, and the commands for people.

mod arguments;
#[cfg(feature = "simulator")]
mod dev;
mod distribution;
mod kit;
mod reload;
mod serve;
mod templates;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use super::{bootstrap, server, simulator};
use arguments::{CommandAction, CommandLine};
use pushlet_client as client;
use pushlet_model::text::Escaped;
use pushlet_sandbox as provider;
use pushlet_settings as config;
use pushlet_settings::{Config, ConfigLayers, Problem};

/// Runs the program with the arguments of its command line, of which the first is its name. Exit code 0: done;
/// 1: it could not start; 2: the command line is wrong.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match CommandLine::parse(arguments) {
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
            // It may quote a server, a file or a variable.
            let _ = writeln!(std::io::stderr(), "pushlet: {}", Escaped(problem));
            ExitCode::FAILURE
        }
    }
}

fn run(
    arguments: CommandLine,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<ExitCode, Problem> {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Problem::new(format_args!("cannot start threads: {error}")))
    };
    match &arguments.action {
        CommandAction::Simulator(options) => runtime()?.block_on(run_simulator(options))?,
        CommandAction::Client(name, matches) => {
            let runtime = runtime()?;
            let code = runtime.block_on(client::run(name, matches));
            // A thread may still wait for standard input.
            runtime.shutdown_background();
            return code;
        }
        CommandAction::Kit(matches) => return kit::run(matches),
        CommandAction::Distribution(matches) => runtime()?.block_on(distribution::run(matches))?,
        #[cfg(feature = "simulator")]
        CommandAction::Dev(matches) => {
            let runtime = runtime()?;
            let code = runtime.block_on(dev::run(matches));
            // A build may still run.
            runtime.shutdown_background();
            return code;
        }
        CommandAction::Completions(shell) => {
            std::io::stdout().write_all(&arguments::complete(*shell)).map_err(Problem::new)?;
        }
        CommandAction::VapidKey { file } => vapid_key(file)?,
        CommandAction::Compile { memory, cpu } => return Ok(provider::compile(*memory, *cpu)),
        CommandAction::CheckConfig => {
            let layers = layers(&arguments, variables)?;
            let shown = layers.shown()?;
            let config = layers.finish()?;
            check(&config)?;
            // Threads of the sandbox.
            let runtime = runtime()?;
            let _here = runtime.enter();
            bootstrap::check_endpoints(&config)?;
            std::io::stdout().write_all(shown.as_bytes()).map_err(Problem::new)?;
        }
        CommandAction::RotateKey { new_key_file } => {
            let config = layers(&arguments, variables)?.finish()?;
            let new = config::read_secret("--new-key-file", new_key_file)?;
            let count = bootstrap::rotate_key(&config, &new)?;
            let told = format!(
                "{count} records are sealed with the new key: set registry.key or registry.key_file to it\n"
            );
            std::io::stdout().write_all(told.as_bytes()).map_err(Problem::new)?;
        }
        CommandAction::Serve { simulator } => {
            let started = layers(&arguments, variables)?;
            let sockets = server::InheritedSockets::take();
            let simulator = simulator.clone();
            let read = Box::new(move || layers(&arguments, std::env::vars_os()));
            runtime()?.block_on(serve::run((started, read), sockets, simulator.as_ref()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a key for Web Push: the private one goes into a file that its owner alone can read.
fn vapid_key(file: &Path) -> Result<(), Problem> {
    let failed = |error| Problem::new(format_args!("{}: {error}", file.display()));
    let key = pushlet_credential::VapidKey::generate().map_err(Problem::new)?;
    let mut options = OpenOptions::new();
    let mut written = options.write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    written.write_all(key.private.as_bytes()).and_then(|()| written.write_all(b"\n")).map_err(failed)?;
    writeln!(std::io::stdout(), "{}", key.public).map_err(Problem::new)
}

fn layers(
    arguments: &CommandLine,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<ConfigLayers, Problem> {
    let mut layers = ConfigLayers::new()?;
    if let Some(file) = &arguments.config {
        layers.file(file)?;
    }
    layers.variables(variables)?;
    for (flag, values) in &arguments.flags {
        layers.flag(flag, values)?;
    }
    Ok(layers)
}

/// Checks what can be wrong beyond single values.
fn check(config: &Config) -> Result<(), Problem> {
    config.callers()?;
    server::acceptor(&config.tls)?;
    bootstrap::sealing_key(config)?;
    for file in config.application_files()?.unwrap_or_default() {
        file.secrets()?;
    }
    Ok(())
}

async fn run_simulator(options: &simulator::Options) -> Result<(), Problem> {
    let stop = serve::stop_signal()?;
    let _running = simulator::alone(options).await?;
    stop.await;
    Ok(())
}
