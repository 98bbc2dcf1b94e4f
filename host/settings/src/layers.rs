//! Defaults, file, variables and flags, laid over each other: the last one that sets a key wins.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};
use zeroize::Zeroizing;

use super::keys::keys;
use super::names;
use super::section::{ConfigKey, ReadSection as _};
use super::value::ValueKind;
use super::{Config, Problem};
use pushlet_model::text::did_you_mean;

/// Variables that begin as ours do and are no keys: the file's place, and what builds read.
pub const OTHER_VARIABLES: &[&str] = &[
    "PUSHLET_CONFIG",
    "PUSHLET_COMMIT",
    "PUSHLET_BUILT_IN_PROVIDERS",
    "PUSHLET_SERVER",
    "PUSHLET_API_KEY",
    "PUSHLET_USERNAME",
    "PUSHLET_PASSWORD",
    "PUSHLET_CA",
    "PUSHLET_OCI_USERNAME",
    "PUSHLET_OCI_PASSWORD",
];

/// All that was said about the configuration so far.
#[derive(Clone)]
pub struct ConfigLayers(Table);

/// Where a value was found; for messages.
enum ValueOrigin<'a> {
    Default,
    File { path: &'a Path, line: Option<usize> },
    Variable(&'a str),
    Flag(&'a str),
}

impl ConfigLayers {
    /// Creates layers with the defaults alone.
    pub fn new() -> Result<Self, Problem> {
        let mut layers = Self(Table::new());
        for key in keys() {
            if let Some(default) = key.default {
                let value =
                    Value::deserialize(toml::de::ValueDeserializer::parse(default).map_err(Problem::new)?)
                        .map_err(Problem::new)?;
                layers.set(key.path, key, value, &ValueOrigin::Default)?;
            }
        }
        Ok(layers)
    }

    /// Lays a file over what is there.
    pub fn file(&mut self, path: &Path) -> Result<(), Problem> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Problem::new(format_args!("cannot read {}: {error}", path.display())))?;
        self.text(path, &Zeroizing::new(text))
    }

    /// Lays the text of a file over what is there.
    pub fn text(&mut self, path: &Path, text: &str) -> Result<(), Problem> {
        // The error's own text quotes the line, which may hold a password.
        let unreadable = |error: toml::de::Error| {
            let line = error.span().map(|span| line_of(text, span.start));
            Problem::new(format_args!("{}: {}", ValueOrigin::File { path, line }, error.message().trim_end()))
        };
        // Parsed twice: this form has the places of keys, the other one their values.
        let document = DeTable::parse(text).map_err(unreadable)?;
        let mut lines = BTreeMap::new();
        find_lines(text, "", document.get_ref(), &mut lines);
        let table: Table = toml::from_str(text).map_err(unreadable)?;
        self.table("", table, &|key| ValueOrigin::File { path, line: lines.get(key).copied() })
    }

    /// Lays the variables that begin with `PUSHLET_` over what is there.
    pub fn variables(&mut self, all: impl Iterator<Item = (OsString, OsString)>) -> Result<(), Problem> {
        for (name, value) in all {
            let Some(name) = name.to_str().filter(|name| name.starts_with("PUSHLET_")) else { continue };
            if OTHER_VARIABLES.contains(&name) || is_from_kubernetes(name, &value) {
                continue;
            }
            let origin = ValueOrigin::Variable(name);
            let words = name.trim_start_matches("PUSHLET_").to_lowercase();
            let Some(path) = names::from_words(&words, '_') else {
                let known = keys().filter(|key| !key.is_pattern()).map(ConfigKey::variable);
                return Err(unknown(&origin, name, known));
            };
            let Some(text) = value.to_str() else {
                return Err(Problem::new(format_args!("{origin}: not valid UTF-8")));
            };
            // Paths are joined as in PATH; texts may hold colons, as IPv6 addresses do.
            let separator = if names::is_list_of_texts(&path) { ',' } else { ':' };
            self.texts(&path, &origin, text.split(separator).filter(|part| !part.is_empty()), text)?;
        }
        Ok(())
    }

    /// Lays a flag with its values over what is there. `name`: without dashes.
    pub fn flag(&mut self, name: &str, values: &[String]) -> Result<(), Problem> {
        let origin = ValueOrigin::Flag(name);
        let Some(path) = names::from_words(name, '-') else {
            return Err(unknown(&origin, name, keys().map(ConfigKey::flag)));
        };
        let last = values.last().map(String::as_str).unwrap_or_default();
        self.texts(&path, &origin, values.iter().map(String::as_str), last)
    }

    /// Returns the configuration that results.
    pub fn finish(self) -> Result<Config, Problem> {
        Config::read(self.0)
    }

    /// Returns the paths of the keys that have another value in `other`.
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let (mut own, mut others) = (BTreeMap::new(), BTreeMap::new());
        flatten("", &self.0, &mut own);
        flatten("", &other.0, &mut others);
        let paths: BTreeSet<&String> = own.keys().chain(others.keys()).collect();
        paths.into_iter().filter(|path| own.get(*path) != others.get(*path)).cloned().collect()
    }

    /// Returns the resulting configuration as the text of a file, without secrets.
    pub fn shown(&self) -> Result<String, Problem> {
        let mut table = self.0.clone();
        for key in keys().filter(|key| matches!(key.kind, ValueKind::Secret)) {
            hide(&mut table, key.path);
        }
        toml::to_string_pretty(&table).map_err(Problem::new)
    }

    fn table<'a>(
        &mut self,
        path: &str,
        table: Table,
        origin: &dyn Fn(&str) -> ValueOrigin<'a>,
    ) -> Result<(), Problem> {
        for (name, value) in table {
            let path = names::join(path, &name);
            let segments = names::segments(&path);
            match value {
                Value::Table(inner) if names::is_section(&segments) => self.table(&path, inner, origin)?,
                value => match names::find(&segments) {
                    Some(key) => self.set(&path, key, value, &origin(&path))?,
                    None if is_named_section(&path) => {
                        let origin = origin(&path);
                        return Err(Problem::new(format_args!(
                            "{origin}: {path}: expected a table [{path}]"
                        )));
                    }
                    None => return Err(unknown(&origin(&path), &path, known_paths(&segments))),
                },
            }
        }
        Ok(())
    }

    fn texts<'a>(
        &mut self,
        path: &str,
        origin: &ValueOrigin<'_>,
        many: impl Iterator<Item = &'a str>,
        one: &str,
    ) -> Result<(), Problem> {
        let segments = names::segments(path);
        let Some(key) = names::find(&segments) else {
            return Err(unknown(origin, path, known_paths(&segments)));
        };
        let value = match key.kind {
            ValueKind::Paths | ValueKind::Texts => {
                Value::Array(many.map(|text| Value::String(text.to_owned())).collect())
            }
            kind => kind.of_text(one),
        };
        self.set(path, key, value, origin)
    }

    fn set(
        &mut self,
        path: &str,
        key: &ConfigKey,
        value: Value,
        origin: &ValueOrigin<'_>,
    ) -> Result<(), Problem> {
        key.kind.check(&value).map_err(|wrong| Problem::new(format_args!("{origin}: {path}: {wrong}")))?;
        let segments = names::segments(path);
        let Some((name, sections)) = segments.split_last() else { return Ok(()) };
        let mut table = &mut self.0;
        for section in sections {
            let entry = table.entry(*section).or_insert_with(|| Value::Table(Table::new()));
            table = entry
                .as_table_mut()
                .ok_or_else(|| Problem::new(format_args!("{origin}: {path}: {section} is not a table")))?;
        }
        table.insert((*name).to_owned(), value);
        Ok(())
    }
}

