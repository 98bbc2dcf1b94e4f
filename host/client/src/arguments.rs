//! Arguments that several commands share, and the question before a deletion.

use std::io::{IsTerminal as _, Write as _};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use super::print;
use pushlet_settings::Problem;

pub(crate) fn id(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(name.to_uppercase()).required(true).help(help)
}

/// `delete`, which asks on a terminal.
pub(crate) fn deletion(about: &'static str) -> Command {
    let yes = Arg::new("yes").long("yes").short('y').action(ArgAction::SetTrue).help("Do not ask");
    Command::new("delete").visible_alias("rm").about(about).arg(yes)
}

/// Asks for confirmation on a terminal. A script is not asked.
pub(crate) fn confirm(matches: &ArgMatches, what: &str) -> Result<(), Problem> {
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

pub(crate) fn given<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// `NAME=VALUE`, given any number of times. The value is JSON if it can be read as such, else a text.
pub(crate) fn pairs(matches: &ArgMatches, name: &str) -> Result<Map<String, Value>, Problem> {
    let mut pairs = Map::new();
    for pair in matches.get_many::<String>(name).unwrap_or_default() {
        let (key, value) = split(pair, name)?;
        pairs.insert(key.to_owned(), json_or_text(value));
    }
    Ok(pairs)
}

pub(crate) fn split<'a>(pair: &'a str, flag: &str) -> Result<(&'a str, &'a str), Problem> {
    let wrong = || Problem::new(format_args!("--{flag} {pair}: expected NAME=VALUE"));
    pair.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)
}

fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
