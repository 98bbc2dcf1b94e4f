//! The message's JSON names. Google takes camelCase and snake_case; everything here is camelCase, so that what
//! callers give can be merged with what the typed fields give.

use pushlet_sdk::json::{self, Object};
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

fn find<'a>(object: &'a mut Object, path: &[&str]) -> Option<&'a mut Object> {
    path.iter().try_fold(object, |object, name| object.get_mut(*name)?.as_object_mut())
}
