//! Schemas and responses that are written by hand: the errors that routes have in common, bodies that are not JSON,
//! and names for the schemas that depend on the providers (see [`provider_schemas`](super::provider_schemas)).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use pushlet_model::contract::manifest::{Field, SecretFormat, ValueKind};

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
    /// The content of a push, in fields that all push services share, and in those of one.
    Notification;
    /// Where a push goes.
    Target;
    /// An application, as in `/v1`.
    Registration;
    /// An application, as in the classic route.
    RegistrationForm;
    /// The same with files.
    RegistrationMultipart;
    RegistrationJson;
    /// A classic send.
    SendForm;
    SendMultipart;
    SendJson;
    /// The application whose dead tokens are read.
    FeedbackForm;
    FeedbackMultipart;
    FeedbackJson;
    /// The classic response to a send.
    Sent;
    /// Why the server is not ready.
    Unready;
    /// The name of a collection of an application.
    Collection;
    /// The properties of a new item of a collection.
    NewItem;
    /// An item of a collection.
    Item;
    /// The items of a collection.
    Items;
    /// The JSON lines of a stream's request.
    Lines;
    /// The JSON lines of a stream's response.
    ResultLines;
    /// The JSON lines of a delivery's results.
    DeliveryLines;
    /// A WebAssembly component.
    ComponentFile;
}

/// Returns the schemas that do not depend on the providers.
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
                {"title": "Token", "type": "string", "minLength": 1, "description": "A device token."},
                to("device", "A device token."),
                to("topic", "All devices that follow a topic."),
                to("condition", "A logical expression over topics."),
                to("channel", "All devices that follow a broadcast channel."),
                to("url", "The URL of a subscription."),
            ],
        },
        // One for each content type, since generators of clients tell contents apart by their schemas.
        "FeedbackForm": feedback,
        "FeedbackMultipart": feedback,
        "FeedbackJson": feedback,
        "Sent": {
            "description": "The response to a GCM application is the service's own.",
            "anyOf": [reference("Accepted"), reference("GcmAnswer")],
        },
        "GcmAnswer": {
            "type": "object",
            "description": "The response of legacy GCM.",
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
            "description": "The readiness, or only that the server is stopping.",
            "anyOf": [reference("NotReady"), reference("Error")],
        },
        "Item": {
            "type": "object",
            "description": "Its properties are the push service's.",
            "required": ["id"],
            "properties": {"id": {"type": "string", "description": "The id that the push service gave it."}},
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
            "description": "A `StreamResult` for each target, then a `StreamEnd`; each on a line.",
            "x-lines": [reference("StreamResult"), reference("StreamEnd")],
        },
        "DeliveryLines": {
            "type": "string",
            "description": "A `TargetResult` for each target that has its result, then a `ResultsEnd`; each on a line.",
            "x-lines": [reference("TargetResult"), reference("ResultsEnd")],
        },
        "ComponentFile": {"type": "string", "format": "binary", "description": "The bytes of the component."},
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

fn to(kind: &str, description: &str) -> Value {
    let title = format!("{}{}", kind[..1].to_uppercase(), &kind[1..]);
    json!({
        "title": format!("{title}Target"),
        "type": "object",
        "required": [kind],
        "properties": {
            kind: {"type": "string", "minLength": 1, "description": description},
            "options": {"$ref": "#/components/schemas/TargetOptions"},
        },
        "additionalProperties": false,
    })
}

