//! JSON objects: parsing and merging.

use crate::rejection::invalid;
use crate::{Rejection, Response};
use serde_json::{Map, Value};

/// A JSON object.
pub type Object = Map<String, Value>;

/// The only parser in a component: each further way to call serde_json's would add 40 KB.
pub fn parse(text: &str) -> Result<Value, serde_json::Error> {
    pushlet_json::from_slice(text.as_bytes())
}

/// The only writer in a component, and twice as fast as `Value`'s own `to_string`.
pub fn write(value: &impl serde_core::Serialize) -> String {
    // Writing fails only for maps whose keys are no texts, which JSON values never have.
    serde_json::to_string(value).unwrap_or_default()
}

/// A response's body, or null where it is not JSON.
pub fn body(response: &Response) -> Value {
    std::str::from_utf8(&response.body).ok().and_then(|text| parse(text).ok()).unwrap_or_default()
}

/// Parses a field of the notification that must be an object, such as `data`.
pub fn object(field: &str, text: Option<&str>) -> Result<Object, Rejection> {
    let Some(text) = text else { return Ok(Object::new()) };
    match parse(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(invalid(field, format!("{field} must be a JSON object"))),
        Err(error) => Err(invalid(field, format!("{field} is not JSON: {error}"))),
    }
}

/// Merges `over` into `base`: objects key by key, all the way down; any other value of `over` wins.
pub fn merge(base: &mut Object, over: Object) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// The bytes that a map of data weighs: its keys, and its values as text.
pub fn weight(data: &Object) -> usize {
    data.iter().map(|(key, value)| key.len() + text(value).len()).sum()
}

/// A value as text: a string as it is, anything else as JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => write(other),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn merge_goes_down_through_objects_only() {
        let mut base = map(json!({"a": {"b": 1, "c": [1]}, "d": {"e": 1}}));
        merge(&mut base, map(json!({"a": {"c": [2]}, "d": 5, "f": null})));
        assert_eq!(Value::Object(base), json!({"a": {"b": 1, "c": [2]}, "d": 5, "f": null}));
    }

    #[test]
    fn weight_counts_keys_and_text() {
        assert_eq!(weight(&map(json!({"ab": "cde", "f": 12}))), 8);
    }
}
