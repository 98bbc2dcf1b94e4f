//! The message without its target. What is given in several places is settled by precedence, the last one winning:
//! typed fields, then the legacy options, then `android`, `apns`, `webpush` and `fcm_options`, then `native`.

use crate::schema;
use crate::shown::Shown;
use pushlet_provider::input::{Options, invalid};
use pushlet_provider::json::{self, Object};
use pushlet_provider::{Notification, Priority, Rejection};
use serde_json::Value;

/// Seconds that Google keeps a message at most: four weeks.
const LONGEST_TTL: u32 = 2_419_200;
/// Bytes of `apns-collapse-id` at most.
const COLLAPSE_ID: usize = 64;
/// Letters of a Web Push `Topic` at most (RFC 8030 section 5.4).
const WEB_TOPIC: usize = 32;
/// Fields that are the targets' or Google's own.
const FORBIDDEN: [&str; 5] = ["token", "fid", "topic", "condition", "name"];

/// Builds the common part of all messages of a call.
pub fn build(notification: &Notification, options: Options, now: u64) -> Result<Object, Rejection> {
    let mut shown = Shown::typed(notification);
    shown.overlay(options.object("notification")?.unwrap_or_default())?;
    let native = schema::camel_case(json::object("native", notification.native.as_deref())?, "");
    if let Some(field) = FORBIDDEN.iter().find(|field| native.contains_key(**field)) {
        return Err(invalid(
            "native",
            format!("native must not have {field}: the targets say whom it is for"),
        ));
    }
    let mut message = Object::new();
    put(&mut message, "notification", shown.common());
    put(&mut message, "data", data(notification)?);
    put(&mut message, "android", android(notification, options, &shown)?);
    put(&mut message, "apns", apns(notification, options, &shown, now)?);
    put(&mut message, "webpush", webpush(notification));
    let version_2 = options.object("android_v2")?;
    if version_2.is_some() || native.contains_key("androidV2") {
        if options.object("android")?.is_some() || native.contains_key("android") {
            return Err(invalid("android_v2", "android_v2 and android exclude each other"));
        }
        move_to_version_2(&mut message, version_2.unwrap_or_default(), &native);
    }
    for name in ["android", "apns", "webpush", "fcm_options"] {
        if let Some(part) = options.object(name)? {
            let part = Object::from_iter([(name.to_string(), Value::Object(part))]);
            schema::lay_over(&mut message, schema::camel_case(part, ""), name)?;
        }
    }
    schema::lay_over(&mut message, native, "native")?;
    set_apple_priority(&mut message, notification, options)?;
    schema::stringify(&mut message);
    schema::check_headers(&message)?;
    match says_nothing(&message) {
        true => Err(Rejection {
            code: "payload_empty".into(),
            message: "there is nothing to send: no notification and no data".into(),
            field: None,
            more: Vec::new(),
        }),
        false => Ok(message),
    }
}

/// Is there nothing that a device would show, hear, or hand to the app?
fn says_nothing(message: &Object) -> bool {
    const CONTENT: [&[&str]; 9] = [
        &["notification"],
        &["data"],
        &["android", "notification"],
        &["android", "data"],
        &["androidV2", "data"],
        &["androidV2", "remoteNotification"],
        &["webpush", "notification"],
        &["webpush", "data"],
        &["androidV2", "backgroundSync"],
    ];
    /// Keys of `aps` that only adorn an alert.
    const ADORNMENTS: [&str; 3] = ["mutable-content", "category", "thread-id"];
    let filled = |path: &&[&str]| {
        let found = schema::get(message, path);
        // The one whose mere presence says what is to be done.
        found.is_some_and(|part| !part.is_empty() || path.ends_with(&["backgroundSync"]))
    };
    let apple = schema::get(message, &["apns", "payload"]).is_some_and(|payload| {
        payload.iter().any(|(name, value)| match value {
            Value::Object(aps) if name == "aps" => aps.keys().any(|key| !ADORNMENTS.contains(&key.as_str())),
            _ => true,
        })
    });
    !apple && !CONTENT.iter().any(filled)
}

/// The headers that hang on the whole message. Apple takes silent pushes as background pushes of priority 5 only.
fn set_apple_priority(
    message: &mut Object,
    notification: &Notification,
    options: Options,
) -> Result<(), Rejection> {
    let aps = schema::get(message, &["apns", "payload", "aps"]);
    let shown = |aps: &Object| ["alert", "badge", "sound"].iter().any(|key| aps.contains_key(*key));
    let silent = options.boolean("content_available")?.unwrap_or(false)
        && !aps.is_some_and(shown)
        && schema::get(message, &["notification"]).is_none();
    let priority = match notification.priority {
        _ if silent => Some("5"),
        Some(Priority::High) => Some("10"),
        Some(Priority::Normal) => Some("5"),
        Some(Priority::Low) => Some("1"),
        None => None,
    };
    let mut defaults = Object::new();
    let push_type = if silent { Some("background") } else { None };
    for (name, value) in [("apns-push-type", push_type), ("apns-priority", priority)] {
        let headers = schema::get(message, &["apns", "headers"]);
        let given = headers.is_some_and(|map| map.keys().any(|key| key.eq_ignore_ascii_case(name)));
        if let Some(value) = value.filter(|_| !given) {
            defaults.insert(name.into(), value.into());
        }
    }
    if !defaults.is_empty() {
        let headers = Object::from_iter([("headers".to_string(), Value::Object(defaults))]);
        json::merge(message, Object::from_iter([("apns".to_string(), Value::Object(headers))]));
    }
    Ok(())
}

