//! The answer that a legacy caller expects: `{"multicast_id", "success", "failure", "canonical_ids", "results"}` for
//! a device, `{"message_id"}` or `{"error"}` for a topic or condition.

use crate::errors::{details, fcm_error, is_type};
use pushlet_provider::{Disposition, Outcome, Target, json};
use serde_json::Value;

/// The legacy answer to one exchange. None where legacy answered 401 without a body of this shape.
pub fn answer(target: &Target, outcome: &Outcome, body: &Value, now: u64) -> Option<String> {
    let device = matches!(target, Target::Device(_));
    let delivered = outcome.disposition == Disposition::Delivered;
    let (name, value) = match delivered {
        true => ("message_id", message_id(outcome.id.as_deref().unwrap_or_default(), device)),
        false => ("error", error(outcome, body, device)?.into()),
    };
    let result = format!("{{\"{name}\":{}}}", json::write(&value));
    if !device {
        return Some(result);
    }
    let (id, success) = (multicast_id(target, outcome, now), u8::from(delivered));
    let counts = format!("\"success\":{success},\"failure\":{},\"canonical_ids\":0", 1 - success);
    Some(format!("{{\"multicast_id\":{id},{counts},\"results\":[{result}]}}"))
}

/// The last part of `projects/{project}/messages/{id}`. A topic's message id was a number.
fn message_id(name: &str, device: bool) -> Value {
    let id = name.rsplit('/').next().unwrap_or_default();
    let number = id.parse::<u64>().ok().filter(|_| !device);
    number.map_or_else(|| id.into(), Value::from)
}

fn error(outcome: &Outcome, body: &Value, device: bool) -> Option<&'static str> {
    let code = outcome.code.as_deref().unwrap_or_default();
    Some(match (&outcome.disposition, code) {
        (_, "SENDER_ID_MISMATCH") => "MismatchSenderId",
        (_, "THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR") => "InvalidApnsCredential",
        (Disposition::CredentialRejected(_), _) => {
            return None;
        }
        (Disposition::Unregistered(_), _) => "NotRegistered",
        (Disposition::Throttled(_), _) => {
            if device {
                "DeviceMessageRateExceeded"
            } else {
                "TopicsMessageRateExceeded"
            }
        }
        (Disposition::Unavailable(_), "INTERNAL") => "InternalServerError",
        (Disposition::Unavailable(_), _) => "Unavailable",
        (Disposition::Rejected, _) => invalid_argument(body.get("error").unwrap_or(&Value::Null)),
        _ => "InternalServerError",
    })
}

/// Which part of the message was wrong.
fn invalid_argument(error: &Value) -> &'static str {
    let message = error.get("message").map(json::text).unwrap_or_default();
    if message.contains("too big") || message.contains("exceeds") {
        return "MessageTooBig";
    }
    let violations = details(error)
        .filter(|detail| is_type(detail, "google.rpc.BadRequest"))
        .filter_map(|detail| detail.get("fieldViolations")?.as_array())
        .flatten();
    let fields: Vec<&str> = violations.filter_map(|violation| violation.get("field")?.as_str()).collect();
    let any = |test: &dyn Fn(&str) -> bool| fields.iter().any(|field| test(field));
    if any(&|field| field.ends_with("ttl")) {
        "InvalidTtl"
    } else if any(&|field| field.contains(".data")) {
        "InvalidDataKey"
    } else if any(&|field| field == "message.token") || (fields.is_empty() && fcm_error(error).is_some()) {
        "InvalidRegistration"
    } else {
        "InvalidParameters"
    }
}

/// A number that differs from call to call, below 2^53 so that every JSON reader keeps it (FNV-1a).
fn multicast_id(target: &Target, outcome: &Outcome, now: u64) -> u64 {
    let Target::Device(token) = target else { return 0 };
    let id = outcome.id.as_deref().unwrap_or_default();
    let bytes = now.to_be_bytes().into_iter().chain(token.bytes()).chain(id.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash >> 11
}
