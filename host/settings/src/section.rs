//! How the configuration is declared: the macro [`section`] makes a table's struct, its keys and its reader from one
//! list.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use toml::{Table, Value};
use url::Url;

use super::value::{BaseUrl, HiddenText, IpNetworks, ListenAddress, ValueKind, read_size};
use super::{AddressFamily, IsolationMode, LogFormat, LogLevel, Problem};
use pushlet_model::tenant::TenantLimits;

/// One key.
pub struct ConfigKey {
    /// Dotted path in the file. A segment in angle brackets stands for any name.
    pub path: &'static str,
    pub kind: ValueKind,
    /// As it is written in the file; None: not set.
    pub default: Option<&'static str>,
    /// A value for the example file.
    pub example: &'static str,
    pub(crate) docs: &'static str,
}

impl ConfigKey {
    /// Returns its meaning: the first line of its documentation. The example file has all lines.
    pub fn help(&self) -> &'static str {
        self.docs.lines().next().unwrap_or_default().trim()
    }
}

/// A table of the file with its keys.
pub(crate) struct ConfigSection {
    /// Empty, or the table's path with a dot at its end.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the example file, which a test writes"))]
    pub path: &'static str,
    #[cfg_attr(not(test), allow(dead_code, reason = "for the example file, which a test writes"))]
    pub docs: &'static str,
    pub keys: &'static [ConfigKey],
}

/// A part of the configuration that is a table of the file.
pub(crate) trait ReadSection: Sized {
    /// Reads the table, whose keys and values have been checked.
    fn read(table: Table) -> Result<Self, Problem>;
}

/// A value in its final type.
pub(crate) trait ReadValue: Sized {
    fn read(value: Value) -> Result<Self, Problem>;

    /// Returns the value of a key that is not set.
    fn unset() -> Option<Self> {
        None
    }
}

/// Declares a table: `/// documentation`, `field: Type = kind, default;` or `= kind, (unset example);` for each key,
/// and the tables inside it.
macro_rules! section {
    ($(#[doc = $about:literal])* $name:ident $path:literal {
        $($(#[doc = $docs:literal])+ $field:ident: $type:ty = $kind:expr, $value:tt;)*
    } $({ $($inner:ident: $table:ty,)* })?) => {
        $(#[doc = $about])*
        #[derive(Clone)]
        pub struct $name {
            $($(#[doc = $docs])+ pub $field: $type,)*
            $($(pub $inner: $table,)*)?
        }

        impl $name {
            pub(crate) const SECTION: ConfigSection = ConfigSection {
                path: $path,
                docs: concat!($($about, "\n"),*),
                keys: &[$(section!(@key $path, $field, $kind, [$($docs)+], $value)),*],
            };
        }

        impl ReadSection for $name {
            fn read(mut table: Table) -> Result<Self, Problem> {
                Ok(Self {
                    $($field: read_field(&mut table, concat!($path, stringify!($field)), stringify!($field))?,)*
                    $($($inner: read_table(&mut table, stringify!($inner))?,)*)?
                })
            }
        }
    };
    // The keys of a struct that is declared elsewhere.
    ($(#[doc = $about:literal])* const $name:ident $path:literal {
        $($(#[doc = $docs:literal])+ $field:ident = $kind:expr, $value:tt;)*
    }) => {
        pub(crate) const $name: ConfigSection = ConfigSection {
            path: $path,
            docs: concat!($($about, "\n"),*),
            keys: &[$(section!(@key $path, $field, $kind, [$($docs)+], $value)),*],
        };
    };
    (@key $path:literal, $field:ident, $kind:expr, [$($docs:literal)+], $value:tt) => {
        ConfigKey {
            path: concat!($path, stringify!($field)),
            kind: $kind,
            default: section!(@default $value),
            example: section!(@example $value),
            docs: concat!($($docs, "\n"),+),
        }
    };
    (@default (unset $example:tt)) => { None };
    (@default $default:tt) => { Some(stringify!($default)) };
    (@example (unset $example:tt)) => { stringify!($example) };
    (@example $default:tt) => { stringify!($default) };
}
pub(crate) use section;

impl ReadSection for TenantLimits {
    fn read(table: Table) -> Result<Self, Problem> {
        let mut limits = Table::new();
        for (name, value) in table {
            let value = match value {
                Value::Boolean(_) => value,
                size => {
                    let number = read_size(&size).map_err(Problem::new)?;
                    Value::Integer(i64::try_from(number).map_err(Problem::new)?)
                }
            };
            limits.insert(name, value);
        }
        limits.try_into().map_err(Problem::new)
    }
}

/// Takes the value of a key out of its table.
pub(crate) fn read_field<T: ReadValue>(table: &mut Table, path: &str, name: &str) -> Result<T, Problem> {
    match table.remove(name) {
        Some(value) => T::read(value).map_err(|why| Problem::new(format_args!("{path}: {why}"))),
        None => T::unset().ok_or_else(|| Problem::new(format_args!("{path} is not set"))),
    }
}

/// Takes a table out of the one that it is in; one that is not there is empty.
pub(crate) fn read_table<T: ReadSection>(table: &mut Table, name: &str) -> Result<T, Problem> {
    match table.remove(name) {
        Some(Value::Table(inner)) => T::read(inner),
        _ => T::read(Table::new()),
    }
}

impl<T: ReadValue> ReadValue for Option<T> {
    fn read(value: Value) -> Result<Self, Problem> {
        T::read(value).map(Some)
    }

    fn unset() -> Option<Self> {
        Some(None)
    }
}

/// Bytes, or text such as `64KiB`. A count is a number only: its kind has been checked.
impl ReadValue for usize {
    fn read(value: Value) -> Result<Self, Problem> {
        let number = read_size(&value).map_err(Problem::new)?;
        usize::try_from(number).map_err(Problem::new)
    }
}

impl ReadValue for Duration {
    fn read(value: Value) -> Result<Self, Problem> {
        humantime::parse_duration(&String::deserialize(value).map_err(Problem::new)?).map_err(Problem::new)
    }
}

macro_rules! read_by_serde {
    ($($type:ty),+) => {
        $(impl ReadValue for $type {
            fn read(value: Value) -> Result<Self, Problem> {
                by_serde(value)
            }
        })+
    };
}

read_by_serde!(bool, u32, String, PathBuf, SocketAddr, Url, Vec<String>, Vec<PathBuf>);
read_by_serde!(
    AddressFamily,
    HiddenText,
    ListenAddress,
    BaseUrl,
    IpNetworks,
    IsolationMode,
    LogFormat,
    LogLevel
);

fn by_serde<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    T::deserialize(value).map_err(Problem::new)
}
