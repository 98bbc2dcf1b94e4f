//! The JSON payload. What is given in several places is settled by precedence, the last one winning:
//! typed fields, then options, then `data`, then `native`. The keys of `data` and `native` go beside `aps`;
//! an `aps` object in either is merged into ours key by key.

use std::borrow::Cow;

use crate::aps::{self, CONTENT};
use crate::dictionary::Dictionary;
use crate::push_type::PushType;
use pushlet_provider::input::{Options, invalid, missing, too_large};
use pushlet_provider::json::{self, Object};
use pushlet_provider::{Notification, Rejection};
use serde_json::{Value, json};

/// A payload, still without what its push type adds.
pub struct Payload {
    aps: Dictionary,
    beside: Object,
    /// There is a raw payload: if it is empty, that is what the caller means.
    raw: bool,
    /// Is the sound that of the typed field? A raw one stays where it is.
    typed_sound: bool,
}

impl Payload {
    /// The payload that the notification asks for.
    pub fn build(notification: &Notification, options: Options) -> Result<Self, Rejection> {
        let mut payload = Self {
            aps: aps::build(notification, options)?,
            beside: Object::new(),
            raw: notification.native.is_some(),
            typed_sound: notification.sound.is_some(),
        };
        if let Some(image) = notification.alert.as_ref().and_then(|alert| alert.image.as_deref()) {
            payload.beside.insert("image".into(), image.into());
            payload.aps.insert_if_missing("mutable-content", 1);
        }
        payload.add("data", json::object("data", notification.data.as_deref())?)?;
        payload.add("native", json::object("native", notification.native.as_deref())?)?;
        Ok(payload)
    }

    /// Would the device have nothing to do?
    pub fn says_nothing(&self) -> bool {
        self.beside.is_empty() && !self.has_content()
    }

    fn has_content(&self) -> bool {
        CONTENT.iter().any(|key| self.aps.contains(key))
    }

    fn add(&mut self, field: &str, mut object: Object) -> Result<(), Rejection> {
        match object.shift_remove("aps") {
            None => {}
            Some(Value::Object(aps)) => {
                self.typed_sound &= !aps.contains_key("sound");
                self.aps.extend(aps);
            }
            Some(_) => return Err(invalid(field, format!("aps in {field} must be a JSON object"))),
        }
        if self.beside.is_empty() {
            self.beside = object;
        } else {
            self.beside.extend(object);
        }
        Ok(())
    }

    /// The push type that the content tells.
    pub fn infer(&self) -> PushType {
        let shown = ["alert", "badge", "sound"].iter().any(|key| self.aps.contains(key));
        let has = |key| self.aps.contains(key);
        if has("event") || has("content-state") {
            PushType::LiveActivity
        } else if has("content-changed") {
            PushType::Widgets
        } else if self.beside.contains_key("mdm") && !shown {
            PushType::Mdm
        } else if has("content-available") && !shown {
            PushType::Background
        } else {
            PushType::Alert
        }
    }

    /// The bytes to send, after the rules of the push type.
    pub fn finish(&self, kind: PushType, now: u64) -> Result<Vec<u8>, Rejection> {
        let mut aps = Cow::Borrowed(&self.aps);
        match kind {
            PushType::Background => finish_background(aps.to_mut())?,
            PushType::LiveActivity => self.finish_live_activity(aps.to_mut(), now)?,
            // All that these two kinds ever say.
            PushType::Controls | PushType::Widgets if !self.has_content() => {
                aps.to_mut().insert("content-changed", true);
            }
            _ => {}
        }
        if !kind.may_be_empty() && self.says_nothing() && !self.raw {
            return Err(payload_empty());
        }
        let relevance = aps.get("relevance-score").filter(|score| score.is_number());
        let fits = |score: &Value| score.as_f64().is_some_and(|score| (0.0..=1.0).contains(&score));
        if kind != PushType::LiveActivity && relevance.is_some_and(|score| !fits(score)) {
            return Err(invalid("relevance_score", "relevance_score must be from 0 to 1"));
        }
        let beside = json::write(&self.beside);
        let without_aps = matches!(kind, PushType::Mdm | PushType::FileProvider);
        if without_aps && aps.is_empty() {
            return Ok(beside.into_bytes());
        }
        let comma = if self.beside.is_empty() { "" } else { "," };
        let rest = beside.strip_prefix('{').unwrap_or_default();
        let aps = json::write(&*aps);
        Ok([r#"{"aps":"#, &aps, comma, rest].concat().into_bytes())
    }

    fn finish_live_activity(&self, aps: &mut Dictionary, now: u64) -> Result<(), Rejection> {
        self.move_sound(aps)?;
        if self.starts_activity() {
            for (key, field) in [
                ("alert", "alert"),
                ("attributes-type", "attributes_type"),
                ("attributes", "attributes"),
                ("content-state", "content_state"),
            ] {
                if !aps.contains(key) {
                    return Err(missing(field, format!("{field} is required to start a Live Activity")));
                }
            }
        }
        aps.insert_if_missing("timestamp", now / 1000);
        Ok(())
    }

    /// A Live Activity's sound is part of its alert, which then is a dictionary.
    fn move_sound(&self, aps: &mut Dictionary) -> Result<(), Rejection> {
        if !self.typed_sound {
            return Ok(());
        }
        let Some(sound) = aps.remove("sound") else { return Ok(()) };
        if !sound.is_string() {
            return Err(invalid("sound", "the sound of a Live Activity must be a name"));
        }
        let Some(alert) = aps.get_mut("alert") else {
            return Err(missing("alert", "the sound of a Live Activity needs an alert: a title or a body"));
        };
        if alert.is_string() {
            *alert = json!({ "body": alert.take() });
        }
        if let Value::Object(alert) = alert {
            alert.entry("sound").or_insert(sound);
        }
        Ok(())
    }

    /// Does it start a Live Activity?
    pub fn starts_activity(&self) -> bool {
        self.aps.get("event").and_then(Value::as_str) == Some("start")
    }
}

/// A background push wakes the app and shows nothing.
fn finish_background(aps: &mut Dictionary) -> Result<(), Rejection> {
    if let Some(key) = ["alert", "badge", "sound"].iter().find(|key| aps.contains(key)) {
        return Err(invalid("push_type", format!("a background notification cannot have {key}")));
    }
    aps.insert("content-available", 1);
    Ok(())
}

fn payload_empty() -> Rejection {
    Rejection {
        code: "payload_empty".into(),
        message: "there is nothing to send: no alert, badge, sound, data or content_available".into(),
        field: None,
        more: Vec::new(),
    }
}

/// Refuses a body above the limit, naming the field that takes the most of it.
pub fn check_size(body: &[u8], limit: usize, notification: &Notification) -> Result<(), Rejection> {
    if body.len() <= limit {
        return Ok(());
    }
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let alert = notification.alert.as_ref();
    let mut parts = vec![
        ("native", length(&notification.native)),
        ("data", length(&notification.data)),
        ("title", alert.map_or(0, |alert| length(&alert.title))),
        ("subtitle", alert.map_or(0, |alert| length(&alert.subtitle))),
        ("body", alert.map_or(0, |alert| length(&alert.body))),
    ];
    parts.extend(notification.options.iter().map(|(name, value)| (name.as_str(), value.len())));
    let field = parts.iter().max_by_key(|(_, size)| *size).map_or("data", |(name, _)| name);
    Err(too_large(field, format!("the payload has {} bytes, the limit is {limit}", body.len())))
}
