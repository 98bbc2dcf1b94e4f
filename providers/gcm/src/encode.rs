//! Notifications to requests: up to 1000 devices in one, a topic or a condition in one of its own.

use crate::manifest::MOST_IDS;
use pushlet_provider::input::{Options, invalid, rejection, too_large, unsupported};
use pushlet_provider::json::{self, Object};
use pushlet_provider::reply::{self, index};
use pushlet_provider::{
    Alert, Encoded, Exchange, Localized, Message, Method, Notification, Priority, Recipient, Refusal,
    Rejection, Sound, Target,
};
use serde_json::Value;

/// Bytes of data at most, keys and values.
const DATA_LIMIT: usize = 4096;
/// Seconds that Google keeps a message at most: four weeks.
const LONGEST_TTL: u32 = 2_419_200;
/// Fields that say whom a request is for; they are the targets' alone.
const RECIPIENTS: [&str; 5] = ["registration_ids", "to", "condition", "registration_id", "notification_key"];
/// Bytes of a registration id, topic or condition at most. Google names no limit; ids are below 300.
const NAME_LIMIT: usize = 4096;

/// Encodes a notification for devices, topics and conditions.
pub fn encode(notification: &Notification, recipients: &[Recipient]) -> Result<Encoded, Rejection> {
    let options = Options::of(notification);
    let common = json::write(&body(notification, options)?);
    let groups = options.boolean("notification_key")?.unwrap_or(false);
    let mut encoded = reply::empty();
    let mut devices: Vec<(usize, &str)> = Vec::new();
    for (place, Recipient { target, .. }) in recipients.iter().enumerate() {
        match addressee(target) {
            Ok(Addressee::Device(id)) if !groups => devices.push((place, id)),
            Ok(Addressee::Device(key)) => add(&mut encoded, vec![place], &common, "to", json::write(&key)),
            Ok(Addressee::Named(field, name)) => {
                add(&mut encoded, vec![place], &common, field, json::write(&name))
            }
            Err(rejection) => encoded.refusals.push(Refusal { covers: vec![index(place)], rejection }),
        }
    }
    for chunk in devices.chunks(MOST_IDS) {
        let (places, ids): (Vec<usize>, Vec<&str>) = chunk.iter().copied().unzip();
        add(&mut encoded, places, &common, "registration_ids", json::write(&ids));
    }
    Ok(encoded)
}

/// Adds one request: `common` with its recipients in front.
fn add(encoded: &mut Encoded, places: Vec<usize>, common: &str, field: &str, recipients: String) {
    let rest = common.strip_prefix('{').unwrap_or(common);
    let comma = if rest == "}" { "" } else { "," };
    let body = format!("{{\"{field}\":{recipients}{comma}{rest}").into_bytes();
    let message = index(encoded.messages.len());
    encoded.messages.push(Message {
        endpoint: "send".into(),
        method: Method::Post,
        headers: vec![("content-type".into(), "application/json".into())],
        body,
        authenticate: true,
    });
    let covers = places.into_iter().map(index).collect();
    encoded.exchanges.push(Exchange {
        covers,
        message,
        url: None,
        path: "/gcm/send".into(),
        headers: Vec::new(),
        idempotent: false,
    });
}

enum Addressee<'a> {
    Device(&'a str),
    /// The request's field, and its value.
    Named(&'static str, String),
}

fn addressee(target: &Target) -> Result<Addressee<'_>, Rejection> {
    match target {
        Target::Device(token) => named("device_token", token).map(Addressee::Device),
        Target::Topic(topic) => {
            let name = named("topic", topic)?;
            let name = name.strip_prefix("/topics/").unwrap_or(name);
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte)) {
                return Err(invalid("topic", "topic may have letters, digits and -_.~% only"));
            }
            Ok(Addressee::Named("to", format!("/topics/{name}")))
        }
        Target::Condition(condition) => {
            named("condition", condition).map(|name| Addressee::Named("condition", name.to_string()))
        }
        other => Err(unsupported(other)),
    }
}

fn named<'a>(field: &str, name: &'a str) -> Result<&'a str, Rejection> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        return Err(invalid(field, format!("{field} must be 1 to {NAME_LIMIT} bytes of text")));
    }
    Ok(name)
}

