//! What the user sees, from the typed fields and from a legacy `notification` object, and how each platform says it.

use pushlet_provider::input::invalid;
use pushlet_provider::json::{self, Object};
use pushlet_provider::{Localized, Notification, Rejection, Sound};
use serde_json::{Value, json};

/// The contents of a notification before they are spread over the platforms.
#[derive(Default)]
pub struct Shown {
    title: Option<Value>,
    subtitle: Option<Value>,
    body: Option<Value>,
    image: Option<Value>,
    title_localized: Phrase,
    subtitle_localized: Phrase,
    body_localized: Phrase,
    badge: Option<u64>,
    sound: Option<Value>,
    category: Option<Value>,
    thread: Option<Value>,
    /// Android's own: icon, color, tag, channelId, clickAction.
    android: Object,
    /// What Apple devices find beside `aps`: keys of a legacy notification that nobody knows.
    unknown: Object,
}

/// A key of the app's own table of texts, and its arguments.
#[derive(Default)]
struct Phrase {
    key: Option<Value>,
    arguments: Option<Value>,
}

impl Shown {
    /// What the typed fields say.
    pub fn typed(notification: &Notification) -> Self {
        let text = |text: &Option<String>| text.as_deref().map(Value::from);
        let mut shown = Self {
            badge: notification.badge.map(u64::from),
            sound: notification.sound.as_ref().map(sound),
            category: text(&notification.category),
            thread: text(&notification.thread),
            ..Self::default()
        };
        if let Some(alert) = &notification.alert {
            shown.title = text(&alert.title);
            shown.subtitle = text(&alert.subtitle);
            shown.body = text(&alert.body);
            shown.image = text(&alert.image);
            shown.title_localized = Phrase::typed(&alert.title_localized);
            shown.subtitle_localized = Phrase::typed(&alert.subtitle_localized);
            shown.body_localized = Phrase::typed(&alert.body_localized);
        }
        shown
    }

    /// Lays a `notification` object in legacy (or v1) names over it.
    pub fn overlay(&mut self, legacy: Object) -> Result<(), Rejection> {
        for (name, value) in legacy {
            match name.as_str() {
                "title" => self.title = Some(value),
                "subtitle" => self.subtitle = Some(value),
                "body" => self.body = Some(value),
                "image" => self.image = Some(value),
                "badge" => self.badge = Some(badge(&value)?),
                "sound" => self.sound = Some(value),
                "click_action" => {
                    self.category = Some(value.clone());
                    self.android.insert("clickAction".into(), value);
                }
                "android_channel_id" => drop(self.android.insert("channelId".into(), value)),
                "icon" | "color" | "tag" => drop(self.android.insert(name, value)),
                "title_loc_key" => self.title_localized.key = Some(value),
                "title_loc_args" => self.title_localized.arguments = Some(list(&name, value)?),
                "subtitle_loc_key" => self.subtitle_localized.key = Some(value),
                "subtitle_loc_args" => self.subtitle_localized.arguments = Some(list(&name, value)?),
                "body_loc_key" => self.body_localized.key = Some(value),
                "body_loc_args" => self.body_localized.arguments = Some(list(&name, value)?),
                // As Google's legacy servers did.
                _ => drop(self.unknown.insert(format!("gcm.notification.{name}"), value)),
            }
        }
        Ok(())
    }

    /// Is there anything to read?
    pub fn is_visible(&self) -> bool {
        let texts =
            [&self.title, &self.body, &self.image, &self.title_localized.key, &self.body_localized.key];
        texts.iter().any(|text| text.is_some())
    }

    /// The picture's URL.
    pub fn image(&self) -> Option<&Value> {
        self.image.as_ref()
    }

    /// Keys of `apns.payload` beside `aps`.
    pub fn beside_aps(&self) -> &Object {
        &self.unknown
    }

    /// `message.notification`, for all platforms.
    pub fn common(&self) -> Object {
        let mut object = Object::new();
        put(&mut object, "title", &self.title);
        put(&mut object, "body", &self.body);
        put(&mut object, "image", &self.image);
        object
    }

    /// `android.notification`. Without a text there is none: it would make a data message a visible one.
    pub fn android(&self) -> Object {
        let mut object = Object::new();
        if !self.is_visible() {
            return object;
        }
        put(&mut object, "titleLocKey", &self.title_localized.key);
        put(&mut object, "titleLocArgs", &self.title_localized.arguments);
        put(&mut object, "bodyLocKey", &self.body_localized.key);
        put(&mut object, "bodyLocArgs", &self.body_localized.arguments);
        let sound = self.sound.as_ref().map(|sound| sound.get("name").unwrap_or(sound).clone());
        put(&mut object, "sound", &sound);
        // Google's number has 31 bits, and one that has more would cost everybody the message.
        let count = self.badge.filter(|badge| i32::try_from(*badge).is_ok());
        put(&mut object, "notificationCount", &count.map(Value::from));
        object.extend(self.android.clone());
        object
    }

    /// `apns.payload.aps`.
    pub fn aps(&self) -> Object {
        let mut aps = Object::new();
        let localized = [&self.title_localized, &self.subtitle_localized, &self.body_localized];
        if self.subtitle.is_some() || localized.iter().any(|phrase| phrase.key.is_some()) {
            aps.insert("alert".into(), Value::Object(self.apple_alert()));
        }
        put(&mut aps, "badge", &self.badge.map(Value::from));
        put(&mut aps, "sound", &self.sound);
        put(&mut aps, "category", &self.category);
        put(&mut aps, "thread-id", &self.thread);
        aps
    }

    /// An alert dictionary replaces `message.notification`, so it repeats title and body.
    fn apple_alert(&self) -> Object {
        let mut alert = Object::new();
        put(&mut alert, "title", &self.title);
        put(&mut alert, "subtitle", &self.subtitle);
        put(&mut alert, "body", &self.body);
        for (phrase, key, arguments) in [
            (&self.title_localized, "title-loc-key", "title-loc-args"),
            (&self.subtitle_localized, "subtitle-loc-key", "subtitle-loc-args"),
            (&self.body_localized, "loc-key", "loc-args"),
        ] {
            put(&mut alert, key, &phrase.key);
            put(&mut alert, arguments, &phrase.arguments);
        }
        alert
    }
}

impl Phrase {
    fn typed(text: &Option<Localized>) -> Self {
        let Some(text) = text else { return Self::default() };
        let arguments = (!text.arguments.is_empty()).then(|| Value::from(text.arguments.clone()));
        Self { key: Some(text.key.as_str().into()), arguments }
    }
}

fn sound(sound: &Sound) -> Value {
    match sound {
        Sound::Default => "default".into(),
        Sound::Named(name) => name.as_str().into(),
        Sound::Critical(sound) => json!({ "critical": 1, "name": sound.name, "volume": sound.volume }),
    }
}

/// Legacy callers write the badge as a text.
fn badge(value: &Value) -> Result<u64, Rejection> {
    let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.as_u64().or_else(|| value.as_str().filter(digits)?.parse().ok());
    number.ok_or_else(|| invalid("notification", "badge in notification must be a whole number"))
}

/// Legacy callers write lists as JSON in a text.
fn list(name: &str, value: Value) -> Result<Value, Rejection> {
    let list = match value {
        Value::String(text) => json::parse(&text).ok(),
        other => Some(other),
    };
    list.filter(Value::is_array)
        .ok_or_else(|| invalid("notification", format!("{name} in notification must be a list")))
}

fn put(object: &mut Object, name: &str, value: &Option<Value>) {
    if let Some(value) = value {
        object.insert(name.into(), value.clone());
    }
}
