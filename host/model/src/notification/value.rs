//! One field's value: whether it is of the right kind, and what it becomes. A form's values are text: what they mean
//! depends on the field, and never on what they look like.

use std::borrow::Cow;

use serde_json::Value;

use crate::contract::manifest::{Field, ValueKind};
use crate::contract::{CriticalSound, Priority, Sound};
use crate::error::Error;

/// Returns the kind of a common field, or None if it is not one.
pub(super) fn common_kind(name: &str) -> Option<ValueKind> {
    Some(match name {
        "title" | "subtitle" | "body" | "image" | "category" | "thread" | "collapse_key" | "identifier" => {
            ValueKind::Text
        }
        "title_loc_key" | "subtitle_loc_key" | "body_loc_key" | "priority" => ValueKind::Text,
        "badge" | "ttl" => ValueKind::Integer,
        // A text, or an object with more fields.
        "alert" | "sound" => ValueKind::Text,
        "data" | "title_loc_args" | "subtitle_loc_args" | "body_loc_args" => ValueKind::Json,
        _ => return None,
    })
}

/// Returns an error if the manifest's field does not accept the value.
pub fn check(field: &Field, value: &Value) -> Result<(), Error> {
    let (fits, kind) = match field.kind {
        ValueKind::Text => (value.is_string(), "a text"),
        ValueKind::Integer => (value.is_i64() || value.is_u64(), "an integer"),
        ValueKind::Number => (value.is_number(), "a number"),
        ValueKind::Boolean => (value.is_boolean(), "true or false"),
        ValueKind::Json => (true, "JSON"),
    };
    if !fits {
        return Err(wrong(&field.name, kind));
    }
    if let Some(number) = value.as_f64() {
        check_range(field, number)?;
    }
    if field.choices.is_empty() && field.max_length.is_none() {
        return Ok(());
    }
    let plain = value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed);
    if let Some(most) = field.max_length.filter(|most| plain.len() > *most as usize) {
        return Err(wrong(&field.name, &format!("at most {most} bytes")));
    }
    if field.choices.is_empty() || field.choices.iter().any(|choice| *choice == plain) {
        return Ok(());
    }
    Err(wrong(&field.name, &format!("one of {}", field.choices.join(", "))))
}

fn check_range(field: &Field, number: f64) -> Result<(), Error> {
    let (least, most) = (field.minimum, field.maximum);
    if least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most) {
        return Ok(());
    }
    let unit = field.unit.as_ref().map(|unit| format!(" {unit}")).unwrap_or_default();
    let range = match (least, most) {
        (Some(least), Some(most)) => format!("from {least} to {most}{unit}"),
        (Some(least), None) => format!("at least {least}{unit}"),
        (None, most) => format!("at most {}{unit}", most.unwrap_or_default()),
    };
    Err(wrong(&field.name, &range))
}

/// A field's value in a classic request.
pub(super) enum FormValue {
    /// From a form.
    Text(Vec<u8>),
    /// From a JSON body.
    Json(Value),
}

/// Returns the value of a field of this kind.
pub(super) fn typed(name: &str, given: FormValue, kind: ValueKind) -> Result<Value, Error> {
    let bytes = match given {
        FormValue::Text(bytes) => bytes,
        // In a form, data is JSON in a text, and callers have written it so since 2012.
        FormValue::Json(Value::String(text)) if kind != ValueKind::Json || name == "data" => {
            text.into_bytes()
        }
        // JSON bodies of classic routes may write a number where a form has its text.
        FormValue::Json(value @ (Value::Number(_) | Value::Bool(_))) if kind != ValueKind::Json => {
            value.to_string().into_bytes()
        }
        FormValue::Json(value) => return Ok(value),
    };
    let text = String::from_utf8(bytes).map_err(|_| wrong(name, "UTF-8 text"))?;
    let typed = match kind {
        ValueKind::Json => return parse(name, &text),
        ValueKind::Text => Ok(Value::String(text)),
        ValueKind::Integer | ValueKind::Number if text.is_empty() => Ok(Value::Null),
        ValueKind::Integer => number(&text).filter(|number| !number.is_f64()).ok_or("an integer"),
        ValueKind::Number => number(&text).ok_or("a number"),
        ValueKind::Boolean => match text.as_str() {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            "" => Ok(Value::Null),
            _ => Err("true or false"),
        },
    };
    typed.map_err(|expected| wrong(name, expected))
}

