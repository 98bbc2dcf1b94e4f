//! The schemas that depend on the providers: of their options, settings, credentials and collections.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schemas::{any_of, chosen, secret_schemas, typed, uploaded};
use pushlet_gateway::Described;
use pushlet_model::contract::management::{Parameter, ParameterKind};
use pushlet_model::contract::manifest::{
    Credential, Field, ProviderManifest, Secret, SecretFormat, ValueKind,
};

/// The most characters of a description, which may come from an uploaded component.
const LONGEST_DESCRIPTION: usize = 500;

/// Properties by name. Several providers may have a property of one name, with different schemas.
#[derive(Default)]
struct Properties(BTreeMap<String, Vec<Property>>);

struct Property {
    provider: String,
    schema: Value,
    description: String,
}

/// Returns the schemas by name.
pub(super) fn schemas(providers: &[Described]) -> Map<String, Value> {
    let manifests: Vec<&ProviderManifest> = providers.iter().map(|provider| &provider.manifest).collect();
    let collections = || providers.iter().flat_map(|provider| &provider.collections);
    let names: Vec<&String> = collections().map(|collection| &collection.name).collect();
    let new_items: Vec<(&str, Value)> = collections()
        .map(|collection| (collection.name.as_str(), new_item(&collection.parameters)))
        .collect();
    let collection = if names.is_empty() { json!({"type": "string"}) } else { choice(&names) };
    let schemas = [
        ("Notification", notification(&manifests)),
        ("Registration", registration(&manifests)),
        ("Settings", settings(&manifests).schema("By the names of the provider's manifest.")),
        (
            "TargetOptions",
            declared(&manifests, |manifest| &manifest.target_options)
                .schema("What belongs to this target alone, by the names of the provider's manifest."),
        ),
        ("Credentials", credentials(&manifests).schema("The secrets of one kind of credential.")),
        ("RegistrationForm", registration_form(&manifests, false)),
        ("RegistrationMultipart", registration_form(&manifests, true)),
        ("RegistrationJson", registration_form(&manifests, false)),
        ("SendForm", classic_send(&manifests, in_a_form)),
        ("SendMultipart", classic_send(&manifests, in_a_form)),
        ("SendJson", classic_send(&manifests, |schema| schema)),
        ("Collection", collection),
        ("NewItem", any_of(new_items)),
    ];
    schemas.into_iter().chain(secret_schemas()).map(|(name, schema)| (name.to_owned(), schema)).collect()
}

impl Properties {
    fn add(&mut self, provider: &str, name: &str, schema: Value, description: &str) {
        let description = description.chars().take(LONGEST_DESCRIPTION).collect();
        let property = Property { provider: provider.into(), schema, description };
        self.0.entry(name.to_owned()).or_default().push(property);
    }

    /// Merges the schemas of each property, and names the providers that have it.
    fn merged(self) -> Map<String, Value> {
        let merge = |(name, all): (String, Vec<Property>)| {
            let several = all.len() > 1;
            let mut schemas: Vec<(&str, Value)> =
                all.iter().map(|property| (property.provider.as_str(), property.schema.clone())).collect();
            schemas.dedup_by(|one, other| one.1 == other.1);
            let mut schema = any_of(schemas);
            let said = all.iter().map(|Property { provider, description, .. }| match several {
                true => format!("{provider}: {description}"),
                false => description.clone(),
            });
            schema["description"] = said.collect::<Vec<_>>().join(" ").into();
            schema["x-providers"] = all.iter().map(|property| property.provider.as_str()).collect();
            (name, schema)
        };
        self.0.into_iter().map(merge).collect()
    }

    fn schema(self, description: &str) -> Value {
        json!({"type": "object", "description": description, "properties": self.merged()})
    }
}

