//! The message's JSON names. Google takes camelCase and snake_case; everything here is camelCase, so that what
//! callers give can be merged with what the typed fields give.

use pushlet_provider::Rejection;
use pushlet_provider::input::invalid;
use pushlet_provider::json::{self, Object};
use serde_json::Value;

/// Names of a message or one of its parts in camelCase. The callers' own objects stay as they are: data, headers,
/// Apple's payload and the web's notification.
pub fn camel_case(object: Object, inside: &str) -> Object {
    let rename = |(name, value): (String, Value)| {
        let name = camel(&name);
        let free = matches!(name.as_str(), "data" | "headers" | "payload")
            || (inside == "webpush" && name == "notification");
        let value = match value {
            Value::Object(object) if !free => Value::Object(camel_case(object, &name)),
            other => other,
        };
        (name, value)
    };
    object.into_iter().map(rename).collect()
}

fn camel(name: &str) -> String {
    let mut letters = name.chars();
    let mut camel = String::with_capacity(name.len());
    while let Some(letter) = letters.next() {
        match letter {
            '_' => camel.extend(letters.next().map(|next| next.to_ascii_uppercase())),
            other => camel.push(other),
        }
    }
    camel
}

/// Maps of headers, whose names are the same in any case.
const HEADERS: [&[&str]; 2] = [&["apns", "headers"], &["webpush", "headers"]];

/// Lays what `field` gives over the message: objects key by key, headers without regard to the case of their names.
pub fn lay_over(message: &mut Object, over: Object, field: &str) -> Result<(), Rejection> {
    for path in HEADERS {
        let Some(given) = get(&over, path) else { continue };
        let names: Vec<&String> = given.keys().collect();
        let twice = |(place, name): (usize, &&String)| {
            names
                .iter()
                .skip(place + 1)
                .any(|other| other.eq_ignore_ascii_case(name))
                .then(|| name.to_string())
        };
        if let Some(name) = names.iter().enumerate().find_map(twice) {
            let message = format!("{field} has the header {} twice, in different case", name.escape_debug());
            return Err(invalid(field, message));
        }
        if let Some(below) = find(message, path) {
            below.retain(|name, _| !names.iter().any(|other| other.eq_ignore_ascii_case(name)));
        }
    }
    json::merge(message, over);
    Ok(())
}

/// Could every header be one of an HTTP request?
pub fn check_headers(message: &Object) -> Result<(), Rejection> {
    for path in HEADERS {
        let (place, field) = (path.join("."), path.first().copied().unwrap_or_default());
        for (name, value) in get(message, path).into_iter().flatten() {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(letter) {
                let message = format!("{} in {place} cannot be the name of a header", name.escape_debug());
                return Err(invalid(field, message));
            }
            if value.as_str().is_some_and(|value| value.chars().any(char::is_control)) {
                let message = format!("the value of {name} in {place} has a control character");
                return Err(invalid(field, message));
            }
        }
    }
    Ok(())
}

/// Makes texts of all values of the maps that Google declares as maps of texts.
pub fn stringify(message: &mut Object) {
    const MAPS: [&[&str]; 6] = [
        &["data"],
        &["android", "data"],
        &["androidV2", "data"],
        &["webpush", "data"],
        &["webpush", "headers"],
        &["apns", "headers"],
    ];
    for path in MAPS {
        if let Some(map) = find(message, path) {
            for value in map.values_mut().filter(|value| !value.is_string()) {
                *value = json::text(value).into();
            }
        }
    }
}

/// The object at that place.
pub fn get<'a>(object: &'a Object, path: &[&str]) -> Option<&'a Object> {
    path.iter().try_fold(object, |object, name| object.get(*name)?.as_object())
}

fn find<'a>(object: &'a mut Object, path: &[&str]) -> Option<&'a mut Object> {
    path.iter().try_fold(object, |object, name| object.get_mut(*name)?.as_object_mut())
}
