//! What people read on their terminals. All of it goes through here, since a server's or a component's texts must not
//! steer them.

use std::io::Write as _;

use serde_json::Value;

use pushlet_model::escape::{Escaped, escape_json};
use pushlet_settings::Problem;

pub fn line(text: &str) -> Result<(), Problem> {
    write(&printable(text))
}

fn write(text: &str) -> Result<(), Problem> {
    match writeln!(std::io::stdout(), "{text}") {
        // The reader, `head` perhaps, has closed the pipe.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Problem::new),
    }
}

pub fn json(value: &Value) -> Result<(), Problem> {
    write(&escape_json(&format!("{value:#}")))
}

/// Columns of a list of objects, by JSON pointer.
pub fn table(items: &[Value], columns: &[(&str, &str)]) -> Result<(), Problem> {
    let mut rows = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>()];
    for item in items {
        rows.push(columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))).collect());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// One object: a line for each value, nested ones with their path.
pub fn object(value: &Value) -> Result<(), Problem> {
    let mut lines = Vec::new();
    flatten(value, String::new(), &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    lines.iter().try_for_each(|(name, value)| line(&format!("{name:width$}  {value}")))
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

/// What could steer a terminal is escaped.
pub fn printable(text: &str) -> String {
    Escaped(text).to_string()
}
