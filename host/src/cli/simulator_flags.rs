//! The flags of `serve --simulator` and of `pushlet simulator`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::simulator::Options;

/// Adds the flags to `serve`.
pub fn with_flags(serve: Command) -> Command {
    let simulator = Arg::new("simulator")
        .long("simulator")
        .action(ArgAction::SetTrue)
        .help("Run simulators of the push services too, and send to them");
    serve.arg(simulator).args(flags())
}

/// Returns the command `simulator`.
pub fn command() -> Command {
    Command::new("simulator").about("Run the simulators of the push services alone").args(flags()).after_help(
        "Example:\n  pushlet simulator --simulator-dir /tmp/simulator --simulator-google 127.0.0.4:443",
    )
}

/// Returns the options of `serve` if it shall run the simulators.
pub fn requested(serve: &ArgMatches) -> Option<Options> {
    serve.get_flag("simulator").then(|| options(serve))
}

/// Returns the options that the flags give, or their defaults.
pub fn options(matches: &ArgMatches) -> Options {
    let default = Options::default();
    let address = |name: &str, otherwise| matches.get_one::<SocketAddr>(name).copied().unwrap_or(otherwise);
    Options {
        directory: matches.get_one::<PathBuf>("simulator-dir").cloned().unwrap_or(default.directory),
        apns: address("simulator-apns", default.apns),
        apns_production: address("simulator-apns-production", default.apns_production),
        google: address("simulator-google", default.google),
        control: address("simulator-control", default.control),
        ..Options::default()
    }
}

/// Where a simulator's listener is, by the name of its flag.
const LISTENERS: [(&str, &str, &str); 4] = [
    ("simulator-apns", "127.0.0.1:9443", "Where the simulator of APNs' development environment listens"),
    (
        "simulator-apns-production",
        "127.0.0.1:9446",
        "Where the simulator of APNs' production environment listens",
    ),
    ("simulator-google", "127.0.0.1:9444", "Where the simulator of FCM, OAuth and GCM listens"),
    ("simulator-control", "127.0.0.1:9445", "Where the simulators are looked at and scripted"),
];

fn flags() -> Vec<Arg> {
    let directory = Arg::new("simulator-dir")
        .long("simulator-dir")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .default_value("./simulator")
        .help("Where the simulators put their throw-away credentials");
    let listener = |(name, address, help): (&'static str, &'static str, &'static str)| {
        let arg = Arg::new(name).long(name).value_name("ADDRESS:PORT").help(help);
        arg.value_parser(value_parser!(SocketAddr)).default_value(address)
    };
    std::iter::once(directory).chain(LISTENERS.map(listener)).collect()
}
