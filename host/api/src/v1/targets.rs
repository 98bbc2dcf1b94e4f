//! The targets of a send and their results, in the terms that all providers share.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::openapi::schemas;
use pushlet_gateway::{IndexedResult, ResultDetails, Status, utc};
use pushlet_model::contract::{Recipient, Target};
use pushlet_model::error::Error;

const NO_TARGET: &str = "a target must be a device token, or an object with one of device, topic, condition, channel, url, and perhaps options";

/// Parses a target: a device token, or an object with one of `device`, `topic`, `condition`, `channel`, `url`, and
/// perhaps `options`. `field`: names it in errors.
pub fn parse_target(value: Value, field: impl Fn() -> String) -> Result<Recipient, Error> {
    let wrong = || Error::field("invalid_target", field(), NO_TARGET);
    let filled = |text: String| match text.as_str() {
        "" => Err(Error::field("invalid_target", field(), "the target is empty")),
        _ => Ok(text),
    };
    let mut object = match value {
        Value::String(token) => return filled(token).map(Target::Device).map(Recipient::from),
        Value::Object(object) => object,
        _ => return Err(wrong()),
    };
    let options = match object.shift_remove("options") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(options)) => {
            let given = options.into_iter().filter(|(_, value)| !value.is_null());
            given.map(|(name, value)| (name, value.to_string())).collect()
        }
        Some(_) => return Err(Error::field("invalid_options", field(), "options must be an object")),
    };
    if object.len() != 1 {
        return Err(wrong());
    }
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
        Value::String(text) => Ok(Recipient { target: filled(text).map(of_kind)?, options }),
        _ => Err(wrong()),
    }
}

/// Writes a target as callers write it, a device as its token alone.
pub fn target_json(target: &Target) -> Value {
    match target {
        Target::Device(token) => json!(token),
        Target::Topic(topic) => json!({ "topic": topic }),
        Target::Condition(condition) => json!({ "condition": condition }),
        Target::Channel(channel) => json!({ "channel": channel }),
        Target::Url(url) => json!({ "url": url }),
    }
}

/// Writes a target with its options as callers write it.
pub fn recipient_json(Recipient { target, options }: &Recipient) -> Value {
    let target = target_json(target);
    if options.is_empty() {
        return target;
    }
    let mut object = match target {
        Value::Object(object) => object,
        token => Map::from_iter([("device".to_owned(), token)]),
    };
    let value = |text: &String| serde_json::from_str(text).unwrap_or(Value::Null);
    let options = options.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    object.insert("options".to_owned(), Value::Object(options));
    Value::Object(object)
}

/// The result of one target.
#[derive(Debug, Serialize, ToSchema)]
pub struct TargetResult {
    /// Counts the request's targets, or the lines of a stream after the first, from 0.
    pub index: usize,
    /// As in the request; not in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schemas::Target>, nullable = false)]
    pub target: Option<Value>,
    pub status: Status,
    /// The service's id of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<String>,
    /// The service's own reason, or ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message: Option<String>,
    /// The field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retry_after: Option<f64>,
    /// When the token died, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub since: Option<String>,
    /// The token to use from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub replacement: Option<String>,
    /// Of a duplicate, which was not sent: the index of the target that it repeats, whose result applies to both.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub duplicate_of: Option<usize>,
    /// How many times it was tried, if more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 2)]
    pub attempts: Option<u32>,
}

/// How many targets have which status.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Summary {
    pub total: usize,
    pub delivered: usize,
    pub unregistered: usize,
    pub replaced: usize,
    pub rejected: usize,
    pub credential_rejected: usize,
    pub throttled: usize,
    pub unavailable: usize,
    pub unknown: usize,
    pub failed: usize,
    pub valid: usize,
    /// Not sent, because they repeat an earlier target.
    pub duplicates: usize,
}

impl Summary {
    pub fn count(&mut self, status: Status) {
        self.add(status, 1);
    }

    pub fn add(&mut self, status: Status, count: usize) {
        self.total += count;
        let counter = match status {
            Status::Delivered => &mut self.delivered,
            Status::Unregistered => &mut self.unregistered,
            Status::Replaced => &mut self.replaced,
            Status::Rejected => &mut self.rejected,
            Status::CredentialRejected => &mut self.credential_rejected,
            Status::Throttled => &mut self.throttled,
            Status::Unavailable => &mut self.unavailable,
            Status::Unknown => &mut self.unknown,
            Status::Failed => &mut self.failed,
            Status::Valid => &mut self.valid,
            Status::Duplicate => &mut self.duplicates,
        };
        *counter += count;
    }
}

impl TargetResult {
    pub fn new(result: IndexedResult) -> Self {
        ResultDetails::new(result).into()
    }

    pub fn with_target(self, target: &Target) -> Self {
        Self { target: Some(target_json(target)), ..self }
    }
}

impl From<ResultDetails> for TargetResult {
    fn from(result: ResultDetails) -> Self {
        // The service's own number, which may be out of range.
        let since = result.since.and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
        Self {
            index: result.index,
            target: None,
            status: result.status,
            id: result.id,
            code: result.code,
            message: result.message,
            field: result.field,
            retry_after: result.retry_after.map(|ms| Duration::from_millis(ms).as_secs_f64()),
            since: since.map(|since| utc(since).to_string()),
            replacement: result.replacement,
            duplicate_of: result.duplicate_of,
            attempts: (result.attempts > 1).then_some(result.attempts),
        }
    }
}
