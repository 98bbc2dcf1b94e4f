//! The flags of a notification, and the first line of the stream that they make.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use serde_json::{Map, Value, json};

use crate::arguments::{given, pairs};
use pushlet_settings::Problem;

/// Flag and name of the fields that are texts.
const TEXTS: [(&str, &str, &str); 5] = [
    ("title", "title", "The title"),
    ("subtitle", "subtitle", "The line below the title"),
    ("body", "body", "The text"),
    ("sound", "sound", "Name of a sound"),
    ("collapse-key", "collapse_key", "A later push with the same one takes its place"),
];
/// Those that are JSON.
const VALUES: [(&str, &str, &str); 3] = [
    ("badge", "badge", "The number on the application's icon"),
    ("data", "data", "An object for the application"),
    ("ttl", "ttl", "Seconds that the push service keeps it for a device that is off"),
];

pub fn arguments() -> Vec<Arg> {
    let own = |(flag, _, help): (&'static str, &'static str, &'static str), value: &'static str| {
        Arg::new(flag).long(flag).value_name(value).help(help).help_heading("Notification")
    };
    let mut all: Vec<Arg> = TEXTS.map(|field| own(field, "TEXT")).into();
    all.extend(VALUES.map(|field| own(field, "JSON")));
    all.push(
        own(("set", "", "Any other field, as the API and the provider name it"), "NAME=VALUE")
            .action(ArgAction::Append),
    );
    all.push(
        own(
            ("notification", "", "A file with a notification as the API takes it; flags win over it"),
            "FILE",
        )
        .value_parser(value_parser!(PathBuf)),
    );
    all.push(
        Arg::new("validate-only")
            .long("validate-only")
            .action(ArgAction::SetTrue)
            .help("Check everything and send nothing"),
    );
    all.push(
        Arg::new("deadline")
            .long("deadline")
            .value_name("SECONDS")
            .value_parser(value_parser!(f64))
            .help("For each target"),
    );
    all
}

/// `{"application_id", "notification", …}`.
pub fn header(matches: &ArgMatches) -> Result<Value, Problem> {
    let mut notification = match matches.get_one::<PathBuf>("notification") {
        Some(file) => read(file)?,
        None => Map::new(),
    };
    for (flag, name, _) in TEXTS {
        if let Some(text) = matches.get_one::<String>(flag) {
            notification.insert(name.to_owned(), text.clone().into());
        }
    }
    for (flag, name, _) in VALUES {
        if let Some(text) = matches.get_one::<String>(flag) {
            let value = serde_json::from_str(text);
            let wrong = |error| Problem::new(format_args!("--{flag} {text}: it is not JSON: {error}"));
            let value: Value = value.map_err(wrong)?;
            notification.insert(name.to_owned(), value);
        }
    }
    notification.extend(pairs(matches, "set")?);
    let mut header = json!({ "application_id": given(matches, "application"), "notification": notification });
    if matches.get_flag("validate-only") {
        header["validate_only"] = true.into();
    }
    if let Some(seconds) = matches.get_one::<f64>("deadline") {
        header["deadline"] = (*seconds).into();
    }
    Ok(header)
}

fn read(file: &PathBuf) -> Result<Map<String, Value>, Problem> {
    let wrong = |why: &dyn std::fmt::Display| Problem::new(format_args!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}
