//! What the contract asks of every provider, checked on each vector.

use super::read;
use crate::bindings::exports::pushlet::provider::manifest::{
    Authentication, Credential, Grant, Part, SignedToken, Source, TargetKind, TokenExchange,
};
use crate::codec_bindings::exports::pushlet::provider::codec::Guest;
use crate::{
    Application, Context, Encoded, Environment, Notification, Provider, ProviderManifest, Recipient, Target,
};
use std::collections::BTreeSet;

/// Headers that are the host's.
const RESERVED: [&str; 5] = ["authorization", "host", "content-length", "connection", "transfer-encoding"];

/// Checks the manifest against itself, and that its examples encode.
///
/// # Panics
/// With the first thing that is wrong.
#[allow(clippy::panic)]
pub fn check_manifest<P: Provider>() {
    let manifest = <P as Provider>::describe();
    assert!(manifest.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "name");
    assert!(manifest.examples.len() >= 3, "a manifest has at least three examples");
    for fields in [&manifest.settings, &manifest.options, &manifest.target_options] {
        let names: BTreeSet<_> = fields.iter().map(|field| &field.name).collect();
        assert_eq!(names.len(), fields.len(), "a name comes twice");
        assert!(fields.iter().all(|field| !field.description.is_empty()), "a field without a description");
    }
    for environment in &manifest.environments {
        assert!(
            manifest.endpoints.iter().any(|endpoint| endpoint.environment == *environment),
            "{environment:?}"
        );
    }
    assert!(manifest.targets_per_call >= manifest.targets_per_exchange, "a call holds an exchange");
    manifest.credentials.iter().for_each(|credential| check_credential(&manifest, credential));
    for example in &manifest.examples {
        let application = Application {
            id: "example".into(),
            environment: Environment::Production,
            settings: example.settings.clone(),
            credential: example.credential.clone(),
        };
        let mut value: serde_json::Value = serde_json::from_str(&example.notification).unwrap_or_default();
        // In the HTTP API the raw payload goes by the provider's name.
        if let Some(native) = value.as_object_mut().and_then(|fields| fields.shift_remove(&manifest.name)) {
            value["native"] = native;
        }
        let notification = read::notification(&value);
        let result = check_input(&manifest, &application, &notification)
            .and_then(|()| P::check_application(&application).map_err(|rejection| format!("{rejection:?}")))
            .and_then(|()| {
                let context = Context {
                    now: read::now(&serde_json::Value::Null),
                    entropy: vec![7; manifest.entropy as usize],
                };
                let target = match manifest.targets.first() {
                    Some(TargetKind::Url) => Target::Url(example.target.clone()),
                    _ => Target::Device(example.target.clone()),
                };
                let targets = vec![Recipient { target, options: example.target_options.clone() }];
                let encoded = <P as Guest>::encode(context, application.clone(), notification, targets);
                check_encoded(&manifest, &application, 1, &encoded).and(match encoded.refusals.first() {
                    None => Ok(()),
                    Some(refusal) => Err(format!("{:?}", refusal.rejection)),
                })
            });
        assert_eq!(result, Ok(()), "{}", example.notification);
    }
}

fn check_credential(manifest: &ProviderManifest, credential: &Credential) {
    let secrets = credential.secrets.iter().chain(&credential.companions);
    let secrets: Vec<&str> = secrets.map(|secret| secret.name.as_str()).collect();
    let settings: Vec<&str> = manifest.settings.iter().map(|field| field.name.as_str()).collect();
    let derived = credential.derivations.iter().map(|derivation| &derivation.setting);
    for setting in derived.chain(&credential.required_settings).chain(&credential.connection_settings) {
        assert!(settings.contains(&setting.as_str()), "the setting {setting} is not declared");
    }
    let mut sources = Vec::new();
    let keys = match &credential.authentication {
        Authentication::ClientCertificate | Authentication::InStream => Vec::new(),
        Authentication::SignedToken((token, _)) | Authentication::Vapid(token) => {
            token_parts(token, &mut sources)
        }
        Authentication::ExchangedToken((exchange, _)) => exchange_parts(exchange, &mut sources),
        Authentication::Secret((secret, _)) => vec![secret.as_str()],
        Authentication::Composed(composition) => {
            let texts = composition.texts.iter().flat_map(|(text, _)| &text.parts);
            let parts = texts.chain(composition.digest.iter().flat_map(|digest| &digest.parts));
            parts_of(parts, &settings)
        }
    };
    assert!(keys.iter().all(|key| secrets.contains(key)), "a secret is not declared");
    for source in sources {
        match source {
            Source::Setting(name) => {
                assert!(settings.contains(&name.as_str()), "the setting {name} is not declared")
            }
            Source::SecretProperty((name, _)) => {
                assert!(secrets.contains(&name.as_str()), "no secret {name}")
            }
            Source::Literal(text) => {
                assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text} is not JSON");
            }
            _ => {}
        }
    }
}

