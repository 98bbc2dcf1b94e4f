//! Values that FCM looks at beyond their type: colours, labels, conditions, and headers for other services.
//!
//! Where Google's documents are silent: the headers that are looked at are those whose values their own services
//! define (Apple's `apns-*`, and `TTL`, `Urgency` and `Topic` of RFC 8030), without regard to case.

use serde_json::{Map, Value};

use super::discovery::member;

/// Google: `[a-zA-Z0-9-_.~%]{1,50}`.
const MAX_LABEL: usize = 50;
/// Google: at most five topics in a condition.
const MAX_CONDITION_TOPICS: usize = 5;
const PUSH_TYPES: [&str; 11] = [
    "alert",
    "background",
    "complication",
    "controls",
    "fileprovider",
    "liveactivity",
    "location",
    "mdm",
    "pushtotalk",
    "voip",
    "widgets",
];

/// The field that is wrong and what is wrong with it.
pub(super) type Wrong = (String, String);

/// Looks at everything but the target.
pub(super) fn check(message: &Value) -> Result<(), Wrong> {
    for (path, holder) in [
        ("message", Some(message)),
        ("message.android", member(message, "android")),
        ("message.apns", member(message, "apns")),
        ("message.webpush", member(message, "webpush")),
    ] {
        let Some(holder) = holder else { continue };
        check_label(path, holder)?;
    }
    check_colour(message)?;
    check_link(message)?;
    check_headers(message, "apns", apple_header)?;
    check_headers(message, "webpush", web_header)
}

fn check_label(path: &str, holder: &Value) -> Result<(), Wrong> {
    let label = member(holder, "fcmOptions").and_then(|options| member(options, "analyticsLabel"));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
    let sound = |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(allowed);
    match label.and_then(Value::as_str) {
        Some(label) if !sound(label) => {
            Err((format!("{path}.fcm_options.analytics_label"), "Invalid analytics label".to_owned()))
        }
        _ => Ok(()),
    }
}

/// `#rrggbb`.
fn check_colour(message: &Value) -> Result<(), Wrong> {
    let notification = member(message, "android").and_then(|android| member(android, "notification"));
    let colour = notification.and_then(|notification| member(notification, "color")).and_then(Value::as_str);
    let sound = |colour: &str| {
        let digits = colour.strip_prefix('#').unwrap_or_default();
        digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match colour {
        Some(colour) if !sound(colour) => {
            let why = "Invalid color: it must be in the form #rrggbb".to_owned();
            Err(("message.android.notification.color".to_owned(), why))
        }
        _ => Ok(()),
    }
}

/// Google: "for all URL values, HTTPS is required".
fn check_link(message: &Value) -> Result<(), Wrong> {
    let options = member(message, "webpush").and_then(|webpush| member(webpush, "fcmOptions"));
    match options.and_then(|options| member(options, "link")).and_then(Value::as_str) {
        Some(link) if link.contains("://") && !link.starts_with("https://") => {
            Err(("message.webpush.fcm_options.link".to_owned(), "The link must be an HTTPS URL".to_owned()))
        }
        _ => Ok(()),
    }
}

fn check_headers(message: &Value, platform: &str, sound: fn(&str, &str) -> bool) -> Result<(), Wrong> {
    let headers = member(message, platform).and_then(|platform| member(platform, "headers"));
    let none = Map::new();
    for (name, value) in headers.and_then(Value::as_object).unwrap_or(&none) {
        let value = value.as_str().unwrap_or_default();
        let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | 0x80..));
        if !printable(name)
            || name.is_empty()
            || !printable(value)
            || !sound(&name.to_ascii_lowercase(), value)
        {
            return Err((
                format!("message.{platform}.headers"),
                format!("Invalid value of the header {name}"),
            ));
        }
    }
    Ok(())
}

fn apple_header(name: &str, value: &str) -> bool {
    match name {
        "apns-priority" => ["1", "5", "10"].contains(&value),
        "apns-expiration" => is_number(value),
        "apns-push-type" => PUSH_TYPES.contains(&value),
        "apns-collapse-id" => value.len() <= 64,
        "apns-id" => uuid::Uuid::try_parse(value).is_ok(),
        _ => true,
    }
}

/// RFC 8030 sections 5.2 to 5.4.
fn web_header(name: &str, value: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match name {
        "ttl" => is_number(value),
        "urgency" => ["very-low", "low", "normal", "high"].contains(&value),
        "topic" => (1..=32).contains(&value.len()) && value.bytes().all(is_base64url),
        _ => true,
    }
}