/// Everything but the recipients. What is given twice is settled so: typed, then options, then `native`.
fn body(notification: &Notification, options: Options) -> Result<Object, Rejection> {
    let mut body = Object::new();
    if notification.data.is_some() {
        body.insert("data".into(), Value::Object(data(notification)?));
    }
    let mut shown = notification_object(notification);
    json::merge(&mut shown, options.object("notification")?.unwrap_or_default());
    if !shown.is_empty() {
        body.insert("notification".into(), Value::Object(shown));
    }
    insert(&mut body, "collapse_key", notification.collapse_key.as_deref());
    insert(&mut body, "time_to_live", time_to_live(notification)?);
    insert(&mut body, "priority", notification.priority.map(priority));
    for name in ["delay_while_idle", "dry_run", "content_available", "mutable_content"] {
        insert(&mut body, name, options.boolean(name)?);
    }
    insert(&mut body, "restricted_package_name", options.text("restricted_package_name")?);
    let native = json::object("native", notification.native.as_deref())?;
    if let Some(field) = RECIPIENTS.iter().find(|field| native.contains_key(**field)) {
        return Err(invalid(
            "native",
            format!("native must not have {field}: the targets say whom it is for"),
        ));
    }
    if native.contains_key("dry_run") {
        // The host must know of it, or it would call a message delivered that was not.
        return Err(invalid("native", "native must not have dry_run: give it as the option dry_run"));
    }
    json::merge(&mut body, native);
    let filled = |name: &str| body.get(name).and_then(Value::as_object).is_some_and(|part| !part.is_empty());
    let wakes = body.get("content_available") == Some(&Value::Bool(true));
    match filled("data") || filled("notification") || wakes {
        true => Ok(body),
        false => Err(rejection(
            "payload_empty",
            "there is nothing to send: no notification, no data and no content_available",
            None,
        )),
    }
}

fn data(notification: &Notification) -> Result<Object, Rejection> {
    let data = json::object("data", notification.data.as_deref())?;
    if let Some(key) = data.keys().find(|key| *key == "from" || key.starts_with("google")) {
        return Err(invalid("data", format!("the key {key} of data is reserved")));
    }
    let weight = json::weight(&data);
    if weight > DATA_LIMIT {
        return Err(too_large("data", format!("data has {weight} bytes, the limit is {DATA_LIMIT}")));
    }
    Ok(data)
}

fn time_to_live(notification: &Notification) -> Result<Option<u32>, Rejection> {
    match notification.time_to_live {
        Some(seconds) if seconds > LONGEST_TTL => {
            Err(invalid("ttl", format!("ttl must be at most {LONGEST_TTL} seconds, four weeks")))
        }
        other => Ok(other),
    }
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal | Priority::Low => "normal",
    }
}

/// What the user sees, in the legacy keys. All values are texts, as Google documents them.
fn notification_object(notification: &Notification) -> Object {
    let mut object = Object::new();
    if let Some(alert) = &notification.alert {
        insert_alert(&mut object, alert);
    }
    insert(&mut object, "badge", notification.badge.map(|badge| badge.to_string()));
    insert(&mut object, "sound", notification.sound.as_ref().map(sound));
    insert(&mut object, "click_action", notification.category.as_deref());
    object
}

fn insert_alert(object: &mut Object, alert: &Alert) {
    insert(object, "title", alert.title.as_deref());
    insert(object, "subtitle", alert.subtitle.as_deref());
    insert(object, "body", alert.body.as_deref());
    insert(object, "image", alert.image.as_deref());
    insert_localized(object, "title", &alert.title_localized);
    insert_localized(object, "subtitle", &alert.subtitle_localized);
    insert_localized(object, "body", &alert.body_localized);
}

/// The arguments are a JSON list written as a text.
fn insert_localized(object: &mut Object, name: &str, text: &Option<Localized>) {
    if let Some(text) = text {
        object.insert(format!("{name}_loc_key"), text.key.as_str().into());
        if !text.arguments.is_empty() {
            object.insert(format!("{name}_loc_args"), json::write(&text.arguments).into());
        }
    }
}

fn sound(sound: &Sound) -> &str {
    match sound {
        Sound::Default => "default",
        Sound::Named(name) => name,
        Sound::Critical(critical) => &critical.name,
    }
}

fn insert(object: &mut Object, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(name.into(), value.into());
    }
}