/// The statuses of errors, and the codes that each may have.
const ERRORS: &[(u16, &str)] = &[
    (
        400,
        "The request is wrong; `field` names the wrong part. `missing_…` and `invalid_…` with the name of a field; `unknown_option`, `unknown_field`, `device_token_required`, `missing_setting`, `unsupported_target`, `endpoint_not_configured`, `too_many_targets`, `too_many_fields`, `field_name_too_long`. Without a fleet: `async_not_available`. Of a provider that speaks over a byte stream: `capture_unsupported`. The request as a whole: `invalid_host`, `invalid_path`, `invalid_query`, `invalid_json`, `invalid_encoding`, `invalid_multipart`, `invalid_header` (a stream's first line), `incomplete_body`, `request_timeout`. Its destination: `forbidden_address`, `token_endpoint_forbidden`. A component: `invalid_component`, `invalid_manifest`, `forbidden_import`, `wrong_world`, `wrong_contract_version`, `wrong_types`, `component_too_complex`, `broken_component`, `dry_run_failed`. What is kept: `too_large_to_keep`. Or the push service's own reason.",
    ),
    (401, "`access_denied`: no credentials, or wrong ones."),
    (
        403,
        "`tenant_suspended`, `tenant_required`, `admin_required`, `admin_disabled`, `scope_required`: the caller may not do this. `cross_site_request`: a browser asks for a page of another site. Or the push service refuses the application's credential, and its operator must act: `invalid_credentials`, `invalid_gcm_credentials`, or the push service's own reason.",
    ),
    (
        404,
        "It does not exist, or belongs to another tenant: `application_not_found`, `provider_not_found`, `version_not_found`, `tenant_not_found`, `key_not_found`, `webhook_not_found`, `delivery_not_found`, `capture_not_found`, `not_found`.",
    ),
    (
        409,
        "Another request in flight conflicts with this one (`change_under_way`, `changed_meanwhile`, `idempotency_key_in_use`), or the response to the first one is lost with the server that handled it (`idempotency_response_lost`), or the name is taken (`built_in_provider`, `provider_name_taken`), or this cannot be changed (`default_tenant`, `too_many_keys`, `too_many_webhooks`, `application_from_file`). `hosts_changed`: `hosts` would get secrets, which was not confirmed.",
    ),
    (410, "`unregistered`: the device token is dead, remove it."),
    (
        413,
        "The request or the message is too large: `request_too_large`, `json_too_complex`, `notifications_too_large`, `line_too_long`, `component_too_large`, or the push service's own reason.",
    ),
    (415, "`unsupported_media_type`: the content type is not one of those listed."),
    (
        421,
        "`host_not_allowed`: without `[auth]`, the `Host` is not a name of this machine or one of `allowed_hosts`.",
    ),
    (422, "`idempotency_key_reused`: this `Idempotency-Key` was used with another request before."),
    (
        429,
        "Too many requests or resources; `Retry-After` says how many seconds to wait. A limit of the tenant: `limit_requests_per_second`, `limit_pushes_per_second`, `limit_concurrent_requests`, `limit_concurrent_sends`, `limit_applications`, `limit_components`, `limit_component_bytes`, `limit_memory_bytes`, `limit_cpu_milliseconds_per_second`, `limit_queued_work`, `limit_peers`, `limit_tokens`, `provider_cpu_limit`, `provider_memory_limit`. `too_many_wrong_credentials`: from this address; the right ones still work. `throttled`, or the push service's own reason.",
    ),
    (500, "`unexpected_error`: a defect of this server."),
    (
        502,
        "The push service could not be reached (`vendor_unreachable`, `token_endpoint_unavailable`), or its provider component is broken (`provider_panicked`, `provider_memory`, `provider_bad_output`, `provider_bad_manifest`, `provider_refused`, `provider_forbidden_address`, `provider_quarantined`).",
    ),
    (
        503,
        "A limit of this server is reached (`overloaded`, `overloaded_memory`, `overloaded_processor`, `too_many_connections`, `too_many_requests`, `too_many_uploads`, `application_busy`, `compiler_busy`), it is not ready for this (`provider_loading`, `application_replaced`, `registry_unavailable`, `registry_unreachable`, `delivery_queue_full`, `delivery_newer`, `registry_newer`) or is stopping (`shutting_down`), or the push service reports a failure (`unavailable`, `vendor_unreachable`).",
    ),
    (
        504,
        "No response in time: `deadline_exceeded`, `provider_timeout`. `delivery_unknown`: it was sent, and may or may not have arrived. `acceptance_unknown`: a delivery may or may not have been accepted. In the results of a delivery, targets that were not sent: `key_revoked`, `key_expired`, `tenant_suspended`, `tenant_deleted`, `application_deleted`, `delivery_cancelled`, `delivery_expired`.",
    ),
];

macro_rules! refusals {
    ($($(#[$documentation:meta])* $name:ident: $($status:literal)+;)+) => {$(
        $(#[$documentation])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$($status),+].into_iter().map(refusal).collect()
            }
        }
    )+};
}

refusals! {
    /// Errors of every route.
    Always: 400 421 500 503;
    /// Errors of every route behind authentication, and those of the tenant's limits.
    Guarded: 401 403 429 500 503;
    /// Errors of routes for the operator alone.
    Operators: 403;
    /// Errors of routes with a variable path or a query.
    Addressed: 400;
    /// Errors of routes about one resource.
    Missing: 400 404;
    /// Errors of routes with a body.
    Read: 400 413 415;
    /// Errors of an `Idempotency-Key`.
    Once: 409 422;
    /// Errors of changes that only one request may make at a time.
    Busy: 409;
    /// Errors of routes that create something.
    Bounded: 429;
    /// Errors of routes that call a provider's component.
    Component: 429 502 504;
    /// Errors of routes whose status is the push service's.
    Service: 403 413 429 502 504;
    /// Errors of routes that send to one device.
    Device: 410;
    /// Errors of sends that a fleet may take over.
    Handed: 504;
}

