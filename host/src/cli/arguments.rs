//! What can stand on the command line. The flags of configuration keys are made from the table of keys.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::{distribution, kit};
use crate::simulator;
use pushlet_client as client;
use pushlet_model::COMMIT;
use pushlet_settings::ConfigKey;
use pushlet_settings::keys::keys;
use pushlet_settings::names;
use pushlet_settings::value::ValueKind;

/// A command line that was understood.
pub struct CommandLine {
    pub action: CommandAction,
    pub config: Option<PathBuf>,
    /// Flags of configuration keys, without dashes, each with its values.
    pub flags: Vec<(String, Vec<String>)>,
}

pub enum CommandAction {
    /// `simulator`: its options, if it runs too.
    Serve {
        simulator: Option<simulator::Options>,
    },
    #[cfg_attr(not(feature = "simulator"), allow(dead_code))]
    Simulator(simulator::Options),
    CheckConfig,
    /// Seals the registry with another key.
    RotateKey {
        new_key_file: PathBuf,
    },
    /// Makes a key for Web Push.
    VapidKey {
        file: PathBuf,
    },
    /// A command that talks to a server: its name and arguments.
    Client(String, ArgMatches),
    /// A command for authors of providers, which needs no server: its arguments.
    Kit(ArgMatches),
    /// A command that moves a component to a server or a registry, or from there: its arguments.
    Distribution(ArgMatches),
    /// A provider at work while it is written.
    #[cfg(feature = "simulator")]
    Dev(ArgMatches),
    Completions(Shell),
    /// What the server calls itself, in a process of its own, to compile an uploaded component.
    Compile {
        /// Bytes of address space.
        memory: u64,
        /// Seconds.
        cpu: u64,
    },
}

const FIRST_EXAMPLE: &str = if cfg!(feature = "simulator") {
    "  pushlet serve --simulator"
} else {
    "  pushlet serve --listen 127.0.0.1:80"
};

const SERVE_EXAMPLES: &str = "\
Every key of the configuration file is a flag and a variable too: [auth] username is --auth-username and
PUSHLET_AUTH_USERNAME. A flag wins over a variable, a variable over the file. The servers of a provider are
replaced with --endpoints-<PROVIDER>-production URL and --endpoints-<PROVIDER>-development URL.

Examples:
  pushlet serve --config pushlet.toml
  PUSHLET_AUTH_PASSWORD_FILE=/run/secrets/pushlet pushlet serve --listen 0.0.0.0:9292 --auth-username me
  pushlet serve --endpoints-apns-production https://127.0.0.1:8443 --tls-extra-roots ca.pem";

const ROTATE_EXAMPLE: &str = "\
The old key is that of the configuration. It is done as a whole or not at all.

Example:
  openssl rand -hex 32 > new.key
  pushlet rotate-key --config pushlet.toml --new-key-file new.key";

/// Returns the version, what was built, and with which features.
fn version() -> String {
    let (version, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let features =
        [("simulator", cfg!(feature = "simulator")), ("precompiled", cfg!(feature = "precompiled"))];
    let features: Vec<&str> = features.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    format!("{version} (commit {COMMIT}, {arch}, features: {features})")
}

impl CommandLine {
    /// Parses a command line. The error is the message for the user, which may be the help that they asked for.
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.collect();
        let matches = command(&endpoint_flags(&arguments)).try_get_matches_from(arguments)?;
        let (action, matches) = match matches.subcommand() {
            #[cfg(feature = "simulator")]
            Some(("simulator", inner)) => (CommandAction::Simulator(simulator::options(inner)), inner),
            Some(("check-config", inner)) => (CommandAction::CheckConfig, inner),
            Some(("rotate-key", inner)) => {
                let new_key_file = inner.get_one::<PathBuf>("new-key-file").cloned().unwrap_or_default();
                (CommandAction::RotateKey { new_key_file }, inner)
            }
            Some(("vapid-key", inner)) => {
                let file = inner.get_one::<PathBuf>("file").cloned().unwrap_or_default();
                (CommandAction::VapidKey { file }, inner)
            }
            Some(("completions", inner)) => {
                (CommandAction::Completions(inner.get_one("shell").copied().unwrap_or(Shell::Bash)), inner)
            }
            #[cfg(feature = "simulator")]
            Some(("dev", inner)) => (CommandAction::Dev(inner.clone()), inner),
            Some(("provider", inner)) if kit::is_offline(inner) => (CommandAction::Kit(inner.clone()), inner),
            Some(("provider", inner)) if distribution::is_one(inner) => {
                (CommandAction::Distribution(inner.clone()), inner)
            }
            Some((
                name @ ("send" | "delivery" | "app" | "tenant" | "node" | "provider" | "backup"),
                inner,
            )) => (CommandAction::Client(name.to_owned(), inner.clone()), inner),
            Some(("compile", inner)) => {
                let number = |name| inner.get_one(name).copied().unwrap_or_default();
                (CommandAction::Compile { memory: number("memory"), cpu: number("cpu") }, inner)
            }
            Some((_, inner)) => (CommandAction::Serve { simulator: simulator::requested(inner) }, inner),
            None => {
                return Err(
                    command(&[]).error(clap::error::ErrorKind::MissingSubcommand, "a command is required")
                );
            }
        };
        let config = matches.try_get_one::<PathBuf>("config").ok().flatten().cloned();
        Ok(Self { action, config, flags: flags(matches) })
    }
}

