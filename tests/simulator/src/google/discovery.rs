//! Checks a JSON body against a schema of Google's discovery document, as proto3 JSON reads it.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::json::Violation;

/// As many violations are reported at most.
const MAX_VIOLATIONS: usize = 100;

#[derive(Deserialize)]
struct Document {
    schemas: HashMap<String, Schema>,
}

/// A schema, in the dialect of discovery documents.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Schema {
    #[serde(rename = "type")]
    kind: String,
    format: String,
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "enum")]
    values: Option<Vec<String>>,
    properties: HashMap<String, Schema>,
    additional_properties: Option<Box<Schema>>,
    items: Option<Box<Schema>>,
}

/// The schemas of FCM HTTP v1.
static SCHEMAS: LazyLock<HashMap<String, Schema>> = LazyLock::new(|| {
    let document: Result<Document, _> =
        serde_json::from_str(include_str!("../../data/fcm.v1.discovery.json"));
    document.map(|document| document.schemas).unwrap_or_default()
});

/// What is wrong with `body` as a `name`, such as `SendMessageRequest`; empty where nothing is.
pub(super) fn check(name: &str, body: &Value) -> Vec<Violation> {
    let mut found = Checker { violations: Vec::new() };
    match SCHEMAS.get(name) {
        Some(schema) => found.value(schema, body, ""),
        None => found.add("", format!("Unknown schema {name}")),
    }
    found.violations
}

/// A member by its camelCase name, in either of the spellings that proto3 JSON allows.
pub(super) fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = object.as_object()?;
    fields.get(name).or_else(|| fields.get(&snake(name))).filter(|value| !value.is_null())
}

/// Seconds of a proto3 JSON duration such as `3.5s`.
pub(super) fn duration(text: &str) -> Option<f64> {
    let number = text.strip_suffix('s')?;
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = number.strip_prefix('-').unwrap_or(number);
    let valid = match unsigned.split_once('.') {
        Some((whole, fraction)) => plain(whole) && plain(fraction) && fraction.len() <= 9,
        None => plain(unsigned),
    };
    number.parse().ok().filter(|_| valid)
}

struct Checker {
    violations: Vec<Violation>,
}

impl Checker {
    fn value(&mut self, schema: &Schema, value: &Value, path: &str) {
        if value.is_null() || schema.kind == "any" {
            return;
        }
        if let Some(name) = &schema.reference {
            return match SCHEMAS.get(name) {
                Some(schema) => self.value(schema, value, path),
                None => self.add(path, format!("Unknown schema {name}")),
            };
        }
        match (schema.kind.as_str(), value) {
            ("object", Value::Object(fields)) => self.object(schema, fields, path),
            ("array", Value::Array(items)) => {
                let Some(schema) = &schema.items else { return };
                for (index, item) in items.iter().enumerate() {
                    self.value(schema, item, &format!("{path}[{index}]"));
                }
            }
            _ if scalar_fits(schema, value) => {}
            _ => self.add(path, format!("Invalid value at '{path}' ({}), {value}", type_name(schema))),
        }
    }

    fn object(&mut self, schema: &Schema, fields: &Map<String, Value>, path: &str) {
        if let Some(schema) = &schema.additional_properties {
            for (index, (_, value)) in fields.iter().enumerate() {
                match value.is_null() {
                    true => self.add(path, format!("Invalid value at '{path}[{index}].value', null")),
                    false => self.value(schema, value, &format!("{path}[{index}].value")),
                }
            }
            return;
        }
        for (name, value) in fields {
            let known = schema.properties.get(name).or_else(|| by_snake(schema, name));
            match known {
                Some(schema) => self.value(schema, value, &join(path, &snake(name))),
                None => self.add(path, unknown(name, path)),
            }
        }
    }

    fn add(&mut self, field: &str, description: String) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { field: field.to_owned(), description });
        }
    }
}

fn unknown(name: &str, path: &str) -> String {
    let place = if path.is_empty() { String::new() } else { format!(" at '{path}'") };
    format!("Invalid JSON payload received. Unknown name {}{place}: Cannot find field.", Value::from(name))
}

fn by_snake<'a>(schema: &'a Schema, name: &str) -> Option<&'a Schema> {
    schema.properties.iter().find(|(camel, _)| snake(camel) == name).map(|(_, schema)| schema)
}

fn scalar_fits(schema: &Schema, value: &Value) -> bool {
    match (schema.kind.as_str(), value) {
        ("string", Value::String(text)) => match (&schema.values, schema.format.as_str()) {
            (Some(values), _) => values.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)),
            (None, "google-duration") => duration(text).is_some(),
            (None, "google-datetime") => is_datetime(text),
            (None, _) => true,
        },
        // proto3 JSON takes an enum's number as well as its name.
        ("string", Value::Number(number)) => match &schema.values {
            Some(values) => {
                number.as_u64().is_some_and(|at| usize::try_from(at).is_ok_and(|at| at < values.len()))
            }
            None => false,
        },
        ("boolean", Value::Bool(_)) => true,
        ("integer", value) => integer(value).is_some_and(|number| i32::try_from(number).is_ok()),
        ("number", Value::Number(_)) => true,
        ("number", Value::String(text)) => text.parse::<f64>().is_ok(),
        _ => false,
    }
}

