//! The request of the API v3.

use crate::draft::{Draft, badge, collapse_number, insert, time_to_live, title};
use pushlet_provider::input::{Options, invalid, missing, rejection};
use pushlet_provider::json::{self, Object};
use pushlet_provider::{Alert, Application, Notification, Rejection, Sound};
use serde_json::{Value, json};

/// push-type of a notification.
const NOTIFICATION: i64 = 0;
/// push-type of data for the app in the background.
const BACKGROUND: i64 = 6;

/// The request without its targets.
pub fn draft(application: &Application, notification: &Notification) -> Result<Draft, Rejection> {
    let options = Options::of(notification);
    for (name, given) in [
        ("android", options.object("android")?.is_some()),
        ("channel_id", options.text("channel_id")?.is_some()),
    ] {
        if given {
            let why = format!("{name} belongs to the API v1: this application has a service account");
            return Err(invalid(name, why));
        }
    }
    if options.boolean("validate_only")?.unwrap_or(false) {
        return Err(invalid("validate_only", "the API v3 cannot check a message without delivering it"));
    }
    let native = notification.native.as_deref();
    let is_visible = notification.alert.is_some();
    let otherwise = if is_visible || native.is_some() { NOTIFICATION } else { BACKGROUND };
    let push_type = options.integer("push_type")?.unwrap_or(otherwise);
    let mut payload = match push_type {
        NOTIFICATION if is_visible => visible(application, notification, options)?,
        BACKGROUND => background(notification)?,
        _ => Object::new(),
    };
    json::merge(&mut payload, json::object("native", native)?);
    if payload.is_empty() {
        let why = format!(
            "there is nothing to send: a message of the push type {push_type} needs its native payload"
        );
        return Err(rejection("payload_empty", why, None));
    }
    if push_type == NOTIFICATION {
        check_texts(&payload)?;
    }
    let push = push_options(notification, options)?;
    let head = format!("{{\"payload\":{},\"target\":{{", json::write(&payload));
    let tail = match push.is_empty() {
        true => "}}".to_string(),
        false => format!("}},\"pushOptions\":{}}}", json::write(&push)),
    };
    Ok(Draft { headers: vec![("push-type".into(), push_type.to_string())], head, tail })
}

/// Huawei refuses a notification that lacks one of its two texts.
fn check_texts(payload: &Object) -> Result<(), Rejection> {
    let shown = payload.get("notification").and_then(Value::as_object);
    let lacks = |name: &&str| !shown.is_some_and(|shown| shown.contains_key(*name));
    match ["title", "body"].into_iter().find(lacks) {
        None => Ok(()),
        Some(name) => Err(missing(name, format!("Huawei needs a title and a body: {name} is missing"))),
    }
}

fn visible(
    application: &Application,
    notification: &Notification,
    options: Options,
) -> Result<Object, Rejection> {
    let mut shown = Object::new();
    insert(&mut shown, "category", notification.category.as_deref());
    if let Some(alert) = &notification.alert {
        insert(&mut shown, "title", title(application, alert));
        insert_alert(&mut shown, alert)?;
    }
    let mut action = options.object("click_action")?.unwrap_or_default();
    // 0: open the app.
    action.entry("actionType").or_insert_with(|| json!(0));
    let data = json::object("data", notification.data.as_deref())?;
    if !data.is_empty() {
        action.entry("data").or_insert(Value::Object(data));
    }
    shown.insert("clickAction".into(), Value::Object(action));
    insert(&mut shown, "badge", badge(notification)?.map(|number| json!({ "setNum": number })));
    insert(&mut shown, "sound", notification.sound.as_ref().and_then(sound));
    let mut payload = Object::new();
    payload.insert("notification".into(), Value::Object(shown));
    Ok(payload)
}

/// Texts of the app's own tables have no place in the API v3, and half a message is none.
fn insert_alert(shown: &mut Object, alert: &Alert) -> Result<(), Rejection> {
    for (name, text, localized) in
        [("title", &alert.title, &alert.title_localized), ("body", &alert.body, &alert.body_localized)]
    {
        if text.is_none() && localized.is_some() {
            let field = format!("{name}_loc_key");
            let why = format!("the API v3 has no {field}: give a {name} too");
            return Err(invalid(&field, why));
        }
    }
    insert(shown, "body", alert.body.as_deref());
    insert(shown, "image", alert.image.as_deref());
    Ok(())
}

fn background(notification: &Notification) -> Result<Object, Rejection> {
    let mut payload = Object::new();
    json::object("data", notification.data.as_deref())?;
    insert(&mut payload, "extraData", notification.data.as_deref());
    Ok(payload)
}

fn push_options(notification: &Notification, options: Options) -> Result<Object, Rejection> {
    let mut push = Object::new();
    insert(&mut push, "testMessage", options.boolean("test_message")?);
    insert(&mut push, "ttl", time_to_live(notification)?);
    insert(&mut push, "biTag", notification.identifier.as_deref());
    insert(&mut push, "receiptId", options.text("receipt_id")?);
    let number = collapse_number(notification);
    if notification.collapse_key.is_some() && number.is_none() {
        let why = "collapse_key must be a whole number from -1 to 100 for Huawei";
        return Err(invalid("collapse_key", why));
    }
    insert(&mut push, "collapseKey", number);
    Ok(push)
}

fn sound(sound: &Sound) -> Option<&str> {
    match sound {
        Sound::Default => None,
        Sound::Named(name) => Some(name),
        Sound::Critical(critical) => Some(&critical.name),
    }
}
