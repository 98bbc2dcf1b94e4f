//! Answers of the user's choice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answer::Answer;
use crate::record::Service;

const MAX_SCRIPTS: usize = 1000;
const MAX_DELAY_MS: u64 = 600_000;

/// What to answer to requests that passed every check and match.
///
/// A script with neither `status` nor `body` only delays the ordinary answer. For GCM, a script with a
/// `token` and a `body` but no `status` replaces that registration id's entry in `results`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The service whose requests it is for.
    pub service: Service,
    /// The device token, FID or registration id, whole; a `*` at its end matches any rest. For OAuth the
    /// service account's address. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The APNs topic or bundle id, or the FCM topic or condition, in the same way. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The status to answer, 200 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The body to answer: a string is sent as it is, anything else as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Further headers of the answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The value of `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// Milliseconds to wait before the answer, at most 600,000.
    #[serde(default)]
    pub delay_ms: u64,
    /// How many requests it answers before it is forgotten; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

impl Script {
    /// A script for every request of `service` that changes nothing yet.
    pub fn new(service: Service) -> Script {
        Script {
            service,
            token: None,
            topic: None,
            status: None,
            body: None,
            headers: BTreeMap::new(),
            retry_after: None,
            delay_ms: 0,
            times: None,
        }
    }
}

/// The value of `Retry-After` (RFC 9110 section 10.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// Not `untagged` for reading: serde's buffer for that does not know the numbers of serde_json's arbitrary precision.
#[serde(untagged, try_from = "serde_json::Value")]
pub enum RetryAfter {
    /// Seconds.
    Seconds(u64),
    /// An HTTP date, or whatever the client under test should see.
    Text(String),
}

impl TryFrom<serde_json::Value> for RetryAfter {
    type Error = &'static str;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        match (value.as_u64(), value) {
            (Some(seconds), _) => Ok(Self::Seconds(seconds)),
            (None, serde_json::Value::String(text)) => Ok(Self::Text(text)),
            _ => Err("retry_after must be a number of seconds or a text"),
        }
    }
}

/// Why a script was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScriptError {
    /// `status` is not an HTTP status that ends a request.
    #[error("status must be 200 to 599, not {0}")]
    Status(u16),
    /// A header cannot be sent.
    #[error("header {0:?} is not a header that HTTP allows")]
    Header(String),
    /// `delay_ms` is too long.
    #[error("delay_ms must be at most 600000")]
    Delay,
    /// `times` is 0.
    #[error("times must be at least 1")]
    Times,
    /// There are too many scripts.
    #[error("there are 1000 scripts already")]
    TooMany,
}

/// A script that matched: what is to be done.
pub(crate) struct Scripted {
    pub delay: Duration,
    pub status: Option<StatusCode>,
    pub body: Option<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Scripted {
    /// The scripted answer, or `ordinary` where the script sets neither status nor body.
    pub fn answer(&self, ordinary: Answer) -> Answer {
        let mut answer = match (self.status, &self.body) {
            (None, None) => ordinary,
            (status, body) => scripted_answer(status.unwrap_or(StatusCode::OK), body.as_ref(), ordinary),
        };
        answer.headers.extend(self.headers.iter().cloned());
        answer
    }
}

/// The service's own headers (`apns-id` and the like) stay, its body and type do not.
fn scripted_answer(status: StatusCode, body: Option<&Value>, ordinary: Answer) -> Answer {
    let mut answer = Answer::empty(status);
    let same = |name: &HeaderName| *name != http::header::CONTENT_TYPE;
    answer.headers = ordinary.headers.into_iter().filter(|(name, _)| same(name)).collect();
    answer.delivered = if status.is_success() { ordinary.delivered } else { 0 };
    match body {
        None => answer,
        Some(Value::String(text)) => {
            answer.body = Bytes::from(text.clone());
            answer
        }
        Some(json) => {
            answer.body = Bytes::from(json.to_string());
            answer.header("content-type", "application/json; charset=UTF-8")
        }
    }
}

struct Entry {
    script: Script,
    headers: Vec<(HeaderName, HeaderValue)>,
    left: Option<u32>,
}

/// The scripts in force.
#[derive(Default)]
pub(crate) struct Scripts {
    count: AtomicUsize,
    entries: Mutex<Vec<Entry>>,
}

impl Scripts {
    pub fn add(&self, script: Script) -> Result<(), ScriptError> {
        let headers = checked(&script)?;
        let mut entries = self.lock();
        if entries.len() >= MAX_SCRIPTS {
            return Err(ScriptError::TooMany);
        }
        entries.push(Entry { left: script.times, script, headers });
        self.count.store(entries.len(), Ordering::Release);
        Ok(())
    }

    pub fn clear(&self) {
        self.lock().clear();
        self.count.store(0, Ordering::Release);
    }

