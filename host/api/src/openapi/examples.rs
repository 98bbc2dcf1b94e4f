//! Examples of requests' bodies, made from those of the manifests. They have placeholders for secrets; everything else
//! works with applications of these names.

use serde_json::{Map, Value, json};

use pushlet_gateway::Described;
use pushlet_model::contract::management::{Collection, Parameter};
use pushlet_model::contract::manifest::{
    Credential, Example, ProviderManifest, Secret, SecretFormat, TargetKind,
};

type Examples = Map<String, Value>;

/// Returns the examples with their path and schema.
pub(super) fn bodies(providers: &[Described]) -> Vec<(&'static str, &'static str, Examples)> {
    let manifests: Vec<&ProviderManifest> = providers.iter().map(|provider| &provider.manifest).collect();
    let collections = providers.iter().flat_map(|provider| &provider.collections);
    vec![
        ("/v1/applications/{id}", "Registration", registrations(&manifests, put)),
        ("/register_application", "RegistrationForm", registrations(&manifests, classic)),
        ("/register_application", "RegistrationMultipart", registrations(&manifests, upload)),
        ("/register_application", "RegistrationJson", registrations(&manifests, classic)),
        ("/v1/notifications", "Send", sends(&manifests)),
        ("/v1/notifications:stream", "Lines", streams(&manifests)),
        ("/send_notification", "SendForm", classic_sends(&manifests)),
        ("/send_notification", "SendMultipart", classic_sends(&manifests)),
        ("/send_notification", "SendJson", classic_sends(&manifests)),
        ("/application_feedback", "FeedbackForm", feedback(&manifests)),
        ("/application_feedback", "FeedbackMultipart", feedback(&manifests)),
        ("/application_feedback", "FeedbackJson", feedback(&manifests)),
        ("/v1/applications/{id}/{collection}", "NewItem", collections.map(new_item).collect()),
        ("/v1/tenants/{id}", "TenantChange", tenant()),
        ("/v1/tenants/{id}/keys", "NewKeyRequest", key()),
        ("/v1/webhooks/{id}", "WebhookChange", webhook()),
        ("/v1/providers/{name}/capture", "CaptureRequest", capture()),
    ]
}

/// Returns the id of the application in the examples.
fn application(manifest: &ProviderManifest) -> String {
    format!("my-{}-app", manifest.name)
}

fn named(name: impl Into<String>, summary: &str, value: Value) -> (String, Value) {
    (name.into(), json!({"summary": summary, "value": value}))
}

/// Returns an example for each kind of credential of each provider.
fn registrations(
    manifests: &[&ProviderManifest],
    body: impl Fn(&ProviderManifest, &Secret, Map<String, Value>) -> Value,
) -> Examples {
    let one = |manifest: &ProviderManifest, credential: &Credential| {
        let secret = credential.secrets.first()?;
        let mut examples = manifest.examples.iter();
        let example = examples.find(|example| example.credential.as_ref() == Some(&credential.name));
        let settings = example.into_iter().flat_map(|example| &example.settings);
        let settings = settings
            .filter(|(name, _)| !credential.derivations.iter().any(|derivation| derivation.setting == *name));
        let settings = settings.map(|(name, value)| (name.clone(), json!(value))).collect();
        let name = format!("{}-{}", manifest.name, credential.name);
        let summary = format!("{}: {}", manifest.title, credential.name);
        Some(named(name, &summary, body(manifest, secret, settings)))
    };
    let credentials = |manifest: &&ProviderManifest| {
        let manifest = *manifest;
        manifest.credentials.iter().filter_map(|credential| one(manifest, credential)).collect::<Vec<_>>()
    };
    manifests.iter().flat_map(credentials).collect()
}

fn put(manifest: &ProviderManifest, secret: &Secret, settings: Map<String, Value>) -> Value {
    let value = match secret.format {
        SecretFormat::Pkcs12Identity => json!({"base64": placeholder(secret)}),
        _ => json!(placeholder(secret)),
    };
    json!({"provider": manifest.name, "settings": settings, "credentials": {secret.name.as_str(): value}})
}

