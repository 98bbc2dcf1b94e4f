//! The commands for people: they talk to a running server over its HTTP API, and are configured by flags and
//! variables alone.

mod applications;
mod print;
mod providers;
mod send;
mod server;
mod tenants;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value};

use pushlet_settings::Problem;
use server::Server;

/// All commands, each with the flags that say which server is meant.
pub fn commands() -> Vec<Command> {
    [send::command(), applications::command(), tenants::command(), providers::command()]
        .map(|command| command.args(connection()))
        .into()
}

/// Runs the command of this name.
pub async fn run(name: &str, matches: &ArgMatches) -> Result<ExitCode, Problem> {
    let server = Server::new(matches)?;
    match name {
        "send" => return send::run(&server, matches).await,
        "app" => applications::run(&server, matches).await?,
        "tenant" => tenants::run(&server, matches).await?,
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

fn id(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(name.to_uppercase()).required(true).help(help)
}

/// `delete`, which asks on a terminal.
fn deletion(about: &'static str) -> Command {
    let yes = Arg::new("yes").long("yes").short('y').action(ArgAction::SetTrue).help("Do not ask");
    Command::new("delete").visible_alias("rm").about(about).arg(yes)
}

/// Asks whether `what` shall be deleted, unless nobody could answer: a script means what it says.
fn confirm(matches: &ArgMatches, what: &str) -> Result<(), Problem> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if matches.get_flag("yes") || !is_terminal {
        return Ok(());
    }
    write!(std::io::stderr(), "Delete {}? [y/N] ", print::printable(what)).map_err(Problem::new)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Problem::new)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Problem::new("nothing was deleted")),
    }
}

fn given<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// `NAME=VALUE`, given any number of times. The value is JSON if it can be read as such, else a text.
fn pairs(matches: &ArgMatches, name: &str) -> Result<Map<String, Value>, Problem> {
    let mut pairs = Map::new();
    for pair in matches.get_many::<String>(name).unwrap_or_default() {
        let (key, value) = split(pair, name)?;
        pairs.insert(key.to_owned(), json_or_text(value));
    }
    Ok(pairs)
}

fn split<'a>(pair: &'a str, flag: &str) -> Result<(&'a str, &'a str), Problem> {
    let wrong = || Problem::new(format_args!("--{flag} {pair}: expected NAME=VALUE"));
    pair.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)
}

fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
