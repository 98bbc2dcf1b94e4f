//! What Huawei's references say of a message.

use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// Bytes of a request at most, without its tokens.
const LARGEST: usize = 4096;
const MOST_TOKENS: usize = 1000;
const LONGEST_TTL: u64 = 1_296_000;

const MESSAGE: [&str; 8] =
    ["data", "notification", "android", "apns", "webpush", "token", "topic", "condition"];
const ANDROID: [&str; 10] = [
    "collapse_key",
    "urgency",
    "category",
    "ttl",
    "bi_tag",
    "receipt_id",
    "fast_app_target",
    "data",
    "target_user_type",
    "notification",
];
const NOTIFICATION: [&str; 41] = [
    "title",
    "body",
    "icon",
    "color",
    "sound",
    "default_sound",
    "tag",
    "click_action",
    "body_loc_key",
    "body_loc_args",
    "title_loc_key",
    "title_loc_args",
    "multi_lang_key",
    "channel_id",
    "notify_summary",
    "image",
    "style",
    "big_title",
    "big_body",
    "inbox_content",
    "auto_clear",
    "notify_id",
    "group",
    "badge",
    "ticker",
    "auto_cancel",
    "when",
    "importance",
    "use_default_vibrate",
    "use_default_light",
    "vibrate_config",
    "visibility",
    "light_settings",
    "foreground_show",
    "profile_id",
    "buttons",
    "local_only",
    "event_time",
    "notification_count",
    "big_picture",
    "priority",
];

/// A code of the push service, and its message.
pub(super) struct Failure {
    pub code: String,
    pub message: String,
}

impl Failure {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// Whom a message is for.
pub(super) enum Recipients {
    Tokens(Vec<String>),
    /// A topic or a condition.
    Topic(String),
}

/// A message that passed every check.
pub(super) struct Sound {
    pub recipients: Recipients,
    pub is_dry: bool,
}

type Check<T = ()> = Result<T, Failure>;

/// Checks a request of the API v1.
pub(super) fn check_v1(body: &[u8]) -> Check<Sound> {
    let request = parse(body)?;
    only(&request, &["validate_only", "message"], "")?;
    let is_dry = match request.get("validate_only") {
        None => false,
        Some(Value::Bool(dry)) => *dry,
        Some(_) => return Err(wrong("validate_only must be true or false")),
    };
    let message = object(&request, "message")?.ok_or_else(|| count("there is no message"))?;
    only(message, &MESSAGE, "message.")?;
    let recipients = recipients_v1(message)?;
    let mut bare = request.clone();
    if let Some(Value::Object(message)) = bare.get_mut("message") {
        message.remove("token");
    }
    check_size(&bare)?;
    if message.get("data").is_some_and(|data| !data.is_string()) {
        return Err(wrong("message.data must be a text"));
    }
    let common = object(message, "notification")?;
    let android = object(message, "android")?;
    if let Some(android) = android {
        check_android(android, common)?;
    }
    let has_data =
        message.contains_key("data") || android.is_some_and(|android| android.contains_key("data"));
    let is_visible = android.is_some_and(|android| android.contains_key("notification"));
    // A common notification alone has no click_action, which Android needs.
    if is_visible || has_data && common.is_none() {
        return Ok(Sound { recipients, is_dry });
    }
    Err(structure("android.notification or data is needed"))
}

fn recipients_v1(message: &Object) -> Check<Recipients> {
    let given: Vec<&str> =
        ["token", "topic", "condition"].into_iter().filter(|name| message.contains_key(*name)).collect();
    match given.as_slice() {
        [] => Err(count("token, topic or condition is needed")),
        ["token"] => tokens(message.get("token")).map(Recipients::Tokens),
        [name] => match message.get(*name).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(Recipients::Topic(text.to_owned())),
            _ => Err(wrong(&format!("{name} must be a text"))),
        },
        _ => Err(wrong("only one of token, topic and condition may be there")),
    }
}

fn tokens(list: Option<&Value>) -> Check<Vec<String>> {
    let list = list.and_then(Value::as_array).ok_or_else(|| count("token must be a list"))?;
    let tokens: Vec<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match tokens.len() == list.len() && (1..=MOST_TOKENS).contains(&tokens.len()) {
        true => Ok(tokens),
        false => Err(count("there must be 1 to 1000 tokens")),
    }
}

fn check_android(android: &Object, common: Option<&Object>) -> Check {
    only(android, &ANDROID, "android.")?;
    if let Some(key) = android.get("collapse_key")
        && !key.as_i64().is_some_and(|key| (-1..=100).contains(&key))
    {
        return Err(Failure::new("80100013", "collapse_key must be -1 to 100"));
    }
    choice(android, "urgency", &["HIGH", "NORMAL"])?;
    for name in ["category", "bi_tag", "receipt_id", "data"] {
        if android.get(name).is_some_and(|value| !value.is_string()) {
            return Err(wrong(&format!("android.{name} must be a text")));
        }
    }
    if let Some(ttl) = android.get("ttl") {
        let seconds = ttl.as_str().map(|text| text.strip_suffix('s').unwrap_or(text));
        let seconds: Option<u64> = seconds.and_then(|text| text.parse().ok());
        if seconds.is_none_or(|seconds| seconds > LONGEST_TTL) {
            return Err(wrong("ttl must be a text of at most 1296000 seconds"));
        }
    }
    if android.get("target_user_type").is_some_and(|kind| kind != 1) {
        return Err(wrong("target_user_type must be 1"));
    }
    match object(android, "notification")? {
        None => Ok(()),
        Some(shown) => check_notification(shown, common),
    }
}

