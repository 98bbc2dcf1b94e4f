#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use clap::error::ErrorKind;

use super::*;
use pushlet_settings::ConfigLayers;

fn parse(line: &[&str]) -> Result<CommandLine, clap::Error> {
    CommandLine::parse(std::iter::once("pushlet").chain(line.iter().copied()).map(OsString::from))
}

fn refused(line: &[&str]) -> ErrorKind {
    parse(line).err().unwrap().kind()
}

#[test]
fn the_command_is_sound() {
    command(&["endpoints-apns-production".to_owned()]).debug_assert();
}

#[test]
fn every_key_is_a_flag() {
    let layers = || ConfigLayers::new().unwrap();
    for key in keys().filter(|key| !key.is_pattern()) {
        let sample = match key.kind {
            ValueKind::Address => "127.0.0.1:1",
            ValueKind::WebUrl => "http://x",
            ValueKind::Count { .. } => "1",
            ValueKind::Size { .. } => "64KiB",
            _ => "x",
        };
        let flag = format!("--{}={}", key.flag(), key.default.unwrap_or(sample).trim_matches('"'));
        let arguments = parse(&["serve", &flag]).unwrap();
        let (name, values) = &arguments.flags[0];
        assert_eq!((arguments.flags.len(), name), (1, &key.flag()));
        if !matches!(key.kind, ValueKind::Paths | ValueKind::Texts) {
            layers().flag(name, values).unwrap();
        }
    }
}

#[test]
fn flags_and_their_values() {
    let line = [
        "serve",
        "--limits-fields",
        "101",
        "--delivery-resend-unknown",
        "--tls-extra-roots",
        "a",
        "--tls-extra-roots=b",
        "--listen=127.0.0.1:2",
        "--limits-fields=102",
        "--endpoints-apns-production",
        "https://x",
        "--endpoints-apns-channels-development=https://y",
        "-c",
        "file",
    ];
    let arguments = parse(&line).unwrap();
    assert_eq!(arguments.config.as_deref(), Some(Path::new("file")));
    let mut layers = ConfigLayers::new().unwrap();
    for (name, values) in &arguments.flags {
        layers.flag(name, values).unwrap();
    }
    let config = layers.finish().unwrap();
    assert_eq!((config.listen.to_string().as_str(), config.limits.fields), ("127.0.0.1:2", 102));
    assert!(config.delivery.resend_unknown);
    assert_eq!(config.tls.extra_roots, [PathBuf::from("a"), PathBuf::from("b")]);
    let get =
        |endpoint, environment| config.endpoints.get(None, "apns", endpoint, environment).unwrap().host();
    assert_eq!(get("device", pushlet_model::contract::Environment::Production), "x");
    assert_eq!(get("channels", pushlet_model::contract::Environment::Development), "y");
}

#[test]
fn the_commands() {
    assert!(matches!(parse(&["serve"]).unwrap().action, CommandAction::Serve { simulator: None }));
    let CommandAction::Serve { simulator: Some(options) } = parse(&["serve", "--simulator"]).unwrap().action
    else {
        panic!()
    };
    assert_eq!(options.directory, Path::new("./simulator"));
    let ports =
        [options.apns, options.google, options.control, options.apns_production].map(|one| one.port());
    assert_eq!(ports, [9443, 9444, 9445, 9446]);
    let flags =
        ["--simulator-dir", "d", "--simulator-apns=127.0.0.2:443", "--simulator-apns-production=[::1]:0"];
    let more = ["--simulator-google", "127.0.0.4:443", "--simulator-control", "127.0.0.1:1"];
    let CommandAction::Simulator(options) =
        parse(&[&["simulator"], &flags[..], &more[..]].concat()).unwrap().action
    else {
        panic!()
    };
    assert_eq!(options.directory, Path::new("d"));
    let addresses = [options.apns, options.apns_production, options.google, options.control];
    let expected = ["127.0.0.2:443", "[::1]:0", "127.0.0.4:443", "127.0.0.1:1"];
    assert_eq!(addresses.map(|address| address.to_string()), expected);
    assert_eq!(refused(&["simulator", "--simulator-apns", "443"]), ErrorKind::ValueValidation);
    assert!(matches!(parse(&["check-config", "--config=f"]).unwrap().action, CommandAction::CheckConfig));
    assert!(parse(&["serve"]).unwrap().flags.is_empty());
}

#[test]
fn wrong_lines_are_refused() {
    assert_eq!(refused(&["serve", "--listne", "x"]), ErrorKind::UnknownArgument);
    assert_eq!(refused(&["serve", "--endpoints-apns-staging", "x"]), ErrorKind::UnknownArgument);
    assert_eq!(refused(&["serve", "--log-format", "xml"]), ErrorKind::InvalidValue);
    assert_eq!(refused(&["simulator", "--listen", "x"]), ErrorKind::UnknownArgument);
    let twice = ["serve", "--listen=127.0.0.1:1", "--listen=127.0.0.1:2"];
    assert_eq!(refused(&twice), ErrorKind::ArgumentConflict);
    assert_eq!(refused(&["serve", "--help"]), ErrorKind::DisplayHelp);
    assert_eq!(refused(&["--version"]), ErrorKind::DisplayVersion);
    assert_eq!(refused(&["sevre"]), ErrorKind::InvalidSubcommand);
    assert_eq!(parse(&["serve", "--listne", "x"]).err().unwrap().exit_code(), 2);
}