    /// The first script that matches; using it counts towards its `times`.
    pub fn take(&self, service: Service, token: Option<&str>, topic: Option<&str>) -> Option<Scripted> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut entries = self.lock();
        let at = entries.iter().position(|entry| entry.script.matches(service, token, topic))?;
        let entry = entries.get_mut(at)?;
        let scripted = Scripted {
            delay: Duration::from_millis(entry.script.delay_ms),
            status: entry.script.status.and_then(|status| StatusCode::from_u16(status).ok()),
            body: entry.script.body.clone(),
            headers: entry.headers.clone(),
        };
        if let Some(left) = &mut entry.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                entries.remove(at);
                self.count.store(entries.len(), Ordering::Release);
            }
        }
        Some(scripted)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script {
    fn matches(&self, service: Service, token: Option<&str>, topic: Option<&str>) -> bool {
        self.service == service && fits(self.token.as_deref(), token) && fits(self.topic.as_deref(), topic)
    }
}

fn fits(pattern: Option<&str>, value: Option<&str>) -> bool {
    let Some(pattern) = pattern else { return true };
    let Some(value) = value else { return false };
    match pattern.strip_suffix('*') {
        Some(prefix) => value.starts_with(prefix),
        None => value == pattern,
    }
}

/// The script's headers, `Retry-After` included, in the form in which they are sent.
fn checked(script: &Script) -> Result<Vec<(HeaderName, HeaderValue)>, ScriptError> {
    if let Some(status) = script.status.filter(|status| !(200..600).contains(status)) {
        return Err(ScriptError::Status(status));
    }
    if script.delay_ms > MAX_DELAY_MS {
        return Err(ScriptError::Delay);
    }
    if script.times == Some(0) {
        return Err(ScriptError::Times);
    }
    let retry_after = script.retry_after.as_ref().map(|value| match value {
        RetryAfter::Seconds(seconds) => ("retry-after".to_owned(), seconds.to_string()),
        RetryAfter::Text(text) => ("retry-after".to_owned(), text.clone()),
    });
    let given = script.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    given.chain(retry_after).map(|(name, value)| header(&name, &value)).collect()
}

/// A header of an answer, in the form in which it is sent.
pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), ScriptError> {
    let refused = || ScriptError::Header(name.to_owned());
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
    // The length and the framing of the answer are not the script's to say.
    let framing = ["content-length", "transfer-encoding", "connection", "upgrade", "keep-alive"];
    if framing.contains(&parsed.as_str()) {
        return Err(refused());
    }
    Ok((parsed, HeaderValue::from_str(value).map_err(|_| refused())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(scripts: &Scripts, token: &str) -> Option<u16> {
        let taken = scripts.take(Service::Apns, Some(token), Some("com.example.app"))?;
        taken.status.map(|status| status.as_u16())
    }

    #[test]
    fn scripts_match_in_order_and_wear_out() {
        let scripts = Scripts::default();
        let of = |token: &str, status, times| Script {
            token: Some(token.into()),
            status: Some(status),
            times,
            ..Script::new(Service::Apns)
        };
        scripts.add(of("aa", 500, Some(2))).unwrap();
        scripts.add(of("aa", 503, None)).unwrap();
        scripts.add(of("b*", 429, None)).unwrap();
        assert_eq!(take(&scripts, "aa"), Some(500));
        assert_eq!(take(&scripts, "aa"), Some(500));
        assert_eq!(take(&scripts, "aa"), Some(503));
        assert_eq!(take(&scripts, "bcd"), Some(429));
        assert_eq!(take(&scripts, "cc"), None);
        assert!(scripts.take(Service::Fcm, Some("aa"), None).is_none());
        scripts.clear();
        assert_eq!(take(&scripts, "aa"), None);
    }

    #[test]
    fn a_topic_must_be_there_to_match() {
        let scripts = Scripts::default();
        scripts.add(Script { topic: Some("news".into()), ..Script::new(Service::Fcm) }).unwrap();
        assert!(scripts.take(Service::Fcm, Some("token"), None).is_none());
        assert!(scripts.take(Service::Fcm, None, Some("news")).is_some());
    }

    #[test]
    fn what_http_cannot_send_is_refused() {
        let scripts = Scripts::default();
        let new = || Script::new(Service::Gcm);
        let with =
            |name: &str, value: &str| Script { headers: [(name.into(), value.into())].into(), ..new() };
        assert_eq!(scripts.add(Script { status: Some(101), ..new() }), Err(ScriptError::Status(101)));
        assert_eq!(scripts.add(Script { times: Some(0), ..new() }), Err(ScriptError::Times));
        assert_eq!(scripts.add(Script { delay_ms: 600_001, ..new() }), Err(ScriptError::Delay));
        assert_eq!(scripts.add(with("a b", "1")), Err(ScriptError::Header("a b".into())));
        assert_eq!(scripts.add(with("x", "1\n2")), Err(ScriptError::Header("x".into())));
        assert_eq!(
            scripts.add(with("Content-Length", "9")),
            Err(ScriptError::Header("Content-Length".into()))
        );
    }
}