fn is_number(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text can be the name of a topic.
pub(super) fn is_topic(topic: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
    (1..=900).contains(&topic.len()) && topic.bytes().all(allowed)
}

/// `'a' in topics && ('b' in topics || !('c' in topics))`, with at most five topics.
pub(super) fn is_condition(condition: &str) -> bool {
    let mut parser = Condition { rest: condition, topics: 0, depth: 0 };
    parser.any().is_some() && parser.rest.trim_start().is_empty() && parser.topics <= MAX_CONDITION_TOPICS
}

struct Condition<'a> {
    rest: &'a str,
    topics: usize,
    depth: usize,
}

impl Condition<'_> {
    fn takes(&mut self, word: &str) -> bool {
        match self.rest.trim_start().strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Terms joined by `&&` and `||`.
    fn any(&mut self) -> Option<()> {
        self.term()?;
        while self.takes("&&") || self.takes("||") {
            self.term()?;
        }
        Some(())
    }

    fn term(&mut self) -> Option<()> {
        while self.takes("!") {}
        if self.takes("(") {
            self.depth += 1;
            (self.depth <= MAX_CONDITION_TOPICS).then_some(())?;
            self.any()?;
            self.depth -= 1;
            return self.takes(")").then_some(());
        }
        let quote = ['\'', '"'].into_iter().find(|quote| self.takes(&quote.to_string()))?;
        let (topic, rest) = self.rest.split_once(quote)?;
        self.rest = rest;
        self.topics += 1;
        (is_topic(topic) && self.takes("in") && self.takes("topics")).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions() {
        for right in [
            "'a' in topics",
            "'a' in topics && ('b' in topics || 'c' in topics)",
            "!('a' in topics)",
            "\"a\" in topics",
            " 'a'  in  topics||'b' in topics ",
        ] {
            assert!(is_condition(right), "{right}");
        }
        let six = ["'a' in topics"; 6].join(" && ");
        for wrong in [
            "",
            "a in topics",
            "'a' in",
            "'a' in topics &&",
            "('a' in topics",
            "'a b' in topics",
            "'a' in topics)",
            &six,
        ] {
            assert!(!is_condition(wrong), "{wrong}");
        }
    }

    #[test]
    fn values_are_looked_at() {
        let field = |message: Value| check(&message).err().map(|(field, _)| field);
        let right = json!({
            "android": {"notification": {"color": "#00FFaa"}, "fcmOptions": {"analyticsLabel": "a-_.~%1"}},
            "apns": {"headers": {"apns-priority": "5", "apns-expiration": "0", "apns-push-type": "background", "x": "y"}},
            "webpush": {"headers": {"TTL": "60", "Urgency": "high", "Topic": "a-b_c"}, "fcm_options": {"link": "https://e.x/"}}
        });
        assert_eq!(field(right), None);
        for colour in ["00ffaa", "#0fa", "red", "#00ffag", "#00ffaa00"] {
            let message = json!({"android": {"notification": {"color": colour}}});
            assert_eq!(field(message).as_deref(), Some("message.android.notification.color"), "{colour}");
        }
        for label in ["", "a b", "ä", &"a".repeat(51)] {
            for (place, path) in [("android", "message.android"), ("apns", "message.apns")] {
                let message = json!({place: {"fcm_options": {"analytics_label": label}}});
                let expected = format!("{path}.fcm_options.analytics_label");
                assert_eq!(field(message), Some(expected), "{label}");
            }
        }
        for (name, value) in [
            ("apns-priority", "high"),
            ("apns-priority", "11"),
            ("apns-expiration", "soon"),
            ("APNS-Push-Type", "loud"),
            ("apns-id", "1"),
            ("x", "a\nb"),
            ("x\r", "a"),
        ] {
            let message = json!({"apns": {"headers": {name: value}}});
            assert_eq!(field(message).as_deref(), Some("message.apns.headers"), "{name} {value}");
        }
        for (name, value) in [("TTL", "-1"), ("ttl", ""), ("Urgency", "urgent"), ("topic", "a b")] {
            let message = json!({"webpush": {"headers": {name: value}}});
            assert_eq!(field(message).as_deref(), Some("message.webpush.headers"), "{name} {value}");
        }
        let link = json!({"webpush": {"fcmOptions": {"link": "http://e.x/"}}});
        assert_eq!(field(link).as_deref(), Some("message.webpush.fcm_options.link"));
    }
}