fn parse(name: &str, text: &str) -> Result<Value, Error> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    pushlet_json::from_slice(text.as_bytes()).map_err(|error| match name {
        "data" => not_data(error),
        _ => wrong(name, &format!("JSON: {error}")),
    })
}

fn number(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim()).ok().filter(Value::is_number)
}

pub(super) fn text(name: &str, value: Value) -> Result<String, Error> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong(name, "a text")),
    }
}

pub(super) fn texts(name: &str, value: Value) -> Result<Vec<String>, Error> {
    let Value::Array(values) = value else { return Err(wrong(name, "an array of texts")) };
    let each = |value| match value {
        Value::String(text) => Ok(text),
        _ => {
            let message = format!("each argument in {name} must be a text");
            Err(Error::field(format!("invalid_{name}"), name, message))
        }
    };
    values.into_iter().map(each).collect()
}

pub(super) fn whole(name: &str, value: &Value) -> Result<u32, Error> {
    let whole = value.as_u64().and_then(|number| u32::try_from(number).ok());
    whole.ok_or_else(|| wrong(name, "an integer from 0 to 4294967295"))
}

/// Reads `default`, a file name, or `{"name", "volume", "critical": 1}`. Without `critical` the volume has no
/// meaning.
pub(super) fn sound(name: &str, value: Value) -> Result<Sound, Error> {
    let wrong = || wrong(name, "a text, or an object with name, volume and critical");
    match value {
        Value::String(text) if text == "default" => Ok(Sound::Default),
        // No sound file has such a name: a critical alert would become a sound that does not exist.
        Value::String(text) if text.trim_start().starts_with('{') => Err(self::wrong(
            name,
            "the name of a sound where it is a text; a critical sound is an object in a JSON body, or stands in \
             the raw payload",
        )),
        Value::String(text) => Ok(Sound::Named(text)),
        Value::Object(parts) => {
            let known = |key: &String| ["name", "volume", "critical"].contains(&key.as_str());
            if !parts.keys().all(known) {
                return Err(wrong());
            }
            let sound =
                parts.get("name").map_or(Some("default"), Value::as_str).ok_or_else(wrong)?.to_owned();
            let volume = parts.get("volume").map_or(Some(1.0), Value::as_f64).ok_or_else(wrong)?;
            let critical = critical(parts.get("critical")).ok_or_else(|| {
                let message = format!("critical in {name} must be true, false, 1 or 0");
                Error::field(format!("invalid_{name}"), name, message)
            })?;
            match (critical, (0.0..=1.0).contains(&volume)) {
                (true, true) => Ok(Sound::Critical(CriticalSound { name: sound, volume })),
                (true, false) => Err(self::wrong(name, "given a volume from 0 to 1")),
                (false, _) if sound == "default" => Ok(Sound::Default),
                (false, _) => Ok(Sound::Named(sound)),
            }
        }
        _ => Err(wrong()),
    }
}

/// Reads the number that Apple writes, or a boolean. Returns None if it is neither.
fn critical(value: Option<&Value>) -> Option<bool> {
    match value {
        None | Some(Value::Null) => Some(false),
        Some(Value::Bool(critical)) => Some(*critical),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Some(_) => None,
    }
}

/// Reads a priority by its name, or by the number that Apple gives it.
pub(super) fn priority(name: &str, value: &Value) -> Result<Priority, Error> {
    let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match plain.as_str() {
        "high" | "HIGH" | "10" => Ok(Priority::High),
        "normal" | "NORMAL" | "5" => Ok(Priority::Normal),
        "low" | "LOW" | "1" => Ok(Priority::Low),
        _ => Err(wrong(name, "high, normal or low")),
    }
}

/// Reads the caller's id of the message, a text or a number.
pub(super) fn identifier(name: &str, value: Value) -> Result<String, Error> {
    match value {
        Value::Number(number) => Ok(number.to_string()),
        other => text(name, other),
    }
}

pub(super) fn data(value: &Value) -> Result<String, Error> {
    if value.is_object() { Ok(value.to_string()) } else { Err(not_data("expected an object")) }
}

/// Returns the original's error, with the parser's own words.
pub(super) fn not_data(why: impl std::fmt::Display) -> Error {
    Error::field("invalid_data_json", "data", format!("data could not be converted to json: {why}"))
}

pub(super) fn object(name: &str, value: &Value) -> Result<(), Error> {
    if value.is_object() { Ok(()) } else { Err(wrong(name, "an object")) }
}

pub(super) fn wrong(name: &str, expected: &str) -> Error {
    Error::field(format!("invalid_{name}"), name, format!("{name} must be {expected}"))
}
