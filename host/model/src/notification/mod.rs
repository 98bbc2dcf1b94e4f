//! The JSON form of a notification, as callers write it, turned into the contract's [`Notification`].
//!
//! Common fields: `title`, `subtitle`, `body` (classic: `alert`), `image`, `badge`, `sound`, `category`,
//! `thread`, `collapse_key`, `ttl` (seconds), `priority` (`high`, `normal`, `low`), `data`, `identifier`, and
//! `title_loc_key` with `title_loc_args` (likewise `subtitle_…`, `body_…`). There are also the options of the
//! provider's manifest, and a raw payload in the service's own terms under the provider's name.

mod value;

pub use value::check as check_value;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::contract::manifest::{Field, ProviderManifest, TargetKind, ValueKind};
use crate::contract::{Alert, Localized, Notification, Priority, Recipient, Sound, Target};
use crate::error::Error;
use crate::text::{did_you_mean, nearest};

/// Longest setting of an application, in bytes.
const LONGEST_SETTING: usize = 1024;

/// Fields that every provider accepts.
pub const COMMON: [&str; 20] = [
    "title",
    "subtitle",
    "body",
    "alert",
    "image",
    "badge",
    "sound",
    "category",
    "thread",
    "collapse_key",
    "ttl",
    "priority",
    "data",
    "identifier",
    "title_loc_key",
    "title_loc_args",
    "subtitle_loc_key",
    "subtitle_loc_args",
    "body_loc_key",
    "body_loc_args",
];

/// Parses the notification of a classic route: `fields` of a form, whose values are texts, and those of a
/// JSON body, which are `typed`. An unknown name is an error, unless it is the name of another provider,
/// whose raw payload is ignored.
pub fn from_form(
    fields: BTreeMap<String, Vec<u8>>,
    typed: Map<String, Value>,
    manifest: &ProviderManifest,
    is_other_provider: impl Fn(&str) -> bool,
) -> Result<Notification, Error> {
    let fields = fields.into_iter().map(|(name, bytes)| (name, value::FormValue::Text(bytes)));
    let typed = typed.into_iter().map(|(name, value)| (name, value::FormValue::Json(value)));
    let mut map = Map::new();
    for (name, given) in fields.chain(typed) {
        // GCM's name for the same field.
        let known = if name == "time_to_live" { "ttl" } else { &name };
        match kind_of(known, manifest) {
            Some(kind) => {
                let value = value::typed(known, given, kind)?;
                let before = map.insert(known.to_owned(), value.clone());
                one_of_two_names(known, before.as_ref(), &value, "time_to_live")?;
            }
            None if is_other_provider(&name) => {}
            None => return Err(unknown(&name, manifest)),
        }
    }
    if let (Some(alert @ Value::String(_)), Some(body)) = (map.get("alert"), map.get("body")) {
        one_of_two_names("body", Some(alert), body, "alert")?;
    }
    build(map, manifest)
}

/// Returns an error if a field was given under two names with different values: one of them would be lost.
fn one_of_two_names(name: &str, before: Option<&Value>, value: &Value, other: &str) -> Result<(), Error> {
    match before {
        Some(before) if before != value => {
            let message = format!("{name} and {other} are two names of one field: give one of them");
            Err(Error::field(format!("invalid_{name}"), name, message))
        }
        _ => Ok(()),
    }
}

/// Parses the notification of a `/v1` route: JSON values. An unknown name is an error, unless it is the name
/// of another provider, whose raw payload is ignored.
pub fn from_json(
    fields: Map<String, Value>,
    manifest: &ProviderManifest,
    other_providers: &[&str],
) -> Result<Notification, Error> {
    let mut map = Map::new();
    for (name, value) in fields {
        if kind_of(&name, manifest).is_some() {
            map.insert(name, value);
        } else if !other_providers.contains(&name.as_str()) {
            return Err(unknown(&name, manifest));
        }
    }
    build(map, manifest)
}

