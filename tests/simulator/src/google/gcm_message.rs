//! Reading a legacy GCM request: the JSON and the plain-text form.

use std::borrow::Cow;

use serde_json::{Map, Value};

const MAX_RECIPIENTS: usize = 1000;
const MAX_DATA: usize = 4096;
const MAX_TTL: f64 = 2_419_200.0;

/// What a request asks for.
pub(super) struct Message {
    pub recipients: Recipients,
    /// The error that every recipient gets, because the message itself cannot be sent.
    pub error: Option<&'static str>,
    pub dry_run: bool,
}

/// Who a message is for.
pub(super) enum Recipients {
    /// 1 to 1,000 registration ids.
    Ids(Vec<String>),
    /// A topic without `/topics/`, or a condition.
    Topic(String),
    /// A notification key.
    Group(String),
}

/// The JSON form.
///
/// # Errors
/// The text of a 400: not JSON, or a field of the wrong type.
pub(super) fn from_json(body: &[u8]) -> Result<Message, String> {
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| format!("JSON_PARSING_ERROR: {error}"))?;
    let recipients = recipients(&fields)?;
    check_types(&fields)?;
    let data = fields.get("data").and_then(Value::as_object);
    let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = data
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            let text = value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed);
            (Cow::Borrowed(key.as_str()), text)
        })
        .collect();
    let ttl = fields.get("time_to_live").and_then(Value::as_f64);
    let error = content_error(&pairs, ttl);
    Ok(Message { recipients, error, dry_run: fields.get("dry_run") == Some(&Value::Bool(true)) })
}

/// The plain-text form: `registration_id=…&data.key=value&…`, one recipient.
///
/// # Errors
/// The text of a 400.
pub(super) fn from_form(body: &[u8]) -> Result<Message, String> {
    let pairs: Vec<_> = url::form_urlencoded::parse(body).collect();
    let field = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string());
    let data: Vec<(Cow<'_, str>, Cow<'_, str>)> = pairs
        .iter()
        .filter_map(|(key, value)| Some((Cow::Borrowed(key.strip_prefix("data.")?), value.clone())))
        .collect();
    let ttl = match field("time_to_live") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| wrong("time_to_live", "number", &text))?),
    };
    for name in ["dry_run", "delay_while_idle"] {
        let value = field(name).unwrap_or_default();
        if !["", "0", "1", "true", "false"].contains(&value.as_str()) {
            return Err(wrong(name, "boolean", &value));
        }
    }
    let dry_run = field("dry_run").is_some_and(|value| value == "1" || value == "true");
    let ids = vec![field("registration_id").unwrap_or_default()];
    Ok(Message { recipients: Recipients::Ids(ids), error: content_error(&data, ttl), dry_run })
}

fn recipients(fields: &Map<String, Value>) -> Result<Recipients, String> {
    let named = ["registration_ids", "to", "condition", "notification_key"];
    let mut set = named.into_iter().filter_map(|name| Some((name, fields.get(name)?)));
    let Some((name, value)) = set.next() else {
        return Err("Missing \"registration_ids\" or \"to\" field".into());
    };
    if let Some((other, _)) = set.next() {
        return Err(format!("Must use either \"{name}\" field or \"{other}\" field, not both"));
    }
    if name == "registration_ids" {
        return ids(value).map(Recipients::Ids);
    }
    let text = value.as_str().ok_or_else(|| wrong(name, "string", value))?;
    if text.is_empty() {
        return Err(format!("\"{name}\" field cannot be empty"));
    }
    Ok(match (name, text.strip_prefix("/topics/")) {
        ("condition", _) => Recipients::Topic(text.to_owned()),
        ("notification_key", _) => Recipients::Group(text.to_owned()),
        (_, Some(topic)) => Recipients::Topic(topic.to_owned()),
        (_, None) => Recipients::Ids(vec![text.to_owned()]),
    })
}

fn ids(value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or_else(|| wrong("registration_ids", "array", value))?;
    if list.is_empty() {
        return Err("\"registration_ids\" field cannot be empty".into());
    }
    if list.len() > MAX_RECIPIENTS {
        let count = list.len();
        return Err(format!(
            "Number of messages on bulk ({count}) exceeds maximum allowed ({MAX_RECIPIENTS})"
        ));
    }
    let text = |id: &Value| {
        id.as_str().map(str::to_owned).ok_or_else(|| wrong("registration_ids", "array of strings", value))
    };
    list.iter().map(text).collect()
}

/// Field types as the server reference lists them.
fn check_types(fields: &Map<String, Value>) -> Result<(), String> {
    for (name, value) in fields {
        let (fits, wanted) = match name.as_str() {
            "data" | "notification" => (value.is_object(), "object"),
            "collapse_key" | "restricted_package_name" => (value.is_string(), "string"),
            "delay_while_idle" | "dry_run" | "content_available" | "mutable_content" => {
                (value.is_boolean(), "boolean")
            }
            "time_to_live" => (value.is_u64() || value.is_i64(), "number"),
            "priority" => {
                (matches!(value.as_str(), Some("normal" | "high")), "string, \"normal\" or \"high\"")
            }
            _ => (true, ""),
        };
        if !fits {
            return Err(wrong(name, wanted, value));
        }
    }
    Ok(())
}

fn content_error(data: &[(Cow<'_, str>, Cow<'_, str>)], ttl: Option<f64>) -> Option<&'static str> {
    if data.iter().any(|(key, _)| key == "from" || key == "message_type" || key.starts_with("google")) {
        return Some("InvalidDataKey");
    }
    if data.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_DATA {
        return Some("MessageTooBig");
    }
    ttl.filter(|seconds| !(0.0..=MAX_TTL).contains(seconds)).map(|_| "InvalidTtl")
}

fn wrong(name: &str, wanted: &str, value: impl std::fmt::Display) -> String {
    format!("Field \"{name}\" must be a JSON {wanted}: {value:.100}")
}
