//! In place of the simulators in a program that is built without the feature `simulator`: no value of [`Options`]
//! exists, so nothing here is ever called.

use clap::{ArgMatches, Command};

use pushlet_settings::{Config, Problem};

/// How the simulators run.
#[derive(Clone)]
pub enum Options {}

/// Running simulators.
pub enum RunningSimulator {}

/// Starts the simulators for this server.
pub async fn start(_config: &mut Config, options: &Options) -> Result<RunningSimulator, Problem> {
    match *options {}
}

/// Starts the simulators for servers in other processes.
pub async fn alone(options: &Options) -> Result<RunningSimulator, Problem> {
    match *options {}
}

/// Adds no flags to `serve`.
pub fn with_flags(serve: Command) -> Command {
    serve
}

/// There is no command `simulator`.
pub fn command() -> Option<Command> {
    None
}

/// `serve` never runs simulators.
pub fn requested(_serve: &ArgMatches) -> Option<Options> {
    None
}