/// Writes a notification as a caller may write it: [`from_json`] reads the same again. `provider`: the name of its
/// provider.
pub fn to_json(notification: &Notification, provider: &str) -> Map<String, Value> {
    let Notification { alert, badge, sound, category, thread, data, collapse_key, time_to_live, .. } =
        notification;
    let mut fields = alert.as_ref().map(alert_json).unwrap_or_default();
    let mut put =
        |name: &str, value: Option<Value>| fields.extend(value.map(|value| (name.to_owned(), value)));
    put("badge", badge.map(Value::from));
    put(
        "sound",
        sound.as_ref().map(|sound| match sound {
            Sound::Default => json!("default"),
            Sound::Named(name) => json!(name),
            Sound::Critical(sound) => json!({"name": sound.name, "volume": sound.volume, "critical": true}),
        }),
    );
    put("category", category.as_deref().map(Value::from));
    put("thread", thread.as_deref().map(Value::from));
    put("data", data.as_deref().map(parsed));
    put("collapse_key", collapse_key.as_deref().map(Value::from));
    put("ttl", time_to_live.map(Value::from));
    put(
        "priority",
        notification.priority.map(|priority| match priority {
            Priority::Low => json!("low"),
            Priority::Normal => json!("normal"),
            Priority::High => json!("high"),
        }),
    );
    put("identifier", notification.identifier.as_deref().map(Value::from));
    notification.options.iter().for_each(|(name, value)| put(name, Some(parsed(value))));
    put(provider, notification.native.as_deref().map(parsed));
    fields
}

fn alert_json(alert: &Alert) -> Map<String, Value> {
    let texts = [
        ("title", &alert.title),
        ("subtitle", &alert.subtitle),
        ("body", &alert.body),
        ("image", &alert.image),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text.as_ref()?))));
    let localized = [
        ("title", &alert.title_localized),
        ("subtitle", &alert.subtitle_localized),
        ("body", &alert.body_localized),
    ];
    let localized = localized.into_iter().filter_map(|(name, localized)| Some((name, localized.as_ref()?)));
    let localized = localized.flat_map(|(name, Localized { key, arguments })| {
        [(format!("{name}_loc_key"), json!(key)), (format!("{name}_loc_args"), json!(arguments))]
    });
    texts.chain(localized).collect()
}

/// Returns a value that was checked before.
fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or(Value::Null)
}

/// Returns the manifest's settings among a registration's fields, as text. Other fields are ignored.
pub fn settings(
    mut fields: BTreeMap<String, Vec<u8>>,
    manifest: &ProviderManifest,
) -> Result<Vec<(String, String)>, Error> {
    let mut settings = Vec::new();
    for setting in &manifest.settings {
        let Some(bytes) = fields.remove(&setting.name).filter(|bytes| !bytes.is_empty()) else { continue };
        let value = value::typed(&setting.name, value::FormValue::Text(bytes), setting.kind)?;
        value::check(setting, &value)?;
        let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // A manifest may set a lower limit, which was checked with the value.
        if plain.len() > LONGEST_SETTING {
            let message = format!("{} must be at most {LONGEST_SETTING} bytes", setting.name);
            return Err(Error::field(format!("invalid_{}", setting.name), &setting.name, message));
        }
        settings.push((setting.name.clone(), plain));
    }
    Ok(settings)
}

