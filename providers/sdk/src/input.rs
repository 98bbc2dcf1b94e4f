//! Reading settings, options and targets, with errors that name the field.

pub use crate::rejection::{all, invalid, missing, rejection, too_large, unsupported};

use crate::{Application, Notification, Rejection, json};
use serde_json::{Map, Number, Value};

/// A setting of the application; an empty one counts as absent.
pub fn setting<'a>(application: &'a Application, name: &str) -> Option<&'a str> {
    let (_, value) = application.settings.iter().find(|(key, _)| key == name)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

/// The notification's options, read by kind. A JSON null counts as absent.
#[derive(Clone, Copy)]
pub struct Options<'a>(&'a [(String, String)]);

impl<'a> Options<'a> {
    /// The options of this notification.
    pub fn of(notification: &'a Notification) -> Self {
        Self(&notification.options)
    }

    /// No options at all.
    pub fn none() -> Self {
        Self(&[])
    }

    /// Any JSON value.
    pub fn json(&self, name: &str) -> Result<Option<Value>, Rejection> {
        let Some((_, text)) = self.0.iter().find(|(key, _)| key == name) else { return Ok(None) };
        match json::parse(text) {
            Ok(Value::Null) => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(invalid(name, format!("{name} is not JSON: {error}"))),
        }
    }

    /// A JSON object.
    pub fn object(&self, name: &str) -> Result<Option<Map<String, Value>>, Rejection> {
        self.read(name, "an object", |value| match value {
            Value::Object(map) => Some(map),
            _ => None,
        })
    }

    /// A JSON array.
    pub fn list(&self, name: &str) -> Result<Option<Vec<Value>>, Rejection> {
        self.read(name, "a list", |value| match value {
            Value::Array(list) => Some(list),
            _ => None,
        })
    }

    /// A JSON string.
    pub fn text(&self, name: &str) -> Result<Option<String>, Rejection> {
        self.read(name, "a text", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Rejection> {
        self.read(name, "a whole number", |value| value.as_i64())
    }

    /// Any number.
    pub fn number(&self, name: &str) -> Result<Option<f64>, Rejection> {
        self.read(name, "a number", |value| value.as_f64())
    }

    /// Any number, in the digits in which it is written.
    pub fn number_as_written(&self, name: &str) -> Result<Option<Number>, Rejection> {
        self.read(name, "a number", |value| match value {
            Value::Number(number) => Some(number),
            _ => None,
        })
    }

    /// `true` or `false`; 1 and 0 are taken too, since Apple and Google write some flags so.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Rejection> {
        self.read(name, "true or false", |value| match value {
            Value::Bool(flag) => Some(flag),
            Value::Number(number) => match number.as_i64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
            _ => None,
        })
    }

    /// One of `choices`.
    pub fn choice(&self, name: &str, choices: &[&str]) -> Result<Option<String>, Rejection> {
        match self.text(name)? {
            Some(text) if !choices.contains(&text.as_str()) => {
                Err(invalid(name, format!("{name} must be one of: {}", choices.join(", "))))
            }
            other => Ok(other),
        }
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, Rejection> {
        let Some(value) = self.json(name)? else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| invalid(name, format!("{name} must be {expected}")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn option(json: &str) -> Vec<(String, String)> {
        vec![("x".into(), json.into())]
    }

    #[test]
    fn options_are_read_by_kind() {
        assert_eq!(Options(&option("true")).boolean("x").unwrap(), Some(true));
        assert_eq!(Options(&option("0")).boolean("x").unwrap(), Some(false));
        assert_eq!(Options(&option("null")).boolean("x").unwrap(), None);
        assert_eq!(Options(&option("7")).integer("x").unwrap(), Some(7));
        assert_eq!(Options(&option("0.5")).number("x").unwrap(), Some(0.5));
        let number = Options(&option("10.50")).number_as_written("x").unwrap().unwrap();
        assert_eq!(number.to_string(), "10.50");
        assert_eq!(Options(&option("\"a\"")).choice("x", &["a", "b"]).unwrap().unwrap(), "a");
        assert_eq!(Options(&[]).object("x").unwrap(), None);
    }

    #[test]
    fn a_wrong_option_is_named() {
        for rejection in [
            Options(&option("2")).boolean("x").unwrap_err(),
            Options(&option("1.5")).integer("x").unwrap_err(),
            Options(&option("\"c\"")).choice("x", &["a", "b"]).unwrap_err(),
            Options(&option("[]")).object("x").unwrap_err(),
            Options(&option("{")).json("x").unwrap_err(),
        ] {
            assert_eq!((rejection.code.as_str(), rejection.field.as_deref()), ("invalid_x", Some("x")));
        }
    }
}
