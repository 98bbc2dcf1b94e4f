//! Schemas that are written by hand: bodies that are no JSON, and names for those that depend on the providers
//! (see [`manifests`](super::manifests)).

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema, schema::Object};
use utoipa::{PartialSchema, ToSchema};

macro_rules! named {
    ($($(#[$documentation:meta])* $name:ident;)+) => {$(
        $(#[$documentation])*
        #[derive(Debug)]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                Object::new().into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}

named! {
    /// What is sent, in terms that all push services share, and in those of one.
    Notification;
    /// To whom.
    Target;
    /// An application, as `/v1` takes it.
    Registration;
    /// The same as the classic route takes it.
    RegistrationForm;
    /// With files.
    RegistrationMultipart;
    RegistrationJson;
    /// A classic send.
    SendForm;
    SendMultipart;
    SendJson;
    /// Which application's dead tokens.
    FeedbackForm;
    FeedbackMultipart;
    FeedbackJson;
    /// The classic answer to a send.
    Sent;
    /// Why the server is not ready.
    Unready;
    /// Which collection of an application.
    Collection;
    /// The properties of a new item of a collection.
    NewItem;
    /// An item of a collection.
    Item;
    /// The items of a collection.
    Items;
    /// Lines of JSON, as a stream takes them.
    Lines;
    /// Lines of JSON, as a stream answers.
    ResultLines;
    /// A WebAssembly component.
    ComponentFile;
}

/// Those that no provider changes.
pub(super) fn fixed() -> Map<String, Value> {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let feedback = json!({
        "type": "object",
        "required": ["application_id"],
        "properties": {"application_id": {"type": "string", "minLength": 1}},
    });
    let all = json!({
        "Target": {
            "description": "A device token, or an object with one of these; not every provider sends to all of them.",
            "oneOf": [
                {"type": "string", "minLength": 1, "description": "A device token."},
                to("device", "A device token."),
                to("topic", "All devices that follow a topic."),
                to("condition", "A logical expression over topics."),
                to("channel", "All devices that follow a broadcast channel."),
                to("url", "The URL of a subscription."),
            ],
        },
        // One for each content type: generators of clients tell contents apart by their schemas.
        "FeedbackForm": feedback,
        "FeedbackMultipart": feedback,
        "FeedbackJson": feedback,
        "Sent": {
            "description": "The answer of a GCM application is the service's own.",
            "anyOf": [reference("Accepted"), reference("GcmAnswer")],
        },
        "GcmAnswer": {
            "type": "object",
            "description": "What legacy GCM answers.",
            "required": ["success", "failure", "results"],
            "properties": {
                "multicast_id": {"type": "integer"},
                "success": {"type": "integer"},
                "failure": {"type": "integer"},
                "canonical_ids": {"type": "integer"},
                "results": {"type": "array", "items": {
                    "type": "object",
                    "properties": {
                        "message_id": {"type": "string"},
                        "registration_id": {"type": "string", "description": "The token to use from now on."},
                        "error": {"type": "string"},
                    },
                }},
            },
        },
        "Unready": {
            "description": "What it sees, or only that it is stopping.",
            "anyOf": [reference("NotReady"), reference("Error")],
        },
        "Item": {
            "type": "object",
            "description": "Its properties are the push service's.",
            "required": ["id"],
            "properties": {"id": {"type": "string", "description": "As the push service gave it."}},
            "additionalProperties": true,
        },
        "Items": {
            "type": "object",
            "description": "The items, under the name of their collection.",
            "additionalProperties": {"type": "array", "items": reference("Item")},
        },
        "Lines": {
            "type": "string",
            "description": "A `StreamHeader`, then a `StreamLine` for each target; each on a line.",
            "x-lines": [reference("StreamHeader"), reference("StreamLine")],
        },
        "ResultLines": {
            "type": "string",
            "description": "A `TargetResult` for each target, then a `StreamEnd`; each on a line.",
            "x-lines": [reference("TargetResult"), reference("StreamEnd")],
        },
        "ComponentFile": {"type": "string", "format": "binary", "description": "The bytes of the component."},
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

fn to(kind: &str, description: &str) -> Value {
    json!({
        "type": "object",
        "required": [kind],
        "properties": {kind: {"type": "string", "minLength": 1, "description": description}},
        "additionalProperties": false,
    })
}
