//! A form's values are text: what they mean depends on the field, and never on what they look like.

use serde_json::Value;

use super::value;
use crate::contract::manifest::ValueKind;
use crate::error::Error;

/// A field of a classic route.
pub(super) enum FormValue {
    /// From a form.
    Text(Vec<u8>),
    /// From a JSON body.
    Json(Value),
}

/// The value that a field of this kind has.
pub(super) fn typed(name: &str, given: FormValue, kind: ValueKind) -> Result<Value, Error> {
    let bytes = match given {
        FormValue::Text(bytes) => bytes,
        // A form's data is JSON in a text, and since 2012 callers write it so.
        FormValue::Json(Value::String(text)) if kind != ValueKind::Json || name == "data" => {
            text.into_bytes()
        }
        FormValue::Json(value @ (Value::Number(_) | Value::Bool(_))) if kind != ValueKind::Json => {
            value.to_string().into_bytes()
        }
        FormValue::Json(value) => return Ok(value),
    };
    let text = String::from_utf8(bytes).map_err(|_| value::wrong(name, "UTF-8 text"))?;
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
    typed.map_err(|expected| value::wrong(name, expected))
}

fn parse(name: &str, text: &str) -> Result<Value, Error> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    pushlet_json::from_slice(text.as_bytes()).map_err(|error| match name {
        "data" => value::not_data(error),
        _ => value::wrong(name, &format!("JSON: {error}")),
    })
}

fn number(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim()).ok().filter(Value::is_number)
}