/// proto3 JSON takes whole numbers in any spelling, and as strings.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => {
            let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64);
            number.as_i64().or_else(|| number.as_f64().and_then(whole))
        }
        _ => None,
    }
}

/// RFC 3339, as far as its shape goes.
fn is_datetime(text: &str) -> bool {
    let Some((date, time)) = text.split_once('T') else { return false };
    let numbers = |text: &str, separator: char, lengths: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        parts.len() == lengths.len()
            && parts
                .iter()
                .zip(lengths)
                .all(|(part, length)| part.len() == *length && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let Some(zone) = time.find(['Z', '+', '-']) else { return false };
    let (clock, zone) = time.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let offset = zone == "Z" || zone.get(1..).is_some_and(|offset| numbers(offset, ':', &[2, 2]));
    numbers(date, '-', &[4, 2, 2])
        && numbers(clock, ':', &[2, 2, 2])
        && (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && offset
}

fn type_name(schema: &Schema) -> &'static str {
    match (schema.kind.as_str(), schema.format.as_str()) {
        _ if schema.values.is_some() => "TYPE_ENUM",
        (_, "google-duration") => "type.googleapis.com/google.protobuf.Duration",
        (_, "google-datetime") => "type.googleapis.com/google.protobuf.Timestamp",
        ("string", _) => "TYPE_STRING",
        ("boolean", _) => "TYPE_BOOL",
        ("integer", _) => "TYPE_INT32",
        ("number", _) => "TYPE_FLOAT",
        ("array", _) => "repeated",
        _ => "message",
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn snake(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 4);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(body: Value) -> Vec<String> {
        check("SendMessageRequest", &body).into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn what_the_document_allows_passes() {
        let message = json!({
            "validate_only": true,
            "message": {
                "token": "t", "data": {"a": "b"}, "notification": {"title": "x", "body": null},
                "android": {
                    "priority": "high", "ttl": "3.5s", "collapse_key": "k", "directBootOk": true,
                    "notification": {
                        "notification_count": "3", "visibility": 1, "vibrate_timings": ["1s", "0.25s"],
                        "event_time": "2026-11-24T08:00:00.5Z", "title_loc_args": ["a"],
                        "light_settings": {"color": {"red": 0.5, "alpha": "1"}, "light_on_duration": "1s"}
                    }
                },
                "apns": {"headers": {"apns-priority": "5"}, "payload": {"aps": {"badge": 1}, "x": [1, null]}},
                "webpush": {"notification": {"title": "x", "actions": [{"a": 1}]}, "fcm_options": {"link": "/"}}
            }
        });
        assert_eq!(check("SendMessageRequest", &message), []);
    }

    #[test]
    fn every_kind_of_mistake_is_named() {
        let of = |message: Value| fields(json!({ "message": message }));
        assert_eq!(of(json!({"data": {"a": "b", "n": 12}})), ["message.data[1].value"]);
        assert_eq!(of(json!({"data": {"a": null}})), ["message.data"]);
        assert_eq!(of(json!({"data": "x"})), ["message.data"]);
        assert_eq!(of(json!({"colour": 1})), ["message"]);
        assert_eq!(of(json!({"android": {"ttl": "12"}})), ["message.android.ttl"]);
        assert_eq!(of(json!({"android": {"ttl": 12}})), ["message.android.ttl"]);
        assert_eq!(of(json!({"android": {"priority": "URGENT"}})), ["message.android.priority"]);
        assert_eq!(of(json!({"android": {"directBootOk": "yes"}})), ["message.android.direct_boot_ok"]);
        let count = json!({"android": {"notification": {"notificationCount": 1.5}}});
        assert_eq!(of(count), ["message.android.notification.notification_count"]);
        let time = json!({"android": {"notification": {"eventTime": "yesterday"}}});
        assert_eq!(of(time), ["message.android.notification.event_time"]);
        let args = json!({"android": {"notification": {"titleLocArgs": ["a", 2]}}});
        assert_eq!(of(args), ["message.android.notification.title_loc_args[1]"]);
        assert_eq!(fields(json!({"messages": {}})), [""]);
        assert_eq!(fields(json!([])), [""]);
    }

    #[test]
    fn durations() {
        assert_eq!(duration("3s"), Some(3.0));
        assert_eq!(duration("3.5s"), Some(3.5));
        assert_eq!(duration("-1s"), Some(-1.0));
        for wrong in ["", "s", "3", "1e3s", ".5s", "1.s", "+1s", "infs", "1.0000000000s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