fn classic(manifest: &ProviderManifest, secret: &Secret, settings: Map<String, Value>) -> Value {
    flat(manifest, settings, &secret.name, placeholder(secret))
}

/// `@` stands for a file, as in curl's options.
fn upload(manifest: &ProviderManifest, secret: &Secret, settings: Map<String, Value>) -> Value {
    match secret.format {
        SecretFormat::Text => classic(manifest, secret, settings),
        _ => flat(manifest, settings, &secret.name, format!("@{}", secret.name)),
    }
}

fn flat(manifest: &ProviderManifest, settings: Map<String, Value>, name: &str, value: String) -> Value {
    let mut body = Map::new();
    body.insert("application_id".into(), application(manifest).into());
    body.insert(name.into(), value.into());
    body.extend(settings);
    Value::Object(body)
}

fn placeholder(secret: &Secret) -> String {
    let name = secret.name.to_uppercase();
    match secret.format {
        SecretFormat::Text => format!("YOUR_{name}"),
        SecretFormat::Pkcs12Identity => format!("BASE64_OF_YOUR_{name}_FILE"),
        _ => format!("TEXT_OF_YOUR_{name}_FILE"),
    }
}

/// Returns the examples of the manifests, each to one target, and two of the request's own forms.
fn sends(manifests: &[&ProviderManifest]) -> Examples {
    let mut examples = Examples::new();
    if let Some((manifest, token)) = devices(manifests) {
        let application = application(manifest);
        // Of the same letters, so that it is also a valid token, but no duplicate.
        let another: String = token.chars().rev().collect();
        let many = json!({
            "application_id": application,
            "notification": {"title": "Order 7", "body": "On its way", "ttl": 3600, "priority": "high"},
            "targets": [token, {"device": another}],
        });
        let different = json!({
            "application_id": application,
            "notification": {"title": "Good morning"},
            "notifications": [
                {"target": token, "notification": {"body": "Ada"}},
                {"targets": [token], "notification": {"body": "Grace"}},
            ],
            "validate_only": true,
        });
        examples.extend([
            named("many", "One notification for many targets", many),
            named("different", "A notification of its own for each, checked and not sent", different),
        ]);
    }
    let each = |(manifest, number, example, notification): (&ProviderManifest, _, &Example, _)| {
        let body = json!({
            "application_id": application(manifest),
            "notification": notification,
            "targets": [target(manifest, example)],
        });
        named(format!("{}-{number}", manifest.name), &manifest.title, body)
    };
    examples.extend(notifications(manifests).map(each));
    examples
}

fn streams(manifests: &[&ProviderManifest]) -> Examples {
    let Some((manifest, token)) = devices(manifests) else { return Examples::new() };
    let header = json!({"application_id": application(manifest), "notification": {"body": "hello"}});
    let other = json!({"target": token, "notification": {"body": "hello, you"}});
    let lines = format!("{header}\n{}\n{other}\n", json!({ "target": token }));
    Examples::from_iter([named("two", "Two targets, one with a text of its own", lines.into())])
}

fn classic_sends(manifests: &[&ProviderManifest]) -> Examples {
    let mut examples = Examples::new();
    for manifest in manifests {
        let Some(token) = device(manifest) else { continue };
        let body = json!({"application_id": application(manifest), "device_token": token, "alert": "hello"});
        examples.extend([named(manifest.name.clone(), &manifest.title, body)]);
        let inline = manifest.credentials.iter().filter(|credential| credential.inline);
        for secret in inline.flat_map(|credential| &credential.secrets) {
            let body = json!({
                "device_token": token,
                secret.name.as_str(): placeholder(secret),
                "data": json!({"text": "hello"}).to_string(),
            });
            examples.extend([named(secret.name.clone(), "Without a registration", body)]);
        }
    }
    examples
}

