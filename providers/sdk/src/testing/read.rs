//! The JSON forms of a vector's inputs.
#![allow(clippy::panic, clippy::expect_used)]

use crate::{
    Alert, Application, CriticalSound, Environment, Localized, Notification, Priority, Recipient, Response,
    Sound, Target,
};
use serde_json::{Map, Value};

/// 2023-11-14T22:13:20Z, unless the case says otherwise.
pub fn now(value: &Value) -> u64 {
    value.as_u64().unwrap_or(1_700_000_000_000)
}

/// `{"environment", "credential", "settings"}`, each optional.
pub fn application(value: &Value) -> Application {
    only(value, &["environment", "credential", "settings"]);
    let settings = value.get("settings").and_then(Value::as_object).cloned().unwrap_or_default();
    Application {
        id: "example".into(),
        environment: match value.get("environment").and_then(Value::as_str) {
            None | Some("production") => Environment::Production,
            Some("development") => Environment::Development,
            Some(other) => panic!("environment {other}"),
        },
        settings: settings.iter().map(|(name, value)| (name.clone(), string(value))).collect(),
        credential: value.get("credential").map(string),
    }
}

/// Texts are devices; `{"topic": "news"}` and the like name their kind, perhaps with `options`. Default: the one device `aa11`.
pub fn recipients(value: &Value) -> Vec<Recipient> {
    match value {
        Value::Null => vec![Recipient { target: Target::Device("aa11".into()), options: Vec::new() }],
        Value::Array(list) => list.iter().map(recipient).collect(),
        other => panic!("targets {other}"),
    }
}

fn recipient(value: &Value) -> Recipient {
    let mut value = value.clone();
    let options = value.as_object_mut().and_then(|fields| fields.shift_remove("options"));
    let options = options.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    let options = options.into_iter().map(|(name, value)| (name, value.to_string())).collect();
    Recipient { target: target(&value), options }
}

fn target(value: &Value) -> Target {
    if let Value::String(token) = value {
        return Target::Device(token.clone());
    }
    let (kind, name) = value.as_object().and_then(|map| map.iter().next()).expect("a target");
    match kind.as_str() {
        "device" => Target::Device(string(name)),
        "topic" => Target::Topic(string(name)),
        "condition" => Target::Condition(string(name)),
        "channel" => Target::Channel(string(name)),
        "url" => Target::Url(string(name)),
        other => panic!("target {other}"),
    }
}

/// The flat form: typed fields by name, everything else is an option.
pub fn notification(value: &Value) -> Notification {
    let mut fields = value.as_object().cloned().expect("a notification is an object");
    let mut notification = Notification {
        alert: alert(&mut fields),
        badge: fields.shift_remove("badge").map(|badge| u32::try_from(integer(&badge)).expect("badge")),
        sound: fields.shift_remove("sound").map(|value| sound(&value)),
        category: text(&mut fields, "category"),
        thread: text(&mut fields, "thread"),
        data: fields.shift_remove("data").map(|data| data.to_string()),
        collapse_key: text(&mut fields, "collapse_key"),
        time_to_live: fields.shift_remove("ttl").map(|ttl| u32::try_from(integer(&ttl)).expect("ttl")),
        priority: text(&mut fields, "priority").map(|name| priority(&name)),
        identifier: text(&mut fields, "identifier"),
        options: Vec::new(),
        native: fields.shift_remove("native").map(|native| native.to_string()),
    };
    notification.options = fields.into_iter().map(|(name, value)| (name, value.to_string())).collect();
    notification
}

/// `{"status", "headers", "body" or "body_text"}`.
pub fn response(value: &Value) -> Response {
    only(value, &["status", "headers", "body", "body_text"]);
    let headers = value.get("headers").and_then(Value::as_object).cloned().unwrap_or_default();
    let body = match (value.get("body"), value.get("body_text")) {
        (Some(body), None) => body.to_string(),
        (None, Some(text)) => string(text),
        _ => String::new(),
    };
    Response {
        status: value
            .get("status")
            .map(integer)
            .and_then(|status| u16::try_from(status).ok())
            .expect("a status"),
        headers: headers.iter().map(|(name, value)| (name.clone(), string(value))).collect(),
        body: body.into_bytes(),
    }
}

fn alert(fields: &mut Map<String, Value>) -> Option<Alert> {
    let alert = Alert {
        title: text(fields, "title"),
        subtitle: text(fields, "subtitle"),
        body: text(fields, "body"),
        image: text(fields, "image"),
        title_localized: localized(fields, "title_localized"),
        subtitle_localized: localized(fields, "subtitle_localized"),
        body_localized: localized(fields, "body_localized"),
    };
    let nothing = Alert {
        title: None,
        subtitle: None,
        body: None,
        image: None,
        title_localized: None,
        subtitle_localized: None,
        body_localized: None,
    };
    Some(alert).filter(|alert| *alert != nothing)
}

fn localized(fields: &mut Map<String, Value>, name: &str) -> Option<Localized> {
    let value = fields.shift_remove(name)?;
    let arguments = value.get("arguments").and_then(Value::as_array).cloned().unwrap_or_default();
    Some(Localized { key: string(&value["key"]), arguments: arguments.iter().map(string).collect() })
}

fn sound(value: &Value) -> Sound {
    match value {
        Value::String(name) if name == "default" => Sound::Default,
        Value::String(name) => Sound::Named(name.clone()),
        critical => Sound::Critical(CriticalSound {
            name: string(&critical["name"]),
            volume: critical["volume"].as_f64().expect("a volume"),
        }),
    }
}

fn priority(name: &str) -> Priority {
    match name {
        "low" => Priority::Low,
        "normal" => Priority::Normal,
        "high" => Priority::High,
        other => panic!("priority {other}"),
    }
}

fn text(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    fields.shift_remove(name).map(|value| string(&value))
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text")).to_string()
}

fn integer(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a whole number"))
}

fn only(value: &Value, names: &[&str]) {
    let unknown = value.as_object().and_then(|map| map.keys().find(|key| !names.contains(&key.as_str())));
    assert_eq!(unknown, None, "an unknown field in {value}");
}
