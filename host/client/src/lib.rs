//! The commands for people: they talk to a running server over its HTTP API, and are configured by flags and
//! variables alone. [`oci`] speaks to registries of components.

mod applications;
mod deliveries;
pub mod oci;
mod operator;
mod providers;
mod send;
mod server;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

pub use providers::{confirm_hosts, upload};
use pushlet_settings::Problem;
use server::ApiClient;

/// Returns all commands, each with the flags that say which server is meant.
pub fn commands() -> Vec<Command> {
    [
        send::command(),
        applications::command(),
        operator::command(),
        operator::node_command(),
        providers::command(),
        operator::backup_command(),
        deliveries::command(),
    ]
    .map(|command| command.args(connection()))
    .into()
}

/// Runs the command of this name.
pub async fn run(name: &str, matches: &ArgMatches) -> Result<ExitCode, Problem> {
    let server = ApiClient::new(matches)?;
    match name {
        "send" => return send::run(&server, matches).await,
        "delivery" => return deliveries::run(&server, matches).await,
        "app" => applications::run(&server, matches).await?,
        "tenant" => operator::run(&server, matches).await?,
        "node" => operator::list_nodes(&server, matches).await?,
        "backup" => operator::back_up(&server, matches).await?,
        _ => providers::run(&server, matches).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn connection() -> [Arg; 6] {
    let text = |name: &'static str, variable, value| {
        Arg::new(name).long(name).value_name(value).env(variable).global(true).help_heading("Server")
    };
    [
        text("server", "PUSHLET_SERVER", "URL")
            .default_value("http://127.0.0.1:9292")
            .help("The server's base URL"),
        text("api-key", "PUSHLET_API_KEY", "KEY").hide_env_values(true).help("A tenant's key"),
        text("username", "PUSHLET_USERNAME", "NAME").help("Name by HTTP Basic, instead of a key"),
        text("password", "PUSHLET_PASSWORD", "SECRET")
            .hide_env_values(true)
            .help("Its password; better in the variable"),
        text("ca", "PUSHLET_CA", "FILE")
            .value_parser(value_parser!(PathBuf))
            .help("PEM file of an authority that the server's certificate may have"),
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .global(true)
            .help_heading("Server")
            .help("Print JSON"),
    ]
}
