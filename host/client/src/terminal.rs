//! What people write and read on their terminals: arguments that several commands share, and output. All output is
//! written here, since texts of a server or a component must not control the terminal.

use std::io::{IsTerminal as _, Write as _};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use pushlet_model::text::{Escaped, escape_json};
use pushlet_settings::Problem;

pub fn print_line(text: &str) -> Result<(), Problem> {
    write_line(&printable(text))
}

fn write_line(text: &str) -> Result<(), Problem> {
    match writeln!(std::io::stdout(), "{text}") {
        // The reader, `head` perhaps, has closed the pipe.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Problem::new),
    }
}

pub fn print_json(value: &Value) -> Result<(), Problem> {
    write_line(&escape_json(&format!("{value:#}")))
}

/// Prints JSON on one line.
pub fn print_json_line(value: &Value) -> Result<(), Problem> {
    write_line(&escape_json(&value.to_string()))
}

/// Columns of a list of objects, by JSON pointer.
pub fn print_table(items: &[Value], columns: &[(&str, &str)]) -> Result<(), Problem> {
    let mut rows = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>()];
    for item in items {
        rows.push(columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))).collect());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        print_line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Prints one object: a line for each value, nested ones with their path.
pub fn print_object(value: &Value) -> Result<(), Problem> {
    let mut lines = Vec::new();
    flatten(value, String::new(), &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    lines.iter().try_for_each(|(name, value)| print_line(&format!("{name:width$}  {value}")))
}

fn flatten(value: &Value, path: String, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let name = printable(name);
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                flatten(member, path, lines);
            }
        }
        Value::Null => {}
        other => lines.push((path, cell(Some(other)))),
    }
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    }
}

/// Escapes what could control a terminal.
pub fn printable(text: &str) -> String {
    Escaped(text).to_string()
}

/// `--NAME VALUE`.
pub(crate) fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

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
    write!(std::io::stderr(), "Delete {}? [y/N] ", printable(what)).map_err(Problem::new)?;
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
