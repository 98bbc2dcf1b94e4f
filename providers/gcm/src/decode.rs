//! Responses to outcomes.

use pushlet_provider::time::retry_after;
use pushlet_provider::{
    Answer, Context, CredentialFault, Disposition, Outcome, Reply, Response, Scope, Target, Throttle, json,
    reply,
};
use serde_json::Value;

/// One outcome for each target. `native` is the body of a 200 as it came, where that is JSON.
pub fn decode(context: &Context, answer: &Answer, native: bool) -> Reply {
    let body = json::body(&answer.response);
    let wait = retry_after(&answer.response, context.now);
    let outcomes = match answer.response.status {
        200 => accepted(&body, &answer.targets, wait),
        _ => None,
    };
    let count = answer.targets.len();
    let outcomes = outcomes.unwrap_or_else(|| vec![whole(&answer.response, wait); count]);
    let text = || String::from_utf8(answer.response.body.clone()).ok();
    Reply {
        outcomes,
        native: if native && answer.response.status == 200 && !body.is_null() { text() } else { None },
    }
}

/// The outcomes of a 200; None if its body is not what was asked for.
fn accepted(body: &Value, targets: &[Target], wait: Option<u64>) -> Option<Vec<Outcome>> {
    if let Some(results) = body.get("results").and_then(Value::as_array) {
        return (results.len() == targets.len())
            .then(|| results.iter().map(|result| one(result, wait)).collect());
    }
    let [target] = targets else { return None };
    let outcome = match target {
        Target::Device(_) => group(body)?,
        _ if body.get("message_id").is_some() || body.get("error").is_some() => one(body, wait),
        _ => return None,
    };
    Some(vec![outcome])
}

/// `{"message_id", "registration_id"?}` or `{"error"}`.
fn one(result: &Value, wait: Option<u64>) -> Outcome {
    if let Some(error) = result.get("error").and_then(Value::as_str) {
        let (disposition, sentence) = meaning(error, wait);
        return reply::failed(disposition, Some(error), Some(sentence.into()));
    }
    let Some(id) = result.get("message_id").filter(|id| id.is_string() || id.is_number()) else {
        return unknown("a result has neither message_id nor error");
    };
    let delivered = reply::delivered(Some(json::text(id)));
    match result.get("registration_id").and_then(Value::as_str) {
        Some(token) if !token.is_empty() => {
            Outcome { disposition: Disposition::Replaced(token.into()), ..delivered }
        }
        _ => delivered,
    }
}

/// `{"success", "failure", "failed_registration_ids"?}`, the answer to a device group.
fn group(body: &Value) -> Option<Outcome> {
    let success = body.get("success")?.as_u64()?;
    let failure = body.get("failure")?.as_u64()?;
    if success > 0 {
        let message = (failure > 0).then(|| format!("{failure} devices of the group were not reached"));
        return Some(Outcome { message, ..reply::delivered(None) });
    }
    let message = format!("none of the group's {failure} devices was reached");
    Some(reply::failed(Disposition::Unavailable(None), None, Some(message)))
}

/// `MismatchSenderId` counts as a dead token: it belongs to another sender and can never be reached with this key.
/// `InvalidRegistration` does not: it is a broken text, which the caller should look at.
fn meaning(error: &str, wait: Option<u64>) -> (Disposition, &'static str) {
    let flooded = |scope| Disposition::Throttled(Throttle { scope, retry_after: wait });
    match error {
        "NotRegistered" => (Disposition::Unregistered(None), "the app is no longer registered on the device"),
        "MismatchSenderId" => {
            (Disposition::Unregistered(None), "the registration id belongs to another sender")
        }
        "MissingRegistration" => (Disposition::Rejected, "there is no registration id"),
        "InvalidRegistration" => (Disposition::Rejected, "the registration id is not valid"),
        "InvalidPackageName" => (Disposition::Rejected, "the registration id belongs to another package"),
        "InvalidParameters" => (Disposition::Rejected, "a parameter is not valid"),
        "MessageTooBig" => (Disposition::Rejected, "the data is larger than Google allows"),
        "InvalidDataKey" => (Disposition::Rejected, "a key of the data is reserved"),
        "InvalidTtl" => (Disposition::Rejected, "the time to live is not valid"),
        "Unavailable" => (Disposition::Unavailable(wait), "the service is unavailable"),
        "InternalServerError" => (Disposition::Unavailable(wait), "Google reports an internal error"),
        "DeviceMessageRateExceeded" => (flooded(Scope::Target), "too many messages to the device"),
        "TopicsMessageRateExceeded" => (flooded(Scope::Target), "too many messages to the topic"),
        "InvalidApnsCredential" => (
            Disposition::CredentialRejected(CredentialFault::Refused),
            "Google has no valid Apple credential for this app",
        ),
        _ => (Disposition::Rejected, "Google answered with an error of its own"),
    }
}

/// The one outcome of all targets, where the answer has no results.
fn whole(response: &Response, wait: Option<u64>) -> Outcome {
    let disposition = match response.status {
        200..=299 => return unknown("the answer is not what was asked for"),
        401 | 403 => Disposition::CredentialRejected(CredentialFault::Refused),
        // What the retired servers say: the service is not there, and no message is to blame.
        404 => Disposition::Unavailable(wait),
        429 => Disposition::Throttled(Throttle { scope: Scope::Application, retry_after: wait }),
        400..=499 => Disposition::Rejected,
        500..=599 => Disposition::Unavailable(wait),
        _ => Disposition::Unknown,
    };
    reply::failed(disposition, None, reply::excerpt(&response.body))
}

fn unknown(message: &str) -> Outcome {
    reply::failed(Disposition::Unknown, None, Some(message.into()))
}
