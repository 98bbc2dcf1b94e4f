//! The command line. The parts that run as processes of their own take their orders as JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use pushlet_bench::failure::{Failure, at};
use pushlet_bench::gateway::Programs;
use pushlet_bench::run::{self, Pace};
use pushlet_bench::{guard, load, relay, say, sink};
use serde::de::DeserializeOwned;

fn main() -> ExitCode {
    let arguments = command().get_matches();
    match act(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            say(&format!("pushlet-bench: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn command() -> clap::Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).value_parser(value_parser!(PathBuf))
    };
    let orders =
        |name: &'static str| clap::Command::new(name).hide(true).arg(Arg::new("orders").required(true));
    clap::Command::new("pushlet-bench")
        .about("Measures the gateway: one table, on this machine, in one run")
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .global(true)
                .help("Two minutes, coarser"),
        )
        .arg(path("gateway", "The program pushlet; by default it is built").global(true))
        .arg(path("linked", "The program pushlet-linked; by default it is built").global(true))
        .subcommand(clap::Command::new("table").about("Every route, mode and provider (the default)"))
        .subcommand(
            clap::Command::new("curves")
                .about("Applications, callers, payload, latency: a table and a plot")
                .arg(path("plot", "Where the SVG goes").default_value("curves.svg")),
        )
        .subcommand(
            clap::Command::new("peer")
                .about("Another push server, described by an adapter file")
                .arg(Arg::new("adapter").required(true).value_parser(value_parser!(PathBuf))),
        )
        .subcommand(
            clap::Command::new("guard")
                .about("Instruction counts against the committed budget; fails on a regression")
                .arg(
                    Arg::new("update")
                        .long("update")
                        .action(ArgAction::SetTrue)
                        .help("Write the budget anew"),
                )
                .arg(
                    Arg::new("profile")
                        .long("profile")
                        .value_parser(["dist", "dev"])
                        .default_value("dist")
                        .help("As what pushlet-linked is built: each has a budget of its own"),
                )
                .arg(path("profiles", "Keep callgrind's profiles in this directory"))
                .arg(Arg::new("only").num_args(0..).help("Parts of names: count only these")),
        )
        .subcommands(["sink", "load", "relay"].map(orders))
}

fn act(arguments: &ArgMatches) -> Result<bool, Failure> {
    let pace = if arguments.get_flag("quick") { Pace::QUICK } else { Pace::FULL };
    let (name, arguments_of_part) = arguments.subcommand().unwrap_or(("table", arguments));
    let program = |name: &str, profile: &str| match arguments.get_one::<PathBuf>(name) {
        Some(program) => Ok(program.clone()),
        None => built(name, profile),
    };
    let programs =
        || Ok(Programs { gateway: program("gateway", "dist")?, linked: program("linked", "dist")? });
    match name {
        "sink" => sink::run(&orders(arguments_of_part)?).map(|()| true),
        "load" => load::run(orders(arguments_of_part)?).map(|()| true),
        "relay" => relay::run(&orders(arguments_of_part)?).map(|()| true),
        "peer" => {
            let adapter = arguments_of_part.get_one::<PathBuf>("adapter").cloned().unwrap_or_default();
            run::peer(&adapter, pace).map(|()| true)
        }
        "curves" => {
            let plot = arguments_of_part.get_one::<PathBuf>("plot").cloned().unwrap_or_default();
            run::curves(&programs()?, pace, &plot).map(|()| true)
        }
        "guard" => {
            let budget = Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.toml");
            let profile = arguments_of_part.get_one::<String>("profile").cloned().unwrap_or_default();
            let linked = program("linked", &profile)?;
            let request = guard::Request {
                profile,
                only: arguments_of_part.get_many("only").unwrap_or_default().cloned().collect(),
                update: arguments_of_part.get_flag("update"),
                profiles: arguments_of_part.get_one("profiles").cloned(),
            };
            guard::run(&linked, &budget, &request)
        }
        _ => run::whole(&programs()?, pace).map(|()| true),
    }
}

fn orders<T: DeserializeOwned>(arguments: &ArgMatches) -> Result<T, Failure> {
    let text = arguments.get_one::<String>("orders").map_or("", String::as_str);
    serde_json::from_str(text).map_err(at("orders"))
}

/// Builds a program alone: beside others, the features of what they share would be other ones.
fn built(name: &str, profile: &str) -> Result<PathBuf, Failure> {
    let program = if name == "gateway" { "pushlet" } else { "pushlet-linked" };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--profile", profile, "--package", program]);
    if !cargo.status().map_err(at("cargo"))?.success() {
        return Err(Failure::new(format!("{program} could not be built")));
    }
    let myself = std::env::current_exe().map_err(at("this program"))?;
    let target = myself.parent().and_then(Path::parent).ok_or_else(|| Failure::new("no target directory"))?;
    // Where cargo puts each profile's programs.
    Ok(target.join(if profile == "dev" { "debug" } else { profile }).join(program))
}
