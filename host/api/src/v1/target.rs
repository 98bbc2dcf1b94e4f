//! Whom a notification is for, as callers write it.

use serde_json::{Value, json};

use pushlet_model::contract::Target;
use pushlet_model::error::Error;

const NO_TARGET: &str =
    "a target must be a device token, or an object with one of device, topic, condition, channel, url";

/// `"token"`, or an object with one of `device`, `topic`, `condition`, `channel`, `url`. `field`: names it in errors.
pub(super) fn parse(value: Value, field: impl Fn() -> String) -> Result<Target, Error> {
    let wrong = || Error::field("invalid_target", field(), NO_TARGET);
    let filled = |text: String| match text.as_str() {
        "" => Err(Error::field("invalid_target", field(), "the target is empty")),
        _ => Ok(text),
    };
    let object = match value {
        Value::String(token) => return filled(token).map(Target::Device),
        Value::Object(object) if object.len() == 1 => object,
        _ => return Err(wrong()),
    };
    let (kind, value) = object.into_iter().next().ok_or_else(wrong)?;
    let of_kind = match kind.as_str() {
        "device" => Target::Device,
        "topic" => Target::Topic,
        "condition" => Target::Condition,
        "channel" => Target::Channel,
        "url" => Target::Url,
        _ => return Err(wrong()),
    };
    match value {
        Value::String(text) => filled(text).map(of_kind),
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
