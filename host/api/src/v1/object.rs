//! A JSON object of a request, read field by field with errors that name the field.

use std::num::NonZeroU64;
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::form::{ANOTHER_KIND, json_fault, without_mark};
use pushlet_gateway::Duplicates;
use pushlet_model::error::{Error, Kind};
use pushlet_model::names::{did_you_mean, nearest};

/// The fields that are not read yet, and where the object stands in the request.
pub(super) struct Object {
    fields: Map<String, Value>,
    /// Before its fields' names in errors: `notifications[2].`.
    place: String,
}

impl Object {
    /// All that is there must be known; an unknown name is an error that says which known one is nearest.
    pub fn new(fields: Map<String, Value>, place: &str, known: &[&str]) -> Result<Self, Error> {
        match fields.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Self { fields, place: place.to_owned() }),
            Some(name) => {
                let hint = did_you_mean(nearest(name, known.iter().copied()));
                let message = format!("{name} is not a field of this request{hint}");
                Err(Error::field("unknown_field", format!("{place}{name}"), message))
            }
        }
    }

    /// From a value that must be an object.
    pub fn of(value: Value, place: &str, known: &[&str]) -> Result<Self, Error> {
        match value {
            Value::Object(fields) => Self::new(fields, &format!("{place}."), known),
            _ => Err(Error::field("invalid_json", place, format!("{place} must be an object"))),
        }
    }

    /// Parses a text that must hold one object.
    pub fn parse(text: &[u8], known: &[&str]) -> Result<Self, Error> {
        Self::new(parse(text)?, "", known)
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, Error> {
        self.take(name, "a text", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// A text that must be there.
    pub fn needed_text(&mut self, name: &str) -> Result<String, Error> {
        let place = format!("{}{name}", self.place);
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| {
            Error::field(format!("missing_{name}"), place, format!("{name} is required for this call"))
        })
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Error> {
        self.take(name, "an object", |value| match value {
            Value::Object(object) => Some(object),
            _ => None,
        })
    }

    pub fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Error> {
        self.take(name, "a list", |value| match value {
            Value::Array(list) => Some(list),
            _ => None,
        })
    }

    pub fn switch(&mut self, name: &str) -> Result<bool, Error> {
        Ok(self.maybe(name)?.unwrap_or(false))
    }

    /// A switch that may be neither on nor off.
    pub fn maybe(&mut self, name: &str) -> Result<Option<bool>, Error> {
        self.take(name, "true or false", |value| value.as_bool())
    }

    /// What becomes of targets that come again.
    pub fn duplicates(&mut self) -> Result<Duplicates, Error> {
        let duplicates = self.take("duplicates", "skip or send", |value| match value.as_str() {
            Some("skip") => Some(Duplicates::Skip),
            Some("send") => Some(Duplicates::Send),
            _ => None,
        })?;
        Ok(duplicates.unwrap_or_default())
    }

    /// A wait as callers write it: seconds.
    pub fn seconds(&mut self, name: &str) -> Result<Option<Duration>, Error> {
        self.take(name, "a number of seconds above 0", |value| {
            Duration::try_from_secs_f64(value.as_f64()?).ok().filter(|wait| !wait.is_zero())
        })
    }

    pub fn count(&mut self, name: &str) -> Result<Option<u64>, Error> {
        self.take(name, "a whole number", |value| value.as_u64())
    }

    pub fn positive(&mut self, name: &str) -> Result<Option<NonZeroU64>, Error> {
        self.take(name, "a whole number above 0", |value| NonZeroU64::new(value.as_u64()?))
    }

    /// Any value; null counts as none.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => {
                let place = format!("{}{name}", self.place);
                Err(Error::field(format!("invalid_{name}"), place, format!("{name} must be {expected}")))
            }
        }
    }
}

/// The JSON object that a text holds.
fn parse(text: &[u8]) -> Result<Map<String, Value>, Error> {
    let invalid =
        |why: String| Error::new(Kind::Invalid, "invalid_json", format!("it is not a JSON object: {why}"));
    match pushlet_json::from_slice(without_mark(text)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(invalid(ANOTHER_KIND.to_owned())),
        Err(error) => Err(invalid(json_fault(&error))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KNOWN: &[&str] = &["application_id", "targets", "deadline", "validate_only"];

    fn field_of<T>(result: Result<T, Error>) -> (String, Option<String>) {
        let error = result.err().unwrap();
        (error.code.into_owned(), error.field)
    }

    fn told(code: &str, field: &str) -> (String, Option<String>) {
        (code.to_owned(), Some(field.to_owned()))
    }

    #[test]
    fn an_unknown_name_is_told_with_the_nearest_known_one() {
        let error = Object::parse(br#"{"aplication_id": 1}"#, KNOWN).err().unwrap();
        assert_eq!((&*error.code, error.field.as_deref()), ("unknown_field", Some("aplication_id")));
        assert!(error.message.ends_with("did you mean application_id?"), "{}", error.message);
        let error = Object::parse(br#"{"x": 1}"#, KNOWN).err().unwrap();
        assert_eq!(error.message, "x is not a field of this request");
    }

    #[test]
    fn a_wrong_value_names_its_place() {
        let value: Value = serde_json::json!({"targets": 1, "deadline": 0, "validate_only": "yes"});
        let mut object = Object::of(value, "notifications[2]", KNOWN).unwrap();
        assert_eq!(field_of(object.list("targets")), told("invalid_targets", "notifications[2].targets"));
        assert_eq!(
            field_of(object.seconds("deadline")),
            told("invalid_deadline", "notifications[2].deadline")
        );
        let wrong = object.switch("validate_only");
        assert_eq!(field_of(wrong), told("invalid_validate_only", "notifications[2].validate_only"));
        let missing = object.needed_text("application_id");
        assert_eq!(field_of(missing), told("missing_application_id", "notifications[2].application_id"));
    }

    #[test]
    fn waits_are_seconds_above_0() {
        for (text, wait) in
            [("1.5", Some(Duration::from_millis(1500))), ("1e-3", Some(Duration::from_millis(1)))]
        {
            let mut object = Object::parse(format!("{{\"deadline\": {text}}}").as_bytes(), KNOWN).unwrap();
            assert_eq!(object.seconds("deadline").unwrap(), wait);
        }
        for text in ["-1", "0", "1e300", "\"1\"", "[]", "1e-30"] {
            let mut object = Object::parse(format!("{{\"deadline\": {text}}}").as_bytes(), KNOWN).unwrap();
            assert!(object.seconds("deadline").is_err(), "{text}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        let mut object = Object::parse(b"\xef\xbb\xbf{\"application_id\": \"a\"}", KNOWN).unwrap();
        assert_eq!(object.text("application_id").unwrap().as_deref(), Some("a"));
    }

    #[test]
    fn null_counts_as_none() {
        let mut object = Object::parse(br#"{"targets": null, "validate_only": null}"#, KNOWN).unwrap();
        assert_eq!(object.list("targets").unwrap(), None);
        assert!(!object.switch("validate_only").unwrap());
    }
}
