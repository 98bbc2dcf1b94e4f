//! A form's values are text: what they mean depends on the field.

use serde_json::Value;

use super::value;
use crate::contract::manifest::ValueKind;
use crate::error::Error;

/// The value that a form field's text stands for.
pub(super) fn typed(name: &str, bytes: Vec<u8>, kind: ValueKind) -> Result<Value, Error> {
    let text = String::from_utf8(bytes).map_err(|_| value::wrong(name, "UTF-8 text"))?;
    let typed = match kind {
        ValueKind::Json => return parse(name, &text),
        // What came as an object in a JSON body is an object again.
        ValueKind::Text if (name == "alert" || name == "sound") && text.starts_with('{') => {
            Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
        }
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
    serde_json::from_str(text).map_err(|error| match name {
        "data" => value::not_data(error),
        _ => value::wrong(name, &format!("JSON: {error}")),
    })
}

fn number(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim()).ok().filter(Value::is_number)
}