fn refusal(status: u16) -> (String, RefOr<Response>) {
    let when = ERRORS.iter().find(|(known, _)| *known == status).map_or("", |(_, when)| when);
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
    let response = ResponseBuilder::new().description(when).content("application/json", body);
    let header = |what: &str, kind| {
        let schema = ObjectBuilder::new().schema_type(kind).build();
        HeaderBuilder::new().schema(Some(schema)).description(Some(what)).build()
    };
    let response = match status {
        401 => response.header("WWW-Authenticate", header("How to log in.", Type::String)),
        429 | 503 => response.header("Retry-After", header("Seconds to wait.", Type::Integer)),
        _ => response,
    };
    (status.to_string(), response.build().into())
}

/// Returns a schema that fits what any of these fits, each with the title that it has among several.
pub(super) fn any_of(mut schemas: Vec<(&str, Value)>) -> Value {
    match schemas.len() {
        0 => json!({"type": "object"}),
        1 => schemas.swap_remove(0).1,
        _ => {
            let titled = schemas.into_iter().map(|(title, schema)| titled(title, schema));
            json!({"anyOf": titled.collect::<Vec<_>>()})
        }
    }
}

/// A reference has the name of what it refers to.
fn titled(title: &str, mut schema: Value) -> Value {
    if schema.get("$ref").is_none() {
        schema["title"] = title.into();
    }
    schema
}

/// Returns the schema of a value of this field.
pub(super) fn typed(field: &Field) -> Value {
    let schema = match field.kind {
        ValueKind::Text => json!({"type": "string"}),
        ValueKind::Integer => json!({"type": "integer"}),
        ValueKind::Number => json!({"type": "number"}),
        ValueKind::Boolean => json!({"type": "boolean"}),
        ValueKind::Json => json!({}),
    };
    let mut schema = chosen(schema, &field.choices);
    let number = |number: f64| match number as i64 {
        whole if whole as f64 == number => Value::from(whole),
        _ => Value::from(number),
    };
    let default = field.default.as_ref().and_then(|default| serde_json::from_str(default).ok());
    let bounds = [
        // Not the keyword: generated clients would send it for the providers, too, that have no such field.
        ("x-default", default),
        ("minimum", field.minimum.map(number)),
        ("maximum", field.maximum.map(number)),
        ("x-unit", field.unit.as_deref().map(Value::from)),
    ];
    for (name, value) in bounds {
        if let Some(value) = value {
            schema[name] = value;
        }
    }
    // The contract counts bytes, and a text has no more characters than bytes.
    if let (ValueKind::Text, Some(most)) = (field.kind, field.max_length) {
        schema["maxLength"] = most.into();
    }
    schema
}

/// Adds the allowed values, if they are limited.
pub(super) fn chosen(mut schema: Value, choices: &[String]) -> Value {
    if choices.is_empty() {
        return schema;
    }
    let is_text = schema["type"] == "string";
    let value = |choice: &String| match serde_json::from_str::<Value>(choice) {
        Ok(value) if !is_text => value,
        _ => Value::from(choice.as_str()),
    };
    schema["enum"] = choices.iter().map(value).collect();
    schema
}

/// The schemas that [`uploaded`] refers to. Generators of clients make one type of each.
pub(super) fn secret_schemas() -> [(&'static str, Value); 2] {
    let base64 = json!({
        "type": "object",
        "description": "Bytes, as base64.",
        "required": ["base64"],
        "properties": {"base64": {"type": "string", "contentEncoding": "base64", "writeOnly": true}},
        "additionalProperties": false,
    });
    let account =
        json!({"type": "object", "description": "The file of a service account, as it was downloaded."});
    [("Base64", base64), ("ServiceAccount", account)]
}

/// Returns the schema of a secret in a JSON body.
pub(super) fn uploaded(format: SecretFormat) -> Value {
    let text = json!({"type": "string", "writeOnly": true});
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    match format {
        SecretFormat::Text => text,
        SecretFormat::Pkcs12Identity => reference("Base64"),
        SecretFormat::ServiceAccount => any_of(vec![("", reference("ServiceAccount")), ("Text", text)]),
        SecretFormat::PemIdentity | SecretFormat::Pkcs8Key | SecretFormat::P256Key => {
            any_of(vec![("Text", text), ("", reference("Base64"))])
        }
    }
}
