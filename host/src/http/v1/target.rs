//! Whom a notification is for, as callers write it.

use serde_json::{Value, json};

use crate::contract::Target;
use crate::error::Error;

/// `"token"`, or an object with one of `device`, `topic`, `condition`, `channel`, `url`.
pub(super) fn parse(value: &Value, field: &str) -> Result<Target, Error> {
    let wrong = || {
        let message = "a target must be a device token, or an object with one of device, topic, condition, channel, url";
        Error::field("invalid_target", field, message)
    };
    if let Some(token) = value.as_str() {
        return filled(token, wrong).map(Target::Device);
    }
    let object = value.as_object().filter(|object| object.len() == 1).ok_or_else(wrong)?;
    let (kind, value) = object.iter().next().ok_or_else(wrong)?;
    let text = filled(value.as_str().ok_or_else(wrong)?, wrong)?;
    match kind.as_str() {
        "device" => Ok(Target::Device(text)),
        "topic" => Ok(Target::Topic(text)),
        "condition" => Ok(Target::Condition(text)),
        "channel" => Ok(Target::Channel(text)),
        "url" => Ok(Target::Url(text)),
        _ => Err(wrong()),
    }
}

/// The same as it was written, the short form for a device.
pub(super) fn shown(target: &Target) -> Value {
    match target {
        Target::Device(token) => json!(token),
        Target::Topic(topic) => json!({ "topic": topic }),
        Target::Condition(condition) => json!({ "condition": condition }),
        Target::Channel(channel) => json!({ "channel": channel }),
        Target::Url(url) => json!({ "url": url }),
    }
}

fn filled(text: &str, wrong: impl Fn() -> Error) -> Result<String, Error> {
    if text.is_empty() { Err(wrong()) } else { Ok(text.to_owned()) }
}