fn data(notification: &Notification) -> Result<Object, Rejection> {
    let data = json::object("data", notification.data.as_deref())?;
    let reserved = |key: &str| {
        key == "from"
            || key == "message_type"
            || key.starts_with("google.")
            || key.starts_with("gcm.notification.")
    };
    match data.keys().find(|key| reserved(key)) {
        Some(key) => Err(invalid("data", format!("the key {key} of data is reserved"))),
        None => Ok(data),
    }
}

fn android(notification: &Notification, options: Options, shown: &Shown) -> Result<Object, Rejection> {
    let mut android = Object::new();
    if let Some(key) = &notification.collapse_key {
        android.insert("collapseKey".into(), key.as_str().into());
    }
    if let Some(priority) = notification.priority {
        let name = if priority == Priority::High { "HIGH" } else { "NORMAL" };
        android.insert("priority".into(), name.into());
    }
    match notification.time_to_live {
        Some(seconds) if seconds > LONGEST_TTL => {
            return Err(invalid("ttl", format!("ttl must be at most {LONGEST_TTL} seconds, four weeks")));
        }
        Some(seconds) => drop(android.insert("ttl".into(), format!("{seconds}s").into())),
        None => {}
    }
    if let Some(package) = options.text("restricted_package_name")? {
        android.insert("restrictedPackageName".into(), package.into());
    }
    put(&mut android, "notification", shown.android());
    Ok(android)
}

fn apns(notification: &Notification, options: Options, shown: &Shown, now: u64) -> Result<Object, Rejection> {
    let mut aps = shown.aps();
    if options.boolean("content_available")?.unwrap_or(false) {
        aps.insert("content-available".into(), 1.into());
    }
    // A picture is fetched by the app's notification service extension, which mutable-content starts.
    if options.boolean("mutable_content")?.unwrap_or(shown.image().is_some()) {
        aps.insert("mutable-content".into(), 1.into());
    }
    let mut headers = Object::new();
    if let Some(key) = &notification.collapse_key {
        if key.is_empty() || key.chars().any(char::is_control) {
            let message = "collapse_key must be a text of at least one character, without control characters";
            return Err(invalid("collapse_key", message));
        }
        // What Apple would refuse costs Android nothing.
        if key.len() <= COLLAPSE_ID && key.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            headers.insert("apns-collapse-id".into(), key.as_str().into());
        }
    }
    if let Some(seconds) = notification.time_to_live {
        let at = if seconds == 0 { 0 } else { (now / 1000).saturating_add(seconds.into()) };
        headers.insert("apns-expiration".into(), at.to_string().into());
    }
    let mut apns = Object::new();
    let mut payload = Object::new();
    put(&mut payload, "aps", aps);
    payload.extend(shown.beside_aps().clone());
    put(&mut apns, "headers", headers);
    put(&mut apns, "payload", payload);
    if let Some(image) = shown.image() {
        put(&mut apns, "fcmOptions", Object::from_iter([("image".to_string(), image.clone())]));
    }
    Ok(apns)
}

fn webpush(notification: &Notification) -> Object {
    let mut headers = Object::new();
    if let Some(seconds) = notification.time_to_live {
        headers.insert("TTL".into(), seconds.to_string().into());
    }
    if let Some(priority) = notification.priority {
        let urgency = match priority {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        };
        headers.insert("Urgency".into(), urgency.into());
    }
    let topical = |key: &&String| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !key.is_empty() && key.len() <= WEB_TOPIC && key.bytes().all(letter)
    };
    if let Some(key) = notification.collapse_key.as_ref().filter(topical) {
        headers.insert("Topic".into(), key.as_str().into());
    }
    let mut webpush = Object::new();
    put(&mut webpush, "headers", headers);
    webpush
}

/// Gives what the typed fields say to Android to the second version of its settings, which excludes the first.
/// That one has no priority, and shows a notification only as a remote one.
fn move_to_version_2(message: &mut Object, given: Object, native: &Object) {
    let mut first = match message.shift_remove("android") {
        Some(Value::Object(android)) => android,
        _ => Object::new(),
    };
    first.shift_remove("priority");
    let shown = first.shift_remove("notification");
    let given = schema::camel_case(given, "androidV2");
    let background = |config: &Object| config.contains_key("backgroundSync");
    let silent =
        background(&given) || native.get("androidV2").and_then(Value::as_object).is_some_and(background);
    if let Some(shown) = shown.filter(|_| !silent) {
        put(&mut first, "remoteNotification", Object::from_iter([("notification".to_string(), shown)]));
    }
    json::merge(&mut first, given);
    message.insert("androidV2".into(), Value::Object(first));
}

fn put(object: &mut Object, name: &str, part: Object) {
    if !part.is_empty() {
        object.insert(name.into(), Value::Object(part));
    }
}