impl fmt::Display for ValueOrigin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueOrigin::Default => f.write_str("default"),
            ValueOrigin::File { path, line: Some(line) } => write!(f, "{}, line {line}", path.display()),
            ValueOrigin::File { path, line: None } => write!(f, "{}", path.display()),
            ValueOrigin::Variable(name) => f.write_str(name),
            ValueOrigin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// Services called `pushlet` or `pushlet-…` put variables of these forms into every container of their namespace:
/// `PUSHLET_METRICS_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_HTTP`, `…_PORT` (a URL), `…_PORT_9293_TCP_ADDR`.
fn is_from_kubernetes(name: &str, value: &OsStr) -> bool {
    let words: Vec<&str> = name.split('_').skip(1).collect();
    let is_protocol = |word: &str| matches!(word, "TCP" | "UDP" | "SCTP");
    let is_url = || value.to_str().is_some_and(|value| value.contains("://"));
    (0..words.len()).any(|at| match words.get(at..).unwrap_or_default() {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        ["PORT"] => is_url(),
        ["PORT", number, protocol] | ["PORT", number, protocol, "PROTO" | "PORT" | "ADDR"] => {
            number.parse::<u16>().is_ok() && is_protocol(protocol)
        }
        _ => false,
    })
}

fn unknown(origin: &ValueOrigin<'_>, name: &str, known: impl Iterator<Item = String>) -> Problem {
    let what = match origin {
        ValueOrigin::Variable(_) => "unknown variable".to_owned(),
        ValueOrigin::Flag(_) => "unknown flag".to_owned(),
        _ => format!("unknown key {name}"),
    };
    let hint = did_you_mean(names::nearest(name, known).as_deref());
    Problem::new(format_args!("{origin}: {what}{hint}"))
}

/// Returns true for the path of a table that the program names, not a provider.
fn is_named_section(path: &str) -> bool {
    keys().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Returns the paths that could be meant at the depth of `segments`: keys, and the tables that hold them.
fn known_paths(segments: &[&str]) -> impl Iterator<Item = String> {
    keys().map(move |key| {
        let own = key.path.split('.').zip(segments);
        let named = own.map(|(own, given)| if own.starts_with('<') { given } else { own });
        named.fold(String::new(), |path, name| names::join(&path, name))
    })
}

fn hide(table: &mut Table, path: &str) {
    match path.split_once('.') {
        Some((section, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(section) {
                hide(inner, rest);
            }
        }
        None => {
            if let Some(value) = table.get_mut(path) {
                *value = Value::String("(hidden)".to_owned());
            }
        }
    }
}

fn flatten<'a>(path: &str, table: &'a Table, values: &mut BTreeMap<String, &'a Value>) {
    for (name, value) in table {
        let path = names::join(path, name);
        match value {
            Value::Table(inner) => flatten(&path, inner, values),
            value => drop(values.insert(path, value)),
        }
    }
}

fn find_lines(text: &str, path: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let path = names::join(path, name.get_ref());
        lines.insert(path.clone(), line_of(text, name.span().start));
        if let DeValue::Table(inner) = value.get_ref() {
            find_lines(text, &path, inner, lines);
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
