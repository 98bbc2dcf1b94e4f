//! The keys of the `aps` dictionary: from the typed fields, and from one option each.
//!
//! Source: "Generating a remote notification" (payload key reference) and "Starting and updating Live Activities
//! with ActivityKit push notifications".

use crate::dictionary::Dictionary;
use pushlet_provider::input::{Options, invalid};
use pushlet_provider::json::Object;
use pushlet_provider::{Alert, Localized, Notification, Rejection, Sound};
use serde_json::{Value, json};

/// How an option is written, and how its key is.
#[derive(Clone, Copy)]
pub enum Form {
    Text,
    Choice(&'static [&'static str]),
    /// A boolean that Apple writes as 1 or leaves out.
    Flag,
    Boolean,
    /// Seconds since the epoch.
    Seconds,
    /// Goes out as it is written.
    Number,
    Object,
    List,
}

/// An option that becomes a key of `aps`.
pub struct ApsKey {
    pub option: &'static str,
    pub key: &'static str,
    pub form: Form,
    pub description: &'static str,
}

const fn key(option: &'static str, key: &'static str, form: Form, description: &'static str) -> ApsKey {
    ApsKey { option, key, form, description }
}

/// Every documented key that has no typed field of its own.
pub const KEYS: [ApsKey; 17] = [
    key("content_available", "content-available", Form::Flag, "Wake the app in the background."),
    key(
        "mutable_content",
        "mutable-content",
        Form::Flag,
        "Hand it to the notification service extension first.",
    ),
    key("target_content_id", "target-content-id", Form::Text, "The window that is brought forward."),
    key(
        "interruption_level",
        "interruption-level",
        Form::Choice(&["passive", "active", "time-sensitive", "critical"]),
        "How important it is and when it is shown.",
    ),
    key(
        "relevance_score",
        "relevance-score",
        Form::Number,
        "Rank in the summary: 0 to 1; any number for Live Activities.",
    ),
    key("filter_criteria", "filter-criteria", Form::Text, "What the system compares with the user's Focus."),
    key("url_args", "url-args", Form::List, "Values for the placeholders in a website push's URL."),
    key("event", "event", Form::Choice(&["start", "update", "end"]), "What happens to the Live Activity."),
    key("content_state", "content-state", Form::Object, "The Live Activity's dynamic content."),
    key(
        "timestamp",
        "timestamp",
        Form::Seconds,
        "Seconds since the epoch at which the content was made; default now.",
    ),
    key(
        "stale_date",
        "stale-date",
        Form::Seconds,
        "Seconds since the epoch at which the Live Activity grows stale.",
    ),
    key(
        "dismissal_date",
        "dismissal-date",
        Form::Seconds,
        "Seconds since the epoch at which an ended Live Activity goes.",
    ),
    key("attributes_type", "attributes-type", Form::Text, "The Live Activity's type, to start one."),
    key("attributes", "attributes", Form::Object, "The Live Activity's static content, to start one."),
    key(
        "input_push_token",
        "input-push-token",
        Form::Flag,
        "Ask for a token to update the started Live Activity.",
    ),
    key(
        "input_push_channel",
        "input-push-channel",
        Form::Text,
        "The channel that updates the started Live Activity.",
    ),
    key("content_changed", "content-changed", Form::Boolean, "The widgets have new content."),
];

/// Keys that make a notification do something; the others only adorn it.
pub const CONTENT: [&str; 7] =
    ["alert", "badge", "sound", "content-available", "content-state", "event", "content-changed"];

/// The dictionary that the typed fields and the options give.
pub fn build(notification: &Notification, options: Options) -> Result<Dictionary, Rejection> {
    let mut aps = Dictionary::default();
    if let Some(alert) = alert(notification, options)? {
        aps.insert("alert", alert);
    }
    if let Some(badge) = notification.badge {
        aps.insert("badge", badge);
    }
    if let Some(sound) = &notification.sound {
        aps.insert("sound", sound_value(sound)?);
    }
    for (key, text) in [("category", &notification.category), ("thread-id", &notification.thread)] {
        if let Some(text) = text {
            aps.insert(key, text.as_str());
        }
    }
    for key in &KEYS {
        if let Some(value) = option(key, options)? {
            aps.insert(key.key, value);
        }
    }
    Ok(aps)
}