fn command(endpoints: &[String]) -> Command {
    let serve = configurable(Command::new("serve"), endpoints)
        .about("Serve the HTTP API")
        .after_help(SERVE_EXAMPLES.replace("Examples:\n", &format!("Examples:\n{FIRST_EXAMPLE}\n")));
    let check = configurable(Command::new("check-config"), endpoints)
        .about("Check the configuration, and print what results, without secrets")
        .after_help("Example:\n  pushlet check-config --config pushlet.toml");
    let rotate = configurable(Command::new("rotate-key"), endpoints)
        .about("Seal what is kept in data_dir with another key; the server must be stopped")
        .arg(
            Arg::new("new-key-file")
                .long("new-key-file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("File that holds the new key, 32 bytes in hex"),
        )
        .after_help(ROTATE_EXAMPLE);
    Command::new("pushlet")
        .version(version())
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(simulator::with_flags(serve))
        .subcommands(simulator::command())
        .subcommands(dev_command())
        .subcommands([check, rotate, vapid_key(), compile()])
        .subcommands(client::commands())
        .mut_subcommand("provider", |provider| {
            provider.subcommands(kit::commands()).subcommands(distribution::commands())
        })
        .subcommand(completions())
        .after_help(format!("Example:\n{FIRST_EXAMPLE}"))
}

fn vapid_key() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("Where the private key is written; it must not be there yet");
    Command::new("vapid-key").about("Make a key for Web Push, and print its public key").arg(file).after_help(
        "Example:\n  pushlet vapid-key vapid.key\n  pushlet app put web --credential vapid_private_key=vapid.key \\\n      \
         --setting vapid_subject=mailto:you@example.com",
    )
}

#[cfg(feature = "simulator")]
fn dev_command() -> Option<Command> {
    Some(super::dev::command())
}

/// Without the simulators there is no recorder.
#[cfg(not(feature = "simulator"))]
fn dev_command() -> Option<Command> {
    None
}

fn completions() -> Command {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell));
    Command::new("completions")
        .about("Print what a shell needs in order to complete this program's commands")
        .arg(shell)
        .after_help(
            "Example:\n  pushlet completions bash > ~/.local/share/bash-completion/completions/pushlet",
        )
}

/// Returns the completions of all commands. In memory: the library panics if an output is closed early.
pub fn complete(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(&[]), "pushlet", &mut text);
    text
}

fn compile() -> Command {
    let number = |name| Arg::new(name).long(name).required(true).value_parser(value_parser!(u64));
    Command::new("compile").hide(true).args([number("memory"), number("cpu")])
}

fn configurable(command: Command, endpoints: &[String]) -> Command {
    let file = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .env("PUSHLET_CONFIG")
        .help("The configuration file, in TOML");
    let keys = keys().filter(|key| !key.is_pattern()).map(flag_of);
    let endpoints = endpoints.iter().map(|name| {
        let value = ValueKind::Url.placeholder();
        Arg::new(name.clone()).long(name.clone()).value_name(value).hide(true).overrides_with(name.clone())
    });
    command.arg(file).args(keys).args(endpoints)
}

fn flag_of(key: &ConfigKey) -> Arg {
    let default = key.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
    let name = key.flag();
    let arg = Arg::new(name.clone())
        .long(name.clone())
        .value_name(key.kind.placeholder())
        .help(format!("{}{default}", key.help()));
    match key.kind {
        ValueKind::Paths | ValueKind::Texts => arg.action(ArgAction::Append),
        ValueKind::Switch => {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true").overrides_with(name)
        }
        ValueKind::Choice(choices) => {
            arg.value_parser(PossibleValuesParser::new(choices)).overrides_with(name)
        }
        // Two addresses look as if both were listened on.
        ValueKind::Address | ValueKind::Listen => arg,
        _ => arg.overrides_with(name),
    }
}

/// Returns the flags of endpoints. The names of providers are not known here, so any flag of their form is accepted.
fn endpoint_flags(arguments: &[OsString]) -> Vec<String> {
    let mut names: Vec<String> = arguments
        .iter()
        .filter_map(|argument| argument.to_str()?.strip_prefix("--endpoints-"))
        .map(|rest| format!("endpoints-{}", rest.split('=').next().unwrap_or_default()))
        .filter(|name| names::from_words(name, '-').is_some())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn flags(matches: &ArgMatches) -> Vec<(String, Vec<String>)> {
    let is_given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let is_key = |name: &&str| names::from_words(name, '-').is_some();
    let names: Vec<&str> = matches.ids().map(clap::Id::as_str).filter(is_key).filter(is_given).collect();
    let values = |name: &str| matches.get_many::<String>(name).unwrap_or_default().cloned().collect();
    names.into_iter().map(|name| (name.to_owned(), values(name))).collect()
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