fn feedback(manifests: &[&ProviderManifest]) -> Examples {
    let all = manifests.iter().map(|manifest| {
        named(manifest.name.clone(), &manifest.title, json!({"application_id": application(manifest)}))
    });
    all.collect()
}

fn tenant() -> Examples {
    let limits = json!({"limits": {"pushes_per_second": 1000, "applications": 20}});
    [named("limits", "A tenant with limits of its own", limits)].into_iter().collect()
}

fn key() -> Examples {
    let rotation = json!({"others_expire_in": 3600});
    let scopes = json!({"label": "ci", "scopes": ["send"]});
    [
        named("rotation", "A new key; the older ones end in an hour", rotation),
        named("scopes", "A key that only sends", scopes),
    ]
    .into_iter()
    .collect()
}

fn webhook() -> Examples {
    let some = json!({"url": "https://hooks.example/pushlet", "events": ["token.dead", "token.replaced"]});
    [named("tokens", "Dead and replaced tokens", some)].into_iter().collect()
}

fn capture() -> Examples {
    let some = json!({"records": 5, "seconds": 600});
    [named("failures", "The next five sends that fail, within ten minutes", some)].into_iter().collect()
}

/// Returns an example with the required properties.
fn new_item(collection: &Collection) -> (String, Value) {
    let mut properties = Map::new();
    for parameter in collection.parameters.iter().filter(|parameter| parameter.required) {
        properties.insert(parameter.name.clone(), value(parameter));
    }
    named(collection.name.clone(), &collection.description, properties.into())
}

fn value(parameter: &Parameter) -> Value {
    use pushlet_model::contract::management::ParameterKind;
    let text = parameter.choices.first().map_or("1", String::as_str);
    match parameter.kind {
        ParameterKind::Text => text.into(),
        ParameterKind::Integer => text.parse::<i64>().unwrap_or(1).into(),
        ParameterKind::Boolean => (text != "false").into(),
    }
}

/// Returns the manifests' examples that hold a JSON object, each with its number.
fn notifications<'a>(
    manifests: &'a [&'a ProviderManifest],
) -> impl Iterator<Item = (&'a ProviderManifest, usize, &'a Example, Value)> {
    manifests.iter().flat_map(|manifest| {
        let examples = manifest.examples.iter().enumerate();
        examples.filter_map(|(number, example)| {
            let notification = serde_json::from_str(&example.notification).ok()?;
            Some((*manifest, number + 1, example, notification))
        })
    })
}

/// Returns the first provider that sends to devices, and a token.
fn devices<'a>(manifests: &[&'a ProviderManifest]) -> Option<(&'a ProviderManifest, &'a str)> {
    manifests.iter().find_map(|manifest| Some((*manifest, device(manifest)?)))
}

fn device(manifest: &ProviderManifest) -> Option<&str> {
    let first = manifest.targets.first() == Some(&TargetKind::Device);
    manifest.examples.first().filter(|_| first).map(|example| example.target.as_str())
}

/// Returns an example's target, which is a text, as the first kind of target that the provider has.
fn target(manifest: &ProviderManifest, example: &Example) -> Value {
    let text = &example.target;
    let mut target = match manifest.targets.first() {
        Some(TargetKind::Topic) => json!({ "topic": text }),
        Some(TargetKind::Condition) => json!({ "condition": text }),
        Some(TargetKind::Channel) => json!({ "channel": text }),
        Some(TargetKind::Url) => json!({ "url": text }),
        Some(TargetKind::Device) | None => json!(text),
    };
    if example.target_options.is_empty() {
        return target;
    }
    if !target.is_object() {
        target = json!({ "device": text });
    }
    let options = example.target_options.iter();
    let options = options.filter_map(|(name, json)| Some((name.clone(), serde_json::from_str(json).ok()?)));
    target["options"] = options.collect::<Map<String, Value>>().into();
    target
}
