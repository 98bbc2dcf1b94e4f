//! Checks of the request headers that device pushes and broadcasts share.

use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::reasons::REASONS;
use crate::answer::Answer;

/// A refusal, by the name of Apple's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub &'static str);

impl Refusal {
    /// The documented answer.
    pub fn answer(self) -> Answer {
        reason(REASONS.status(self.0), self.0, None)
    }
}

/// `{"reason": …}`, for 410 with the time since when the token is dead (milliseconds since 1970).
pub(super) fn reason(status: StatusCode, name: &str, since_ms: Option<i64>) -> Answer {
    let body = match since_ms.filter(|_| status == StatusCode::GONE) {
        Some(timestamp) => json!({"reason": name, "timestamp": timestamp}),
        None => json!({"reason": name}),
    };
    let mut answer = Answer::json(status, &body);
    // Apple sends the body without a type.
    answer.headers.clear();
    answer
}

/// The value of a header as text; one that is not printable ASCII counts as empty.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// Refuses a header of Apple's, or a credential, that is there twice.
pub(super) fn check_repeated(headers: &HeaderMap) -> Result<(), Refusal> {
    let ours = headers.keys().filter(|name| name.as_str().starts_with("apns-") || *name == "authorization");
    for name in ours {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Refusal("DuplicateHeaders"));
        }
    }
    Ok(())
}

/// A canonical UUID in lower case: 8-4-4-4-12.
pub(super) fn message_id<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let Some(id) = text(headers, name) else { return Ok(None) };
    let canonical = uuid::Uuid::try_parse(id).is_ok_and(|parsed| parsed.hyphenated().to_string() == id);
    if canonical { Ok(Some(id)) } else { Err(Refusal("BadMessageId")) }
}

/// Seconds since 1970, 0 for one attempt without storage.
pub(super) fn expiration(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = text(headers, "apns-expiration") else { return Ok(None) };
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits).map(Some).ok_or(Refusal("BadExpirationDate"))
}

/// 1, 5 or 10, the default.
pub(super) fn priority(headers: &HeaderMap) -> Result<u8, Refusal> {
    match text(headers, "apns-priority") {
        None | Some("10") => Ok(10),
        Some("5") => Ok(5),
        Some("1") => Ok(1),
        Some(_) => Err(Refusal("BadPriority")),
    }
}

/// Whether a text can be a bundle id or topic: letters, digits, `-` and `.`, at most 255 bytes.
pub(super) fn is_topic(topic: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let ends = topic.starts_with('.') || topic.ends_with('.') || topic.contains("..");
    !topic.is_empty() && topic.len() <= 255 && !ends && topic.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics() {
        assert!(is_topic("com.example.app.push-type.liveactivity"));
        for wrong in ["", ".a", "a.", "a..b", "a b", "a/b", &"a".repeat(256)] {
            assert!(!is_topic(wrong), "{wrong:?}");
        }
    }
}
