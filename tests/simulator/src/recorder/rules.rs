//! Which answer a request or a message gets: rules of a file, and those of the program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::patterns::{ByteAnswer, BytePattern, MessageLength};
use crate::script::header;

const MAX_RULES: usize = 1000;
const MAX_FILE: u64 = 4 << 20;
const MAX_DELAY_MS: u64 = 600_000;

/// An answer, and the requests or messages that get it. In patterns of text, a `*` stands for any text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRule {
    /// Pattern of the host, without the port. Absent: any.
    #[serde(default)]
    pub host: Option<String>,
    /// Pattern of the path and query, as they are sent. Absent: any.
    #[serde(default)]
    pub path: Option<String>,
    /// A text that stands in the path, in a header, in the body or in the message, such as a device token. Absent: any.
    #[serde(default)]
    pub token: Option<String>,
    /// The status, 200 to 599; 200 if absent.
    #[serde(default)]
    pub status: Option<u16>,
    /// Headers of the answer.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body: a text is sent as it is, anything else as JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// Milliseconds to wait before the answer, at most 600,000.
    #[serde(default)]
    pub delay_ms: u64,
    /// Of a byte stream: how the message begins. Absent in a rule that has one of the next fields: the answer is for a
    /// connection that has just been opened.
    #[serde(default)]
    pub received: Option<BytePattern>,
    /// Of a byte stream: where the message says how long it is. Absent: it is all that has arrived.
    #[serde(default)]
    pub length: Option<MessageLength>,
    /// Of a byte stream: what is written. Absent: nothing.
    #[serde(default)]
    pub send: Option<ByteAnswer>,
    /// Of a byte stream: the connection is closed after this.
    #[serde(default)]
    pub close: bool,
}

impl AnswerRule {
    /// Returns true if it is for byte streams, and not for requests.
    pub(super) fn is_for_streams(&self) -> bool {
        self.received.is_some() || self.length.is_some() || self.send.is_some() || self.close
    }

    fn is_for_requests(&self) -> bool {
        self.path.is_some() || self.status.is_some() || !self.headers.is_empty() || self.body.is_some()
    }

    /// `host`: with the port, if there is one.
    pub(super) fn is_of_host(&self, host: &str) -> bool {
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        self.host.as_ref().is_none_or(|pattern| matches(pattern, host))
    }

    fn check(&self) -> Result<(), String> {
        if self.is_for_streams() && self.is_for_requests() {
            let fields = "path, status, headers and body are for requests";
            return Err(format!("{fields}, received, length, send and close for byte streams"));
        }
        if self.status.is_some_and(|status| !(200..600).contains(&status)) {
            return Err("status must be 200 to 599".to_owned());
        }
        if self.delay_ms > MAX_DELAY_MS {
            return Err(format!("delay_ms must be at most {MAX_DELAY_MS}"));
        }
        if self.length.is_some_and(|length| !length.is_sound()) {
            return Err("a length has 1 to 4 bytes, and at and more are at most 65536".to_owned());
        }
        let headers = self.headers.iter().map(|(name, value)| header(name, value));
        headers.collect::<Result<Vec<_>, _>>().map(drop).map_err(|error| error.to_string())
    }
}

/// Reads rules, and checks that their answers can be sent.
///
/// # Errors
/// What is wrong, with the number of the rule.
pub fn read_rules(text: &[u8]) -> Result<Vec<AnswerRule>, String> {
    let rules: Vec<AnswerRule> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if rules.len() > MAX_RULES {
        return Err(format!("there are more than {MAX_RULES} rules"));
    }
    for (number, rule) in rules.iter().enumerate() {
        rule.check().map_err(|what| format!("rule {number}: {what}"))?;
    }
    Ok(rules)
}

/// The rules that count now.
pub(super) struct Answers {
    pub file: Option<PathBuf>,
    pub otherwise: Mutex<Vec<AnswerRule>>,
}

impl Answers {
    /// Returns the rules, those of the file first, and why the file could not be used.
    pub async fn rules(&self) -> (Vec<AnswerRule>, Option<String>) {
        let (mut rules, problem) = match self.rules_of_file().await {
            Ok(rules) => (rules, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        rules.extend_from_slice(&self.otherwise.lock().unwrap_or_else(PoisonError::into_inner));
        (rules, problem)
    }

    async fn rules_of_file(&self) -> Result<Vec<AnswerRule>, String> {
        let Some(path) = &self.file else { return Ok(Vec::new()) };
        let wrong = |why: String| format!("{}: {why}", path.display());
        match tokio::fs::metadata(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Ok(about) if about.len() > MAX_FILE => {
                return Err(wrong(format!("it has more than {MAX_FILE} bytes")));
            }
            _ => {}
        }
        let text = tokio::fs::read(path).await.map_err(|error| wrong(error.to_string()))?;
        read_rules(&text).map_err(wrong)
    }
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// Returns true if a text is as a pattern says, in which each `*` stands for any text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, fits) in [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/ab/c?d", true),
            ("*", "", true),
            ("/v1/*/send", "/v1/x/y/send", true),
            ("/v1/*/send", "/v1/send", false),
            ("/*a*b", "/xab", true),
            ("/*a*b", "/xba", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_its_place() {
        for (text, part) in [
            (r#"[{}, {"status": 99}]"#, "rule 1: status must be"),
            (r#"[{"headers": {"a b": "c"}}]"#, "rule 0: header"),
            (r#"[{"delay_ms": 600001}]"#, "rule 0: delay_ms"),
            (r#"[{"stauts": 200}]"#, "unknown field `stauts`"),
            (r#"[{"received": "0g"}]"#, "two hex digits"),
            (r#"[{"send": "00", "status": 200}]"#, "rule 0: path, status"),
            (r#"[{"length": {"at": 0, "bytes": 5}}]"#, "rule 0: a length has"),
        ] {
            let error = read_rules(text.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
