//! A notification as JSON.

use crate::frame::Message;
use pushlet_provider::input::{Options, invalid, missing, too_large};
use pushlet_provider::json::{self, Object};
use pushlet_provider::{Alert, Localized, Notification, Priority, Rejection, Sound};
use serde_json::{Value, json};

/// Most bytes of a payload (iOS 8 and later).
pub const LIMIT: usize = 2048;

/// What is sent to every target. `now`: milliseconds since the epoch.
pub fn message(notification: &Notification, now: u64) -> Result<Message, Rejection> {
    let payload = payload(notification)?;
    if payload.len() > LIMIT {
        let message = format!("the payload has {} bytes; this protocol takes {LIMIT}", payload.len());
        return Err(too_large("data", message));
    }
    let expiry = notification.time_to_live.map(|seconds| match seconds {
        0 => 0,
        seconds => u32::try_from(now / 1000).unwrap_or(u32::MAX).saturating_add(seconds),
    });
    let priority = notification.priority.map(|priority| match priority {
        Priority::High => 10,
        Priority::Normal | Priority::Low => 5,
    });
    Ok(Message { payload, expiry, priority })
}

fn payload(notification: &Notification) -> Result<Vec<u8>, Rejection> {
    if let Some(native) = &notification.native {
        return Ok(json::write(&json::object("native", Some(native))?).into_bytes());
    }
    let aps = aps(notification, Options::of(notification))?;
    let data = json::object("data", notification.data.as_deref())?;
    if data.contains_key("aps") {
        return Err(invalid("data", "data must not have the key aps; give a whole payload as native"));
    }
    if aps.is_empty() && data.is_empty() {
        return Err(missing("alert", "there is nothing to send: give an alert, badge, sound or data"));
    }
    let mut payload = Object::new();
    payload.insert("aps".into(), Value::Object(aps));
    payload.extend(data);
    Ok(json::write(&payload).into_bytes())
}

fn aps(notification: &Notification, options: Options) -> Result<Object, Rejection> {
    let mut aps = Object::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            aps.insert(key.into(), value);
        }
    };
    put("alert", notification.alert.as_ref().and_then(alert));
    put("badge", notification.badge.map(Value::from));
    put("sound", notification.sound.as_ref().map(sound));
    put("category", notification.category.as_deref().map(Value::from));
    put("thread-id", notification.thread.as_deref().map(Value::from));
    for (option, key) in [("content_available", "content-available"), ("mutable_content", "mutable-content")]
    {
        put(key, options.boolean(option)?.filter(|flag| *flag).map(|_| 1.into()));
    }
    Ok(aps)
}

/// A body alone is a text; everything else makes a dictionary.
fn alert(alert: &Alert) -> Option<Value> {
    let mut dictionary = Object::new();
    for (key, text) in [("title", &alert.title), ("subtitle", &alert.subtitle), ("body", &alert.body)] {
        if let Some(text) = text {
            dictionary.insert(key.into(), text.as_str().into());
        }
    }
    let localized = [
        ("title-loc-key", "title-loc-args", &alert.title_localized),
        ("subtitle-loc-key", "subtitle-loc-args", &alert.subtitle_localized),
        ("loc-key", "loc-args", &alert.body_localized),
    ];
    for (key, arguments_key, text) in localized {
        if let Some(Localized { key: name, arguments }) = text {
            dictionary.insert(key.into(), name.as_str().into());
            if !arguments.is_empty() {
                dictionary.insert(arguments_key.into(), json!(arguments));
            }
        }
    }
    match &alert.body {
        Some(body) if dictionary.len() == 1 => Some(body.as_str().into()),
        _ => Some(dictionary).filter(|dictionary| !dictionary.is_empty()).map(Value::Object),
    }
}

fn sound(sound: &Sound) -> Value {
    match sound {
        Sound::Default => "default".into(),
        Sound::Named(name) => name.as_str().into(),
        Sound::Critical(sound) => json!({ "critical": 1, "name": sound.name, "volume": sound.volume }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use super::*;

    /// A notification with a text.
    pub fn text(body: &str) -> Notification {
        let alert = Alert {
            title: None,
            subtitle: None,
            body: Some(body.into()),
            image: None,
            title_localized: None,
            subtitle_localized: None,
            body_localized: None,
        };
        Notification { alert: Some(alert), ..Notification::default() }
    }

    fn written(notification: &Notification) -> String {
        String::from_utf8(message(notification, 0).unwrap().payload).unwrap()
    }

    #[test]
    fn payloads_are_as_the_original_wrote_them() {
        assert_eq!(written(&text("hi")), r#"{"aps":{"alert":"hi"}}"#);
        let full = Notification {
            badge: Some(0),
            sound: Some(Sound::Named("chime.aiff".into())),
            category: Some("c".into()),
            data: Some(r#"{"b":1,"a":[true]}"#.into()),
            options: vec![("content_available".into(), "true".into())],
            ..text("é")
        };
        let aps = r#"{"alert":"é","badge":0,"sound":"chime.aiff","category":"c","content-available":1}"#;
        assert_eq!(written(&full), format!(r#"{{"aps":{aps},"b":1,"a":[true]}}"#));
        let raw = Notification { native: Some(r#"{"aps":{},"x":1}"#.into()), ..text("hi") };
        assert_eq!(written(&raw), r#"{"aps":{},"x":1}"#);
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let code = |notification: &Notification| message(notification, 0).unwrap_err().code;
        assert_eq!(code(&Notification::default()), "missing_alert");
        assert_eq!(
            code(&Notification { data: Some(r#"{"aps":1}"#.into()), ..Notification::default() }),
            "invalid_data"
        );
        let fits = "x".repeat(LIMIT - r#"{"aps":{"alert":""}}"#.len());
        assert!(message(&text(&fits), 0).is_ok());
        assert_eq!(code(&text(&format!("{fits}x"))), "payload_too_large");
    }

    #[test]
    fn expiry_and_priority() {
        let at = |ttl, priority| {
            let notification = Notification { time_to_live: ttl, priority, ..text("x") };
            let message = message(&notification, 1_700_000_000_000).unwrap();
            (message.expiry, message.priority)
        };
        assert_eq!(at(None, None), (None, None));
        assert_eq!(at(Some(0), Some(Priority::High)), (Some(0), Some(10)));
        assert_eq!(at(Some(60), Some(Priority::Low)), (Some(1_700_000_060), Some(5)));
        assert_eq!(at(Some(u32::MAX), None), (Some(u32::MAX), None));
    }
}
