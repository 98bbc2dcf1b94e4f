//! How the values of the configuration are written, checked and read.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use toml::Value;
use url::Url;
use zeroize::Zeroizing;

use pushlet_model::names;
use pushlet_model::tenant::TenantId;

/// How a value is written.
#[derive(Clone, Copy)]
pub enum ValueKind {
    Text,
    /// Text that is never shown.
    Secret,
    /// `address:port`.
    Address,
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

impl ValueKind {
    /// Checks that the value is of this kind and within its bounds. The error completes "KEY: ".
    pub fn check(self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (ValueKind::Text | ValueKind::Secret | ValueKind::Path, Value::String(text)) => not_empty(text),
            (ValueKind::Address, Value::String(text)) => text
                .parse::<SocketAddr>()
                .map(drop)
                .map_err(|_| "expected an IP address and port, as \"127.0.0.1:9292\"".to_owned()),
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

    /// The value of a flag or variable, which is always text; [`ValueKind::check`] tells whether it is right.
    pub fn of_text(self, text: &str) -> Value {
        match self {
            ValueKind::Switch => text.parse().map(Value::Boolean).ok(),
            ValueKind::Count { .. } => text.parse().map(Value::Integer).ok(),
            _ => None,
        }
        .unwrap_or_else(|| Value::String(text.to_owned()))
    }

    /// The word for it in the help text.
    pub fn placeholder(self) -> &'static str {
        match self {
            ValueKind::Text | ValueKind::Texts => "TEXT",
            ValueKind::Secret => "SECRET",
            ValueKind::Address => "ADDRESS:PORT",
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
            ValueKind::Text | ValueKind::Secret | ValueKind::Address | ValueKind::Url | ValueKind::WebUrl => {
                "a text in quotes".to_owned()
            }
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

    /// The host as it stands in the URL; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }

    /// What goes before the path of each request: empty, or a path without a slash at its end.
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

/// For `#[serde(deserialize_with)]`.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    humantime::parse_duration(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// For `#[serde(deserialize_with)]`.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let bytes = read_size(&Value::deserialize(deserializer)?).map_err(de::Error::custom)?;
    usize::try_from(bytes).map_err(de::Error::custom)
}

/// The same where there may be none.
pub fn some_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    size(deserializer).map(Some)
}

/// Returns true if a provider or an endpoint may have this name.
pub fn is_name(text: &str) -> bool {
    names::is_name(text, 64)
}

/// Returns true if `[endpoints]` may name a provider like this: `name` for one that all tenants share, `tenant/name`
/// for an uploaded one.
pub fn is_provider(text: &str) -> bool {
    text.split_once('/')
        .map_or_else(|| is_name(text), |(tenant, name)| TenantId::parse(tenant).is_some() && is_name(name))
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

fn read_size(value: &Value) -> Result<u64, String> {
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(value: &str) -> Value {
        Value::String(value.to_owned())
    }

    #[test]
    fn sizes_are_numbers_or_texts_with_a_binary_unit() {
        for (written, bytes) in
            [("65536", 65536), ("64KiB", 65536), ("64 KiB", 65536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(read_size(&text(written)).unwrap(), bytes, "{written}");
        }
        assert_eq!(read_size(&Value::Integer(7)).unwrap(), 7);
        for wrong in ["", "KiB", "-1", "1.5MiB", "1MB", "99999999999GiB", "18446744073709551616"] {
            assert!(read_size(&text(wrong)).is_err(), "{wrong}");
        }
        assert!(read_size(&Value::Integer(-1)).is_err());
    }

    #[test]
    fn a_base_url_is_https_and_has_nothing_but_host_port_and_prefix() {
        let url = BaseUrl::parse("https://127.0.0.1:8443/fake/apns/").unwrap();
        assert_eq!((url.host(), url.port(), url.prefix()), ("127.0.0.1", 8443, "/fake/apns"));
        assert_eq!(url.as_str(), "https://127.0.0.1:8443/fake/apns");
        let bare = BaseUrl::parse("https://push.example").unwrap();
        assert_eq!(
            (bare.host(), bare.port(), bare.prefix(), bare.as_str()),
            ("push.example", 443, "", "https://push.example")
        );
        for wrong in [
            "http://push.example",
            "push.example",
            "https://",
            "https://a:b@push.example",
            "https://x/?q",
            "https://x/#f",
        ] {
            assert!(BaseUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bounds_hold() {
        let wait = ValueKind::Duration { least: Duration::from_secs(1), most: Duration::from_secs(60) };
        assert!(wait.check(&text("1m")).is_ok());
        for wrong in ["0s", "61s", "ten", "10"] {
            assert!(wait.check(&text(wrong)).is_err(), "{wrong}");
        }
        let count = ValueKind::Count { least: 1, most: 4 };
        assert!(count.check(&count.of_text("4")).is_ok());
        assert!(count.check(&count.of_text("5")).is_err());
        assert!(count.check(&count.of_text("four")).unwrap_err().contains("a number from 1 to 4"));
        assert!(ValueKind::Switch.check(&ValueKind::Switch.of_text("yes")).is_err());
        assert!(ValueKind::Choice(&["a", "b"]).check(&text("c")).unwrap_err().contains("one of a, b"));
        assert!(ValueKind::Text.check(&text("")).is_err());
    }
}