/// Returns an error if an option of the target is unknown, wrong or missing; it names all that are.
pub fn check_recipient(recipient: &Recipient, manifest: &ProviderManifest) -> Result<(), Error> {
    let given = |field: &Field| recipient.options.iter().any(|(name, _)| *name == field.name);
    let missing = manifest.target_options.iter().filter(|field| field.required && !given(field));
    let missing = missing.map(|field| missing_field(field, "the target"));
    let wrong = recipient.options.iter().filter_map(|(name, text)| {
        let known = manifest.target_options.iter();
        let Some(field) = known.clone().find(|field| field.name == *name) else {
            let hint = did_you_mean(nearest(name, known.map(|field| field.name.as_str())));
            let message = format!("{name} is not an option of a target for {}{hint}", manifest.name);
            return Some(Error::field("unknown_option", name, message));
        };
        let value = serde_json::from_str(text).map_err(|_| value::wrong(name, "JSON"));
        value.and_then(|value| value::check(field, &value)).err()
    });
    Error::merged(missing.chain(wrong)).map_or(Ok(()), Err)
}

/// Takes the options of the target out of the fields of a classic request.
pub fn take_target_options(
    fields: &mut BTreeMap<String, Vec<u8>>,
    typed: &mut Map<String, Value>,
    manifest: &ProviderManifest,
) -> Result<Vec<(String, String)>, Error> {
    let mut options = Vec::new();
    for field in &manifest.target_options {
        let text = fields.remove(&field.name).map(value::FormValue::Text);
        let Some(given) = text.or_else(|| typed.shift_remove(&field.name).map(value::FormValue::Json)) else {
            continue;
        };
        let value = value::typed(&field.name, given, field.kind)?;
        if !value.is_null() {
            options.push((field.name.clone(), value.to_string()));
        }
    }
    Ok(options)
}

/// Returns the target of a classic request, whose `device_token` is the URL of a provider that has no devices.
pub fn classic_target(target: Target, manifest: &ProviderManifest) -> Target {
    let has = |kind| manifest.targets.contains(&kind);
    match target {
        Target::Device(url) if has(TargetKind::Url) && !has(TargetKind::Device) => Target::Url(url),
        other => other,
    }
}

fn missing_field(field: &Field, of: &str) -> Error {
    let message = format!("{} is required for {of}", field.name);
    Error::field(format!("missing_{}", field.name), &field.name, message)
}

/// Returns the kind of a notification field of this provider, if it is one.
fn kind_of(name: &str, manifest: &ProviderManifest) -> Option<ValueKind> {
    if name == manifest.name {
        return Some(ValueKind::Json);
    }
    let option = manifest.options.iter().find(|option| option.name == name);
    value::common_kind(name).or_else(|| option.map(|option| option.kind))
}

fn build(map: Map<String, Value>, manifest: &ProviderManifest) -> Result<Notification, Error> {
    let mut builder = NotificationBuilder::default();
    let mut errors = Vec::new();
    for (name, value) in map {
        // In a line of a stream, null removes a field of the shared notification.
        if value.is_null() {
            continue;
        }
        errors.extend(builder.field(name, value, manifest).err());
    }
    let notification = builder.finish();
    let missing = manifest.options.iter().filter(|option| option.required);
    let given = |option: &Field| notification.options.iter().any(|(name, _)| *name == option.name);
    errors.extend(
        missing.filter(|option| !given(option)).map(|option| missing_field(option, "a notification")),
    );
    // A caller with several wrong fields learns of all of them at once.
    Error::merged(errors).map_or(Ok(notification), Err)
}

/// Collects the fields. The arguments of a localized text count only with its key.
#[derive(Default)]
struct NotificationBuilder {
    notification: Notification,
    alert: Alert,
    localized: BTreeMap<&'static str, Localized>,
}

impl NotificationBuilder {
    fn field(&mut self, name: String, value: Value, manifest: &ProviderManifest) -> Result<(), Error> {
        let option = manifest.options.iter().find(|option| option.name == name);
        // A provider with an option of that name reads the object itself, as APNs does.
        if name == "alert" && value.is_object() {
            match option {
                Some(_) => self.option(name, &value),
                None => self.alert_object(value)?,
            }
        } else if value::common_kind(&name).is_some() {
            self.common(&name, value)?;
        } else if let Some(option) = option {
            value::check(option, &value)?;
            self.option(name, &value);
        } else {
            value::object(&name, &value)?;
            self.notification.native = Some(value.to_string());
        }
        Ok(())
    }