fn check_notification(shown: &Object, common: Option<&Object>) -> Check {
    only(shown, &NOTIFICATION, "android.notification.")?;
    let says = |name: &str| {
        let is_text =
            |object: &Object| object.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        is_text(shown) || common.is_some_and(is_text) || shown.contains_key(&format!("{name}_loc_key"))
    };
    if !says("title") || !says("body") {
        return Err(structure("title or content is null"));
    }
    check_click(object(shown, "click_action")?)?;
    if shown.get("default_sound") == Some(&Value::Bool(false)) && !shown.contains_key("sound") {
        return Err(wrong("sound is needed where default_sound is false"));
    }
    if shown.get("sound").is_some_and(|sound| !sound.as_str().is_some_and(|path| path.starts_with('/'))) {
        return Err(wrong("sound must be a path such as /raw/shake"));
    }
    for name in ["title", "body", "tag", "channel_id", "group", "title_loc_key", "body_loc_key"] {
        if shown.get(name).is_some_and(|value| !value.is_string()) {
            return Err(wrong(&format!("{name} must be a text")));
        }
    }
    if shown.get("image").is_some_and(|image| !image.as_str().is_some_and(|url| url.starts_with("https://")))
    {
        return Err(wrong("image must be an https URL"));
    }
    choice(shown, "importance", &["LOW", "NORMAL", "HIGH"])?;
    if let Some(badge) = object(shown, "badge")? {
        let number = |name: &str, least: u64| {
            badge
                .get(name)
                .is_none_or(|value| value.as_u64().is_some_and(|value| (least..=99).contains(&value)))
        };
        if !badge.get("class").is_some_and(Value::is_string) || !number("add_num", 1) || !number("set_num", 0)
        {
            return Err(wrong("badge needs class, and numbers up to 99"));
        }
    }
    Ok(())
}

fn check_click(action: Option<&Object>) -> Check {
    let action = action.ok_or_else(|| structure("click_action is null"))?;
    let has = |name: &str| action.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let is_sound = match action.get("type").and_then(Value::as_u64) {
        Some(1) => has("intent") || has("action"),
        Some(2) => action.get("url").and_then(Value::as_str).is_some_and(|url| url.starts_with("https://")),
        Some(3) => true,
        _ => false,
    };
    if is_sound { Ok(()) } else { Err(structure("click_action is wrong")) }
}

/// Checks a request of the API v3.
pub(super) fn check_v3(push_type: &str, body: &[u8]) -> Check<Sound> {
    let request = parse(body)?;
    only(&request, &["payload", "target", "pushOptions"], "")?;
    let target = object(&request, "target")?.ok_or_else(|| count("there is no target"))?;
    let tokens = tokens(target.get("token"))?;
    let mut bare = request.clone();
    bare.remove("target");
    check_size(&bare)?;
    let payload = object(&request, "payload")?.ok_or_else(|| structure("payload is null"))?;
    match push_type {
        "0" => check_visible_v3(payload)?,
        "6" if payload.get("extraData").is_some_and(Value::is_string) => {}
        "1" if tokens.len() > 1 => return Err(count("a widget update has one token")),
        "1" | "2" | "7" | "10" => {}
        _ => return Err(wrong("push-type or its payload is wrong")),
    }
    if let Some(options) = object(&request, "pushOptions")? {
        only(options, &["testMessage", "ttl", "biTag", "receiptId", "collapseKey"], "pushOptions.")?;
        if options.get("ttl").is_some_and(|ttl| ttl.as_u64().is_none_or(|seconds| seconds > LONGEST_TTL)) {
            return Err(wrong("ttl must be at most 1296000"));
        }
        if options.get("testMessage") == Some(&Value::Bool(true)) && tokens.len() > 10 {
            return Err(Failure::new("80300030", "a test message has at most 10 tokens"));
        }
    }
    Ok(Sound { recipients: Recipients::Tokens(tokens), is_dry: false })
}

fn check_visible_v3(payload: &Object) -> Check {
    let shown = object(payload, "notification")?.ok_or_else(|| structure("notification is null"))?;
    let says = |name: &str| shown.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if !says("title") || !says("body") {
        return Err(structure("title or content is null"));
    }
    let action = object(shown, "clickAction")?.ok_or_else(|| structure("clickAction is null"))?;
    match action.get("actionType").and_then(Value::as_u64) {
        Some(0 | 1) => Ok(()),
        _ => Err(wrong("actionType must be 0 or 1")),
    }
}

fn parse(body: &[u8]) -> Check<Object> {
    serde_json::from_slice(body).map_err(|error| structure(&format!("the body is no JSON object: {error}")))
}

fn check_size(bare: &Object) -> Check {
    let size = serde_json::to_string(bare).map_or(usize::MAX, |text| text.len());
    if size <= LARGEST {
        Ok(())
    } else {
        Err(Failure::new("80300008", "the message body exceeds 4096 bytes"))
    }
}

/// A member that is an object, if it is there.
fn object<'a>(parent: &'a Object, name: &str) -> Check<Option<&'a Object>> {
    match parent.get(name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(wrong(&format!("{name} must be an object"))),
    }
}

fn choice(parent: &Object, name: &str, choices: &[&str]) -> Check {
    match parent.get(name) {
        Some(value) if !value.as_str().is_some_and(|text| choices.contains(&text)) => {
            Err(wrong(&format!("{name} must be one of {}", choices.join(", "))))
        }
        _ => Ok(()),
    }
}

fn only(object: &Object, known: &[&str], place: &str) -> Check {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(wrong(&format!("{place}{name} is no field"))),
    }
}

fn wrong(why: &str) -> Failure {
    Failure::new("80100001", why)
}

fn structure(why: &str) -> Failure {
    Failure::new("80100003", format!("Illegal payload, {why}"))
}

fn count(why: &str) -> Failure {
    Failure::new("80300010", why)
}
