//! The message of the API v1.

use crate::draft::{Draft, badge, collapse_number, insert, time_to_live, title};
use crate::manifest::BADGE_CLASS;
use pushlet_provider::input::{Options, invalid, missing, rejection, setting};
use pushlet_provider::json::{self, Object};
use pushlet_provider::{Alert, Application, Localized, Notification, Priority, Rejection, Sound};
use serde_json::{Value, json};

/// Fields that say whom a message is for; they are the targets' alone.
const RECIPIENTS: [&str; 3] = ["token", "topic", "condition"];

/// The request without its targets. What is given twice is settled so: typed, then options, then `native`.
pub fn draft(application: &Application, notification: &Notification) -> Result<Draft, Rejection> {
    let options = Options::of(notification);
    if options.integer("push_type")?.is_some() {
        return Err(invalid(
            "push_type",
            "push_type belongs to the API v3: this application has a client secret",
        ));
    }
    let mut message = Object::new();
    let data = notification.data.as_deref();
    json::object("data", data)?;
    insert(&mut message, "data", data);
    let android = android(application, notification, options)?;
    if !android.is_empty() {
        message.insert("android".into(), Value::Object(android));
    }
    let native = json::object("native", notification.native.as_deref())?;
    if let Some(field) = RECIPIENTS.iter().find(|field| native.contains_key(**field)) {
        let why = format!("native must not have {field}: the targets say whom it is for");
        return Err(invalid("native", why));
    }
    json::merge(&mut message, native);
    let filled = ["data", "notification", "android"].iter().any(|name| has_content(&message, name));
    if !filled {
        return Err(rejection(
            "payload_empty",
            "there is nothing to send: no notification and no data",
            None,
        ));
    }
    check_texts(&message)?;
    let mut head = format!("{{\"message\":{}", json::write(&message));
    head.pop();
    head.push(',');
    let dry = options.boolean("validate_only")?.unwrap_or(false);
    let tail = if dry { "},\"validate_only\":true}" } else { "}}" };
    Ok(Draft { headers: Vec::new(), head, tail: tail.into() })
}

/// Huawei refuses a notification that lacks one of its two texts.
fn check_texts(message: &Object) -> Result<(), Rejection> {
    let part = |object: &Object, name: &str| object.get(name).and_then(Value::as_object).cloned();
    let Some(shown) = part(message, "android").and_then(|android| part(&android, "notification")) else {
        return Ok(());
    };
    let common = part(message, "notification").unwrap_or_default();
    for (name, localized) in [("title", "title_loc_key"), ("body", "body_loc_key")] {
        if ![shown.get(name), common.get(name), shown.get(localized)].iter().any(Option::is_some) {
            return Err(missing(name, format!("Huawei needs a title and a body: {name} is missing")));
        }
    }
    Ok(())
}

/// Is there something in it that a device would be given?
fn has_content(message: &Object, name: &str) -> bool {
    match message.get(name) {
        Some(Value::Object(part)) if name == "android" => {
            part.contains_key("notification") || part.contains_key("data")
        }
        Some(Value::Object(part)) => !part.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        _ => false,
    }
}

fn android(
    application: &Application,
    notification: &Notification,
    options: Options,
) -> Result<Object, Rejection> {
    let mut android = Object::new();
    let is_visible = notification.alert.is_some();
    let number = collapse_number(notification);
    if notification.collapse_key.is_some() && number.is_none() && !is_visible {
        let why = "collapse_key of a message without a text must be a whole number from -1 to 100 for Huawei";
        return Err(invalid("collapse_key", why));
    }
    insert(&mut android, "collapse_key", number);
    insert(&mut android, "urgency", notification.priority.map(urgency));
    insert(&mut android, "category", notification.category.as_deref());
    insert(&mut android, "ttl", time_to_live(notification)?.map(|seconds| format!("{seconds}s")));
    insert(&mut android, "bi_tag", notification.identifier.as_deref());
    insert(&mut android, "receipt_id", options.text("receipt_id")?);
    insert(
        &mut android,
        "target_user_type",
        options.boolean("test_message")?.filter(|test| *test).map(|_| 1),
    );
    let mut shown = shown(application, notification, options)?;
    if let Some(alert) = &notification.alert {
        insert(&mut shown, "title", title(application, alert));
        insert_alert(&mut shown, alert);
        // Huawei has no texts as keys for what replaces a notification on the device but its tag.
        insert(&mut shown, "tag", notification.collapse_key.as_deref().filter(|_| number.is_none()));
        android.insert("notification".into(), Value::Object(shown));
    }
    json::merge(&mut android, options.object("android")?.unwrap_or_default());
    if let Some(Value::Object(shown)) = android.get_mut("notification")
        && !shown.contains_key("click_action")
    {
        // Huawei refuses a notification without it. 3: open the app.
        shown.insert("click_action".into(), json!({ "type": 3 }));
    }
    Ok(android)
}

/// The fields of a notification beside its texts.
fn shown(
    application: &Application,
    notification: &Notification,
    options: Options,
) -> Result<Object, Rejection> {
    let mut shown = Object::new();
    insert(&mut shown, "click_action", options.object("click_action")?.map(Value::Object));
    insert(&mut shown, "channel_id", options.text("channel_id")?);
    insert(&mut shown, "group", notification.thread.as_deref());
    insert(&mut shown, "default_sound", notification.sound.as_ref().map(|sound| *sound == Sound::Default));
    insert(&mut shown, "sound", notification.sound.as_ref().and_then(sound));
    let badge = badge(notification)?;
    if let (Some(number), Some(class)) = (badge, setting(application, BADGE_CLASS)) {
        shown.insert("badge".into(), json!({ "set_num": number, "class": class }));
    }
    Ok(shown)
}

fn insert_alert(shown: &mut Object, alert: &Alert) {
    insert(shown, "body", alert.body.as_deref());
    insert(shown, "image", alert.image.as_deref());
    insert_localized(shown, "title", &alert.title_localized);
    insert_localized(shown, "body", &alert.body_localized);
}

fn insert_localized(shown: &mut Object, name: &str, text: &Option<Localized>) {
    if let Some(text) = text {
        shown.insert(format!("{name}_loc_key"), text.key.as_str().into());
        if !text.arguments.is_empty() {
            shown.insert(format!("{name}_loc_args"), text.arguments.clone().into());
        }
    }
}

fn urgency(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "HIGH",
        Priority::Normal | Priority::Low => "NORMAL",
    }
}

/// The path of the app's own file; a bare name is one in its folder `raw`.
fn sound(sound: &Sound) -> Option<String> {
    let name = match sound {
        Sound::Default => return None,
        Sound::Named(name) => name,
        Sound::Critical(critical) => &critical.name,
    };
    Some(if name.starts_with('/') { name.clone() } else { format!("/raw/{name}") })
}