    fn option(&mut self, name: String, value: &Value) {
        self.notification.options.push((name, value.to_string()));
    }

    fn common(&mut self, name: &str, value: Value) -> Result<(), Error> {
        let notification = &mut self.notification;
        match name {
            "title" => self.alert.title = Some(value::text(name, value)?),
            "subtitle" => self.alert.subtitle = Some(value::text(name, value)?),
            "body" | "alert" => self.alert.body = Some(value::text(name, value)?),
            "image" => self.alert.image = Some(value::text(name, value)?),
            "badge" => notification.badge = Some(value::whole(name, &value)?),
            "sound" => notification.sound = Some(value::sound(name, value)?),
            "category" => notification.category = Some(value::text(name, value)?),
            "thread" => notification.thread = Some(value::text(name, value)?),
            "collapse_key" => notification.collapse_key = Some(value::text(name, value)?),
            "ttl" => notification.time_to_live = Some(value::whole(name, &value)?),
            "priority" => notification.priority = Some(value::priority(name, &value)?),
            "data" => notification.data = Some(value::data(&value)?),
            "identifier" => notification.identifier = Some(value::identifier(name, value)?),
            "title_loc_key" => self.localized("title").key = value::text(name, value)?,
            "subtitle_loc_key" => self.localized("subtitle").key = value::text(name, value)?,
            "body_loc_key" => self.localized("body").key = value::text(name, value)?,
            "title_loc_args" => self.localized("title").arguments = value::texts(name, value)?,
            "subtitle_loc_args" => self.localized("subtitle").arguments = value::texts(name, value)?,
            _ => self.localized("body").arguments = value::texts(name, value)?,
        }
        Ok(())
    }

    /// Reads `alert` as an object, for a provider that has no option of that name.
    fn alert_object(&mut self, value: Value) -> Result<(), Error> {
        let Value::Object(parts) = value else { return Ok(()) };
        for (name, value) in parts {
            match name.as_str() {
                "title" | "subtitle" | "body" | "image" => self.common(&name, value)?,
                other => {
                    let message =
                        format!("alert has no field {other}; it knows title, subtitle, body and image");
                    return Err(Error::field("invalid_alert", "alert", message));
                }
            }
        }
        Ok(())
    }

    fn localized(&mut self, what: &'static str) -> &mut Localized {
        self.localized.entry(what).or_insert_with(|| Localized { key: String::new(), arguments: Vec::new() })
    }

    fn finish(mut self) -> Notification {
        let mut look_up = |what| self.localized.remove(what).filter(|localized| !localized.key.is_empty());
        self.alert.title_localized = look_up("title");
        self.alert.subtitle_localized = look_up("subtitle");
        self.alert.body_localized = look_up("body");
        if self.alert != Alert::default() {
            self.notification.alert = Some(self.alert);
        }
        self.notification
    }
}

/// Names of the common fields in other push servers and libraries.
const SYNONYMS: [(&str, &str); 9] = [
    ("message", "alert"),
    ("msg", "alert"),
    ("text", "alert"),
    ("content", "alert"),
    ("payload", "data"),
    ("custom", "data"),
    ("extra", "data"),
    ("expiry", "ttl"),
    ("time_to_live", "ttl"),
];

/// Returns the error for an unknown field, with the nearest known name.
fn unknown(name: &str, manifest: &ProviderManifest) -> Error {
    let options = manifest.options.iter().map(|option| option.name.as_str());
    let known = COMMON.into_iter().chain(options).chain([manifest.name.as_str()]);
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == name).map(|(_, known)| *known);
    let hint = did_you_mean(synonym.or_else(|| nearest(name, known)));
    let message = format!("{name} is not a field of a notification for {}{hint}", manifest.name);
    Error::field("unknown_field", name, message)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
