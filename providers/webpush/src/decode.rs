//! Responses to outcomes. Each service has words of its own for what is wrong.

use pushlet_provider::time::retry_after;
use pushlet_provider::{
    Answer, Context, CredentialFault, Disposition, Outcome, Reply, Response, Scope, Throttle, json, reply,
};
use serde_json::Value;

/// Google's words for a key that is not the subscription's: its pushes can never succeed, and a wrong key here gives
/// the same answer for every subscription, so that none must be deleted for it.
const OTHER_KEY: [&str; 2] = ["do not correspond to the credentials", "does not correspond to the sender"];

/// One outcome for the subscription.
pub fn decode(context: &Context, answer: &Answer) -> Reply {
    reply::same_for_all(answer.targets.len(), outcome(&answer.response, context.now))
}

fn outcome(response: &Response, now: u64) -> Outcome {
    let wait = retry_after(response, now);
    if (200..=299).contains(&response.status) {
        return accepted(response, wait);
    }
    let body = json::body(response);
    // Apple's reason, Mozilla's number, Microsoft's header.
    let errno = body.get("errno").and_then(Value::as_u64).map(|errno| errno.to_string());
    let reason = body.get("reason").and_then(Value::as_str).map(String::from).or(errno);
    let message = body.get("message").and_then(Value::as_str).map(String::from);
    let message = message
        .or_else(|| header(response, "x-wns-error-description").map(String::from))
        .or_else(|| reply::excerpt(&response.body));
    let other_key = reason.as_deref() == Some("VapidPkHashMismatch")
        || OTHER_KEY.iter().any(|words| message.as_deref().is_some_and(|message| message.contains(words)));
    let (disposition, code) = match other_key {
        true => (Disposition::Rejected, Some("vapid_key_mismatch")),
        false => (disposition(response.status, reason.as_deref(), &message, wait), None),
    };
    reply::failed(disposition, code.or(reason.as_deref()), message)
}

fn disposition(
    status: u16,
    reason: Option<&str>,
    message: &Option<String>,
    wait: Option<u64>,
) -> Disposition {
    match status {
        404 | 410 => Disposition::Unregistered(None),
        // Google says this of subscriptions that are sound a minute later.
        403 if message.as_deref().is_some_and(|message| message.contains("invalid push subscription")) => {
            Disposition::Rejected
        }
        401 => Disposition::CredentialRejected(CredentialFault::Expired),
        403 if reason == Some("BadJwtToken") => Disposition::CredentialRejected(CredentialFault::Expired),
        403 => Disposition::CredentialRejected(CredentialFault::Refused),
        // Microsoft's way to say that it is too fast.
        406 => throttled(Scope::Application, wait),
        429 => throttled(Scope::Target, wait),
        400..=499 => Disposition::Rejected,
        300..=399 | 500..=599 => Disposition::Unavailable(wait),
        _ => Disposition::Unknown,
    }
}

/// Microsoft accepts a request and says in a header that it dropped the message.
fn accepted(response: &Response, wait: Option<u64>) -> Outcome {
    let said = header(response, "x-wns-status").or_else(|| header(response, "x-wns-notificationstatus"));
    let disposition = match said {
        Some("dropped") => Disposition::Rejected,
        Some("channelthrottled") => throttled(Scope::Target, wait),
        Some("appthrottled") => throttled(Scope::Application, wait),
        _ => {
            let ids = ["location", "apns-id", "x-wns-msg-id"];
            return reply::delivered(ids.iter().find_map(|name| header(response, name)).map(String::from));
        }
    };
    reply::failed(disposition, said, header(response, "x-wns-error-description").map(String::from))
}

fn throttled(scope: Scope, retry_after: Option<u64>) -> Disposition {
    Disposition::Throttled(Throttle { scope, retry_after })
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let (_, value) = response.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(value)
}
