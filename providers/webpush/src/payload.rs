//! The message that a subscription gets, before it is encrypted.

use crate::encrypt::LONGEST;
use pushlet_provider::input::{Options, invalid, too_large};
use pushlet_provider::json::{self, Object};
use pushlet_provider::{Notification, Rejection};
use serde_json::Value;

/// What marks a declarative message (W3C Push API).
const DECLARATIVE: u32 = 8030;
/// Texts of the notification that are options, in the names of the Notification API.
const TEXTS: [&str; 4] = ["dir", "lang", "tag", "icon"];
const FLAGS: [(&str, &str); 3] =
    [("silent", "silent"), ("require_interaction", "requireInteraction"), ("renotify", "renotify")];

/// The message; None: there is none, and the push only wakes the service worker.
pub fn message(notification: &Notification) -> Result<Option<Vec<u8>>, Rejection> {
    let text = match &notification.native {
        Some(native) => native.clone(),
        None => {
            let message = typed(notification, Options::of(notification))?;
            if message.is_empty() {
                return Ok(None);
            }
            json::write(&message)
        }
    };
    if text.len() > LONGEST {
        let message = format!("the message has {} bytes, the limit is {LONGEST}", text.len());
        return Err(too_large("data", message));
    }
    Ok(Some(text.into_bytes()))
}

fn typed(notification: &Notification, options: Options) -> Result<Object, Rejection> {
    let mut shown = shown(notification, options)?;
    let data = json::object("data", notification.data.as_deref())?;
    let mut message = Object::new();
    if let Some(navigate) = options.text("navigate")? {
        if !shown.contains_key("title") {
            return Err(invalid("title", "title must be given with navigate"));
        }
        message.insert("web_push".into(), DECLARATIVE.into());
        shown.insert("navigate".into(), navigate.into());
        if !data.is_empty() {
            shown.insert("data".into(), Value::Object(data));
        }
        message.insert("notification".into(), Value::Object(shown));
        message.extend(notification.badge.map(|badge| ("app_badge".to_string(), badge.into())));
        message.extend(options.boolean("mutable")?.map(|flag| ("mutable".to_string(), flag.into())));
        return Ok(message);
    }
    if !shown.is_empty() {
        message.insert("notification".into(), Value::Object(shown));
    }
    if !data.is_empty() {
        message.insert("data".into(), Value::Object(data));
    }
    message.extend(notification.badge.map(|badge| ("badge".to_string(), badge.into())));
    Ok(message)
}

/// The options of the Notification API.
fn shown(notification: &Notification, options: Options) -> Result<Object, Rejection> {
    let mut shown = Object::new();
    let alert = notification.alert.as_ref();
    let texts = [
        ("title", alert.and_then(|alert| alert.title.clone())),
        ("body", alert.and_then(|alert| alert.body.clone())),
        ("image", alert.and_then(|alert| alert.image.clone())),
    ];
    shown.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_string(), text?.into()))));
    for name in TEXTS {
        shown.extend(options.text(name)?.map(|text| (name.to_string(), text.into())));
    }
    for (option, name) in FLAGS {
        shown.extend(options.boolean(option)?.map(|flag| (name.to_string(), flag.into())));
    }
    shown.extend(options.list("actions")?.map(|list| ("actions".to_string(), list.into())));
    // Browsers drop the whole message otherwise.
    if shown.get("renotify") == Some(&Value::Bool(true)) && !shown.contains_key("tag") {
        return Err(invalid("renotify", "renotify needs a tag"));
    }
    Ok(shown)
}