fn option(key: &ApsKey, options: Options) -> Result<Option<Value>, Rejection> {
    Ok(match key.form {
        Form::Text => options.text(key.option)?.map(Value::from),
        Form::Choice(choices) => options.choice(key.option, choices)?.map(Value::from),
        Form::Flag => options.boolean(key.option)?.filter(|flag| *flag).map(|_| json!(1)),
        Form::Boolean => options.boolean(key.option)?.map(Value::from),
        Form::Seconds => seconds(key.option, options)?.map(Value::from),
        Form::Number => options.number_as_written(key.option)?.map(Value::Number),
        Form::Object => options.object(key.option)?.map(Value::Object),
        Form::List => options.list(key.option)?.map(Value::Array),
    })
}

/// A time in seconds since the epoch. Apple takes milliseconds for seconds of the far future, without a word.
pub fn seconds(name: &str, options: Options) -> Result<Option<i64>, Rejection> {
    /// In the year 5138; as milliseconds, in 1973.
    const LAST: i64 = 99_999_999_999;
    match options.integer(name)? {
        Some(time) if time > LAST => {
            let message =
                format!("{name} must be in seconds since the epoch; {time} looks like milliseconds");
            Err(invalid(name, message))
        }
        time => Ok(time),
    }
}

/// The option `alert` replaces the typed one; an alert of a body alone is a plain text.
fn alert(notification: &Notification, options: Options) -> Result<Option<Value>, Rejection> {
    let given = match options.json("alert")? {
        None => notification.alert.as_ref().map(alert_object),
        Some(Value::Object(map)) => Some(map),
        Some(Value::String(body)) => Some(Object::from_iter([("body".to_string(), Value::String(body))])),
        Some(_) => return Err(invalid("alert", "alert must be a text or Apple's alert dictionary")),
    };
    let mut alert = given.unwrap_or_default();
    insert_text(&mut alert, "launch-image", &options.text("launch_image")?);
    match alert.get("body") {
        _ if alert.is_empty() => Ok(None),
        Some(body @ Value::String(_)) if alert.len() == 1 => Ok(Some(body.clone())),
        _ => Ok(Some(Value::Object(alert))),
    }
}

fn alert_object(alert: &Alert) -> Object {
    let mut object = Object::new();
    insert_text(&mut object, "title", &alert.title);
    insert_text(&mut object, "subtitle", &alert.subtitle);
    insert_text(&mut object, "body", &alert.body);
    insert_localized(&mut object, "title-loc-key", "title-loc-args", &alert.title_localized);
    insert_localized(&mut object, "subtitle-loc-key", "subtitle-loc-args", &alert.subtitle_localized);
    insert_localized(&mut object, "loc-key", "loc-args", &alert.body_localized);
    object
}

fn insert_text(object: &mut Object, key: &str, text: &Option<String>) {
    if let Some(text) = text {
        object.insert(key.into(), text.as_str().into());
    }
}

fn insert_localized(object: &mut Object, key: &str, arguments: &str, text: &Option<Localized>) {
    if let Some(text) = text {
        object.insert(key.into(), text.key.as_str().into());
        if !text.arguments.is_empty() {
            object.insert(arguments.into(), text.arguments.clone().into());
        }
    }
}

fn sound_value(sound: &Sound) -> Result<Value, Rejection> {
    match sound {
        Sound::Default => Ok("default".into()),
        Sound::Named(name) => Ok(name.as_str().into()),
        Sound::Critical(sound) if (0.0..=1.0).contains(&sound.volume) => {
            Ok(json!({ "critical": 1, "name": sound.name, "volume": sound.volume }))
        }
        Sound::Critical(_) => Err(invalid("sound", "the volume of a critical sound must be from 0 to 1")),
    }
}
