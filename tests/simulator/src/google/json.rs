//! The error bodies that Google's JSON services answer (google.rpc.Status).

use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::Answer;

/// A field that was refused, in the form of google.rpc.BadRequest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub field: String,
    pub description: String,
}

/// `{"error": {code, message, status, details}}`.
pub(super) fn error(code: StatusCode, status: &str, message: &str, details: Vec<Value>) -> Answer {
    let mut error = json!({"code": code.as_u16(), "message": message, "status": status});
    if !details.is_empty()
        && let Some(fields) = error.as_object_mut()
    {
        fields.insert("details".to_owned(), Value::Array(details));
    }
    Answer::json(code, &json!({ "error": error }))
}

/// The detail that carries FCM's own code.
pub(super) fn fcm_error(code: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
}

/// The detail that names the fields that were refused.
pub(super) fn bad_request(violations: &[Violation]) -> Value {
    let fields = violations.iter().map(|v| json!({"field": v.field, "description": v.description}));
    json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": fields.collect::<Vec<_>>()
    })
}

/// 400 for a body that does not have the shape of its schema.
pub(super) fn malformed(violations: &[Violation]) -> Answer {
    let message: Vec<&str> = violations.iter().map(|violation| violation.description.as_str()).collect();
    error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &message.join("\n"), vec![bad_request(violations)])
}
