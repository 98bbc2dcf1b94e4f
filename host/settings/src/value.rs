//! How the values of the configuration are written, checked and read: texts, sizes, durations, URLs, and networks as
//! `192.0.2.7`, `10.0.0.0/8` or `2001:db8::/32`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use toml::Value;
use url::Url;
use zeroize::Zeroizing;

use pushlet_model::tenant::TenantId;
use pushlet_model::text;

/// How a value is written.
#[derive(Clone, Copy)]
pub enum ValueKind {
    Text,
    /// Text that is never shown.
    Secret,
    /// `address:port`.
    Address,
    /// `address:port`, `name:port` or `unix:/path`.
    Listen,
    Path,
    /// Many paths; in a variable they are joined as in `PATH`, a flag is given many times.
    Paths,
    /// Many texts; in a variable they are joined with commas, a flag is given many times.
    Texts,
    Switch,
    Count {
        least: i64,
        most: i64,
    },
    /// Bytes, or text such as `64KiB`.
    Size {
        least: u64,
        most: u64,
    },
    /// Text such as `1m 30s`.
    Duration {
        least: Duration,
        most: Duration,
    },
    /// `https://host[:port][/prefix]`.
    Url,
    /// The same with http too.
    WebUrl,
    Choice(&'static [&'static str]),
}

pub(crate) const fn duration(least: Duration, most: Duration) -> ValueKind {
    ValueKind::Duration { least, most }
}

pub(crate) const fn count(least: i64, most: i64) -> ValueKind {
    ValueKind::Count { least, most }
}

pub(crate) const fn size(least: u64, most: u64) -> ValueKind {
    ValueKind::Size { least, most }
}

impl ValueKind {
    /// Checks that the value is of this kind and within its bounds. The error completes "KEY: ".
    pub fn check(self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (ValueKind::Text | ValueKind::Secret | ValueKind::Path, Value::String(text)) => not_empty(text),
            (ValueKind::Address, Value::String(text)) => text
                .parse::<SocketAddr>()
                .map(drop)
                .map_err(|_| "expected an IP address and port, as \"127.0.0.1:9292\"".to_owned()),
            (ValueKind::Listen, Value::String(text)) => ListenAddress::parse(text).map(drop),
            (ValueKind::Paths, Value::Array(paths)) => paths.iter().try_for_each(|path| match path {
                Value::String(text) => not_empty(text),
                _ => Err("expected a list of paths".to_owned()),
            }),
            (ValueKind::Texts, Value::Array(texts)) => texts.iter().try_for_each(|text| match text {
                Value::String(text) => not_empty(text),
                _ => Err("expected a list of texts".to_owned()),
            }),
            (ValueKind::Switch, Value::Boolean(_)) => Ok(()),
            (ValueKind::Count { least, most }, Value::Integer(count)) => within(*count, least, most),
            (ValueKind::Size { least, most }, Value::Integer(_) | Value::String(_)) => {
                within(read_size(value)?, least, most)
            }
            (ValueKind::Duration { least, most }, Value::String(text)) => check_duration(text, least, most),
            (ValueKind::Url, Value::String(text)) => BaseUrl::parse(text).map(drop),
            (ValueKind::WebUrl, Value::String(text)) => web_url(text),
            (ValueKind::Choice(choices), Value::String(text)) if choices.contains(&text.as_str()) => Ok(()),
            _ => Err(format!("expected {}", self.expected())),
        }
    }

    /// Returns the value of a flag or variable, which is always text; [`ValueKind::check`] tells whether it is right.
    pub fn of_text(self, text: &str) -> Value {
        match self {
            ValueKind::Switch => text.parse().map(Value::Boolean).ok(),
            ValueKind::Count { .. } => text.parse().map(Value::Integer).ok(),
            _ => None,
        }
        .unwrap_or_else(|| Value::String(text.to_owned()))
    }

    /// Returns its placeholder in the help text.
    pub fn placeholder(self) -> &'static str {
        match self {
            ValueKind::Text | ValueKind::Texts => "TEXT",
            ValueKind::Secret => "SECRET",
            ValueKind::Address | ValueKind::Listen => "ADDRESS:PORT",
            ValueKind::Path | ValueKind::Paths => "FILE",
            ValueKind::Switch => "true|false",
            ValueKind::Count { .. } => "NUMBER",
            ValueKind::Size { .. } => "SIZE",
            ValueKind::Duration { .. } => "DURATION",
            ValueKind::Url | ValueKind::WebUrl => "URL",
            ValueKind::Choice(_) => "CHOICE",
        }
    }

    fn expected(self) -> String {
        match self {
            ValueKind::Text
            | ValueKind::Secret
            | ValueKind::Address
            | ValueKind::Listen
            | ValueKind::Url
            | ValueKind::WebUrl => "a text in quotes".to_owned(),
            ValueKind::Path => "a path in quotes".to_owned(),
            ValueKind::Paths => "a list of paths".to_owned(),
            ValueKind::Texts => "a list of texts".to_owned(),
            ValueKind::Switch => "true or false".to_owned(),
            ValueKind::Count { least, most } => format!("a number from {least} to {most}"),
            ValueKind::Size { .. } => "a number of bytes, or a size as \"64KiB\"".to_owned(),
            ValueKind::Duration { .. } => "a duration as \"10s\"".to_owned(),
            ValueKind::Choice(choices) => format!("one of {}", choices.join(", ")),
        }
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    Ip(SocketAddr),
    /// A name, which is looked up at the start, and a port.
    Name(String, u16),
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Reads `127.0.0.1:9292`, `[::1]:9292`, `localhost:9292` or `unix:/run/pushlet.sock`. The error completes "KEY: ".
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err("expected the whole path of a socket, as \"unix:/run/pushlet.sock\"".to_owned()),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        match text.rsplit_once(':').map(|(name, port)| (name, port.parse())) {
            Some((name, Ok(port))) if plain(name) => Ok(Self::Name(name.to_owned(), port)),
            _ => Err("expected an address and port, as \"127.0.0.1:9292\", or \"unix:/run/pushlet.sock\""
                .to_owned()),
        }
    }

    /// Returns true if only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ip(address) => address.ip().to_canonical().is_loopback(),
            Self::Name(name, _) => name.eq_ignore_ascii_case("localhost"),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A secret text of the configuration. It has no `Debug`, `Display` or `Serialize`.
