//! Google's error bodies: `{"status", "message", "details"}`.

use serde_json::Value;

/// FCM's own code, or else the general one of Google's APIs.
pub fn error_code(error: &Value) -> Option<&str> {
    let specific = fcm_error(error).and_then(|detail| detail.get("errorCode")).and_then(Value::as_str);
    specific.or_else(|| error.get("status").and_then(Value::as_str))
}

/// The detail of the type `FcmError`.
pub fn fcm_error(error: &Value) -> Option<&Value> {
    details(error).find(|detail| is_type(detail, "google.firebase.fcm.v1.FcmError"))
}

/// The details of an error.
pub fn details(error: &Value) -> impl Iterator<Item = &Value> {
    error.get("details").and_then(Value::as_array).into_iter().flatten()
}

/// Is the detail of this protobuf type?
pub fn is_type(detail: &Value, name: &str) -> bool {
    let url = detail.get("@type").and_then(Value::as_str).unwrap_or_default();
    url.rsplit('/').next() == Some(name)
}
