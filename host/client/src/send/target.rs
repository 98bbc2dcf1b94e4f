//! One target: its text in the file, its line in the stream, and the key that tells it apart.

use std::collections::HashSet;

use ring::digest::{SHA256, digest};
use serde_json::Value;

/// A target on its way.
pub struct Target {
    /// As it stood in the file.
    pub text: String,
    /// As a line of the stream, without its end.
    pub line: String,
}

impl Target {
    /// For the results: a token as a text, a JSON line as what it is.
    pub fn shown(text: &str) -> Value {
        let object = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
        object.unwrap_or_else(|| text.into())
    }
}

/// Identifies a target: the beginning of a digest.
pub type TargetKey = [u8; 16];

/// Targets that have a final result: 16 bytes for each, whatever its length.
#[derive(Default)]
pub struct FinishedTargets(HashSet<TargetKey>);

impl FinishedTargets {
    pub fn insert(&mut self, target: &str) {
        self.0.insert(key(target));
    }

    pub fn contains(&self, target: &str) -> bool {
        !self.0.is_empty() && self.0.contains(&key(target))
    }
}

/// A JSON line may be written with other spaces.
pub fn key(target: &str) -> TargetKey {
    let text = trimmed(target);
    let plain = match Target::shown(text) {
        Value::String(_) => text.to_owned(),
        object => object.to_string(),
    };
    let mut key = [0; 16];
    key.copy_from_slice(&digest(&SHA256, plain.as_bytes()).as_ref()[..16]);
    key
}

/// Strips white space and byte order marks around a line.
pub fn trimmed(line: &str) -> &str {
    line.trim_matches(|letter: char| letter.is_ascii_whitespace() || letter == '\u{feff}')
}