fn token_parts<'a>(token: &'a SignedToken, sources: &mut Vec<&'a Source>) -> Vec<&'a str> {
    sources.extend(token.header.iter().chain(&token.claims).map(|(_, source)| source));
    vec![&token.key]
}

fn exchange_parts<'a>(exchange: &'a TokenExchange, sources: &mut Vec<&'a Source>) -> Vec<&'a str> {
    sources.extend(&exchange.token_url);
    match &exchange.grant {
        Grant::JwtBearer(token) => token_parts(token, sources),
        Grant::ClientCredentials(client) => {
            sources.push(&client.id);
            vec![&client.secret]
        }
        Grant::Custom(request) => {
            let fields = request.fields.iter().flat_map(|field| &field.value.parts);
            secrets_of(fields.chain(request.digest.iter().flat_map(|digest| &digest.parts)))
        }
    }
}

fn secrets_of<'a>(parts: impl Iterator<Item = &'a Part>) -> Vec<&'a str> {
    let secret = |part: &'a Part| match part {
        Part::Secret(name) => Some(name.as_str()),
        _ => None,
    };
    parts.filter_map(secret).collect()
}

/// The secrets among some parts, whose settings must be declared.
fn parts_of<'a>(parts: impl Iterator<Item = &'a Part>, settings: &[&str]) -> Vec<&'a str> {
    let check = |part: &&Part| {
        if let Part::Setting(name) | Part::EncodedSetting(name) = part {
            assert!(settings.contains(&name.as_str()), "the setting {name} is not declared");
        }
    };
    secrets_of(parts.inspect(check))
}

/// Does the manifest declare what the input uses?
pub fn check_input(
    manifest: &ProviderManifest,
    application: &Application,
    notification: &Notification,
) -> Result<(), String> {
    let known = |fields: &[crate::manifest::Field], name: &str| fields.iter().any(|field| field.name == name);
    for (name, _) in &notification.options {
        ensure(known(&manifest.options, name), || format!("the option {name} is not declared"))?;
    }
    for (name, _) in &application.settings {
        ensure(known(&manifest.settings, name), || format!("the setting {name} is not declared"))?;
    }
    match &application.credential {
        Some(name) => ensure(manifest.credentials.iter().any(|credential| credential.name == *name), || {
            format!("the credential {name} is not declared")
        }),
        None => Ok(()),
    }
}

/// Is the output one that a host accepts?
pub fn check_encoded(
    manifest: &ProviderManifest,
    application: &Application,
    targets: usize,
    encoded: &Encoded,
) -> Result<(), String> {
    let exchanged = encoded.exchanges.iter().map(|exchange| &exchange.covers);
    let mut covered: Vec<u32> =
        exchanged.chain(encoded.refusals.iter().map(|refusal| &refusal.covers)).flatten().copied().collect();
    covered.sort_unstable();
    ensure(covered.into_iter().eq(0..crate::reply::index(targets)), || {
        "a target is not covered once".into()
    })?;
    for message in &encoded.messages {
        let declared = |endpoint: &crate::manifest::Endpoint| {
            endpoint.name == message.endpoint && endpoint.environment == application.environment
        };
        ensure(manifest.endpoints.iter().any(declared), || format!("no endpoint {}", message.endpoint))?;
        check_headers(&message.headers)?;
    }
    let used: BTreeSet<u32> = encoded.exchanges.iter().map(|exchange| exchange.message).collect();
    ensure(used.into_iter().all(|place| (place as usize) < encoded.messages.len()), || {
        "no such message".into()
    })?;
    for exchange in &encoded.exchanges {
        check_headers(&exchange.headers)?;
        ensure(exchange.covers.len() <= manifest.targets_per_exchange as usize, || {
            "too many targets".into()
        })?;
        let sound =
            exchange.path.starts_with('/') && exchange.path.bytes().all(|byte| byte.is_ascii_graphic());
        ensure(sound, || format!("the path {}", exchange.path))?;
    }
    Ok(())
}

fn check_headers(headers: &[(String, String)]) -> Result<(), String> {
    for (name, value) in headers {
        let lower =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        ensure(lower && !RESERVED.contains(&name.as_str()), || format!("the header {name}"))?;
        ensure(value.bytes().all(|byte| matches!(byte, b' '..=b'~')), || format!("the value of {name}"))?;
    }
    Ok(())
}

fn ensure(condition: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(problem()) }
}