fn notification(manifests: &[&ProviderManifest]) -> Value {
    let mut properties = common();
    for (name, schema) in options(manifests, typed).merged() {
        properties.entry(name).or_insert(schema);
    }
    json!({
        "type": "object",
        "description": "The fields that all providers understand, and those of single providers. A field that the \
                        provider does not know is an error that names the nearest field that it knows; the raw \
                        object of another provider is ignored.",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Returns the options of notifications: those of the manifests, and the raw payload under each provider's name.
fn options(manifests: &[&ProviderManifest], typed: impl Fn(&Field) -> Value) -> Properties {
    let mut properties = Properties::default();
    for manifest in manifests {
        for option in &manifest.options {
            properties.add(&manifest.name, &option.name, typed(option), &option.description);
        }
        let raw = Field {
            name: manifest.name.clone(),
            kind: ValueKind::Json,
            required: false,
            choices: Vec::new(),
            default: None,
            minimum: None,
            maximum: None,
            max_length: None,
            unit: None,
            description: format!(
                "A raw payload in the terms of {}; it wins over the other fields.",
                manifest.title
            ),
        };
        properties.add(&manifest.name, &raw.name, typed(&raw), &raw.description);
    }
    properties
}

fn settings(manifests: &[&ProviderManifest]) -> Properties {
    declared(manifests, |manifest| &manifest.settings)
}

/// Returns some of the fields that each manifest declares.
fn declared(manifests: &[&ProviderManifest], of: fn(&ProviderManifest) -> &[Field]) -> Properties {
    let mut properties = Properties::default();
    for manifest in manifests {
        for field in of(manifest) {
            properties.add(&manifest.name, &field.name, typed(field), &field.description);
        }
    }
    properties
}

fn credentials(manifests: &[&ProviderManifest]) -> Properties {
    let mut properties = Properties::default();
    each_secret(manifests, |provider, name, secret| match secret {
        Some(secret) => properties.add(provider, name, uploaded(secret.format), &secret.description),
        None => properties.add(provider, name, json!({"type": "string"}), "Its password, if it has one."),
    });
    properties
}

/// Calls with each provider, field and secret; None: the field is the password of a secret.
fn each_secret(manifests: &[&ProviderManifest], mut call: impl FnMut(&str, &str, Option<&Secret>)) {
    for manifest in manifests {
        let mut seen = Vec::new();
        for secret in manifest.credentials.iter().flat_map(all_secrets) {
            call(&manifest.name, &secret.name, Some(secret));
            if let Some(password) = secret.password.as_ref().filter(|password| !seen.contains(password)) {
                call(&manifest.name, password, None);
                seen.push(password);
            }
        }
    }
}

fn all_secrets(credential: &Credential) -> impl Iterator<Item = &Secret> {
    credential.secrets.iter().chain(&credential.companions)
}

fn registration(manifests: &[&ProviderManifest]) -> Value {
    json!({
        "type": "object",
        "description": "The flat fields of the classic registration are accepted too.",
        "properties": {
            "provider": provider(manifests),
            "environment": {
                "type": "string",
                "enum": ["production", "development"],
                "description": "Which environment of the service; production by default.",
            },
            "settings": {"$ref": "#/components/schemas/Settings"},
            "credentials": {"$ref": "#/components/schemas/Credentials"},
        },
    })
}

/// `upload`: files are parts of their own, as in a multipart body.
fn registration_form(manifests: &[&ProviderManifest], upload: bool) -> Value {
    let mut fields = settings(manifests);
    each_secret(manifests, |provider, name, secret| {
        let is_file = secret.is_some_and(|secret| secret.format != SecretFormat::Text);
        let schema = match upload && is_file {
            true => json!({"type": "string", "format": "binary"}),
            false => json!({"type": "string"}),
        };
        let description = secret.map_or("Its password, if it has one.", |secret| &secret.description);
        fields.add(provider, name, schema, description);
    });
    for manifest in manifests {
        let schema = json!({"type": "string", "enum": ["production", "development", "sandbox"]});
        let name = format!("{}_mode", manifest.name);
        fields.add(&manifest.name, &name, schema, "Which environment of the service.");
    }
    let mut properties = Map::new();
    let id = json!({"type": "string", "maxLength": 256, "description": "A UUID by default."});
    properties.insert("application_id".into(), id);
    properties.insert("type".into(), provider(manifests));
    properties.extend(fields.merged());
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// `written`: returns the schema of a value as the body writes it.
fn classic_send(manifests: &[&ProviderManifest], written: fn(Value) -> Value) -> Value {
    let mut properties = Map::new();
    let token = json!({"type": "string", "minLength": 1, "description": "As the device gave it to the app."});
    properties.insert("device_token".into(), token);
    let id = "Of a registered application; or a credential that may come with a send, such as gcm_api_key.";
    properties.insert("application_id".into(), json!({"type": "string", "description": id}));
    let mut secrets = Properties::default();
    for manifest in manifests {
        let inline = manifest.credentials.iter().filter(|credential| credential.inline);
        for secret in inline.flat_map(|credential| &credential.secrets) {
            secrets.add(&manifest.name, &secret.name, json!({"type": "string"}), &secret.description);
        }
    }
    properties.extend(secrets.merged());
    properties.insert("type".into(), provider(manifests));
    properties.extend(common().into_iter().map(|(name, schema)| (name, written(schema))));
    for (name, schema) in options(manifests, |field| written(typed(field))).merged() {
        properties.entry(name).or_insert(schema);
    }
    json!({
        "type": "object",
        "required": ["device_token"],
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Returns the schema of a value in a form, where all values are texts, and other values are written as JSON.
fn in_a_form(schema: Value) -> Value {
    if matches!(schema["type"].as_str(), Some("string" | "integer" | "number" | "boolean")) {
        return schema;
    }
    let kinds = schema["type"].as_array().into_iter().flatten();
    let alternatives = schema["anyOf"].as_array().into_iter().flatten().map(|one| &one["type"]);
    let is_plain = kinds.chain(alternatives).any(|kind| kind == "string");
    let mut text = match is_plain {
        true => json!({"type": "string"}),
        false => json!({"type": "string", "contentMediaType": "application/json"}),
    };
    if let Some(description) = schema.get("description") {
        text["description"] = description.clone();
    }
    text
}

fn provider(manifests: &[&ProviderManifest]) -> Value {
    let names: Vec<&String> = manifests.iter().map(|manifest| &manifest.name).collect();
    let mut schema = choice(&names);
    schema["description"] = "The provider; by default the one that has the credential.".into();
    schema
}

fn choice(names: &[&String]) -> Value {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    json!({"type": "string", "enum": names})
}

fn new_item(parameters: &[Parameter]) -> Value {
    let mut properties = Map::new();
    for parameter in parameters {
        let kind = match parameter.kind {
            ParameterKind::Text => "string",
            ParameterKind::Integer => "integer",
            ParameterKind::Boolean => "boolean",
        };
        let mut schema = chosen(json!({"type": kind}), &parameter.choices);
        schema["description"] = parameter.description.as_str().into();
        properties.insert(parameter.name.clone(), schema);
    }
    let required = parameters.iter().filter(|parameter| parameter.required);
    let required: Vec<&String> = required.map(|parameter| &parameter.name).collect();
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// Returns the fields that every provider understands.
fn common() -> Map<String, Value> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let texts =
        |description: &str| json!({"type": "array", "items": {"type": "string"}, "description": description});
    let whole = |description: &str| json!({"type": "integer", "minimum": 0, "maximum": u32::MAX, "description": description});
    let key = "A text that the device looks up in its own tables.";
    let arguments = "The arguments of that text.";
    let sound = json!({
        "description": "`default`, the name of a file, or a critical alert's.",
        "anyOf": [{"title": "SoundName", "type": "string"}, {
            "title": "CriticalSound",
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "volume": {"type": "number", "minimum": 0, "maximum": 1},
                "critical": {"anyOf": [{"title": "Flag", "type": "boolean"}, {"title": "Number", "type": "integer", "enum": [0, 1]}]},
            },
            "additionalProperties": false,
        }],
    });
    let all = [
        ("title", text("The first line.")),
        ("subtitle", text("The line below it.")),
        ("body", text("The text.")),
        (
            "alert",
            json!({"description": "The classic name of body, or an object.", "anyOf": [{"title": "AlertText", "type": "string"}, {"title": "AlertObject", "type": "object"}]}),
        ),
        ("image", text("The URL of a picture.")),
        ("badge", whole("The number on the app's icon; 0 removes it.")),
        ("sound", sound),
        ("category", text("The kind of the notification, which chooses its buttons.")),
        ("thread", text("Notifications with the same thread are grouped.")),
        ("collapse_key", text("A later notification with the same key replaces an earlier one.")),
        ("ttl", whole("Seconds for which the service may store it; 0: it is delivered now or never.")),
        ("priority", json!({"type": "string", "enum": ["high", "normal", "low"]})),
        ("data", json!({"type": "object", "description": "For the app."})),
        (
            "identifier",
            json!({"type": ["string", "integer"], "description": "The caller's own id of the message."}),
        ),
        ("title_loc_key", text(key)),
        ("title_loc_args", texts(arguments)),
        ("subtitle_loc_key", text(key)),
        ("subtitle_loc_args", texts(arguments)),
        ("body_loc_key", text(key)),
        ("body_loc_args", texts(arguments)),
    ];
    all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}