#[derive(Clone)]
pub struct HiddenText(Zeroizing<String>);

impl HiddenText {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for HiddenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Where a provider's requests go instead: scheme `https`, a host, and perhaps a port and a path prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Reads `https://host[:port][/prefix]`. The error completes "KEY: ".
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        if url.scheme() != "https" {
            return Err("expected a URL that starts with https://".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL with a user name or password is not accepted".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("expected a URL without a query and fragment".to_owned());
        }
        Ok(Self(url))
    }

    /// Returns the host as it is written in the URL; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }

    /// Returns the prefix of each request's path: empty, or a path without a slash at its end.
    pub fn prefix(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }

    /// `https://host[:port][/prefix]`, without a slash at its end.
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Returns true if a provider or an endpoint may have this name.
pub fn is_name(text: &str) -> bool {
    text::is_name(text, 64)
}

/// Returns true if `[endpoints]` may name a provider like this: `name` for one that all tenants share, `tenant/name`
/// for an uploaded one.
pub fn is_provider(text: &str) -> bool {
    text.split_once('/')
        .map_or_else(|| is_name(text), |(tenant, name)| TenantId::parse(tenant).is_some() && is_name(name))
}

/// The proxies in front of this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpNetworks(Vec<IpNetwork>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IpNetwork {
    address: u128,
    /// Bits of `address` that count, of 128.
    prefix: u32,
}

impl IpNetworks {
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = bits(address);
        self.0.iter().any(|network| mask(address, network.prefix) == mask(network.address, network.prefix))
    }
}

impl<'de> Deserialize<'de> for IpNetworks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let networks: Result<_, _> = texts.iter().map(|text| parse_network(text)).collect();
        networks.map(Self).map_err(de::Error::custom)
    }
}

fn parse_network(text: &str) -> Result<IpNetwork, String> {
    let wrong = || format!("{text:?} is neither an IP address nor a network as \"10.0.0.0/8\"");
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u32>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
    // An IPv4 address is the last 32 bits of its mapped form (RFC 4291, section 2.5.5.2).
    let (length, skipped) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
    let prefix = prefix.unwrap_or(length);
    if prefix > length {
        return Err(wrong());
    }
    Ok(IpNetwork { address: bits(address), prefix: skipped + prefix })
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(address: u128, prefix: u32) -> u128 {
    // A shift by all 128 bits is none.
    address.checked_shr(128 - prefix).unwrap_or(0)
}

fn web_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("expected a URL that starts with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with a user name or password is not accepted".to_owned());
    }
    Ok(())
}

fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

fn within<T: PartialOrd + std::fmt::Display>(value: T, least: T, most: T) -> Result<(), String> {
    if value < least || value > most {
        return Err(format!("{value} is not within {least} and {most}"));
    }
    Ok(())
}

fn check_duration(text: &str, least: Duration, most: Duration) -> Result<(), String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("expected a duration as \"10s\": {error}"))?;
    if duration < least || duration > most {
        let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
        return Err(format!("{text} is not within {least} and {most}"));
    }
    Ok(())
}

/// Reads a number of bytes, or a text such as `64KiB`.
pub(crate) fn read_size(value: &Value) -> Result<u64, String> {
    let unreadable = || "expected a number of bytes, or a size as \"64KiB\"".to_owned();
    let text = match value {
        Value::Integer(bytes) => return u64::try_from(*bytes).map_err(|_| unreadable()),
        Value::String(text) => text.trim(),
        _ => return Err(unreadable()),
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(unreadable()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(unreadable)
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
