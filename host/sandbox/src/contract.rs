//! Checks a component's manifest, which decides where the host connects and what it signs.

use std::collections::HashSet;

use http::header::{self, HeaderName};
use url::Url;

use super::headers::belongs_to_host;
use pushlet_credential as credential;
use pushlet_model::contract::Environment;
use pushlet_model::contract::manifest::{
    Authentication, Credential, Endpoint, Field, Origin, Place, Placement, ProviderManifest, Transport,
    ValueKind,
};
use pushlet_model::{notification, text};

/// The endpoint of a stream provider that submissions go to.
pub(super) const PUSH: &str = "push";
const MAX_ITEMS: usize = 200;
const MAX_TEXT: usize = 8 << 10;
const MAX_ENTROPY: u32 = 256;
/// Headers of responses that a component may read.
const MAX_RESPONSE_HEADERS: usize = 32;
const MAX_UNIT: usize = 16;
const MAX_TARGETS: u32 = 10_000;

/// Says in one sentence what is wrong with a manifest, if anything is.
pub fn check_manifest(manifest: &ProviderManifest) -> Result<(), String> {
    name("the name", &manifest.name)?;
    manifest.also_answers.iter().try_for_each(|other| name("a name in also-answers", other))?;
    name("the vendor", &manifest.vendor)?;
    for text in [&manifest.title, &manifest.version, &manifest.description] {
        ensure(text.len() <= MAX_TEXT, || "a text is too long".into())?;
    }
    ensure((1..=MAX_TARGETS).contains(&manifest.targets_per_exchange), || {
        format!("targets-per-exchange must be 1 to {MAX_TARGETS}")
    })?;
    ensure((manifest.targets_per_exchange..=MAX_TARGETS).contains(&manifest.targets_per_call), || {
        format!("targets-per-call must be from targets-per-exchange to {MAX_TARGETS}")
    })?;
    response_headers(&manifest.response_headers)?;
    ensure(manifest.entropy <= MAX_ENTROPY, || format!("entropy must be at most {MAX_ENTROPY}"))?;
    ensure(!manifest.targets.is_empty(), || "it knows no kind of target".into())?;
    ensure(manifest.examples.len() <= MAX_ITEMS, || "it has too many examples".into())?;
    fields("setting", &manifest.settings)?;
    fields("option", &manifest.options)?;
    fields("option of a target", &manifest.target_options)?;
    endpoints(&manifest.environments, &manifest.endpoints)?;
    credential::check_manifest(&manifest.credentials).map_err(|error| error.to_string())?;
    manifest.credentials.iter().try_for_each(|credential| check_credential(manifest, credential))
}

/// Checks a credential together with the rest of the manifest; `pushlet_credential` checks it alone.
fn check_credential(manifest: &ProviderManifest, kind: &Credential) -> Result<(), String> {
    let of = |what: String| format!("credential {}: {what}", kind.name);
    name("a credential's name", &kind.name)?;
    let derived = kind.derivations.iter().map(|derivation| &derivation.setting);
    let claimed = credential::settings(&kind.authentication).into_iter();
    let known = |setting: &String| manifest.settings.iter().any(|field| field.name == *setting);
    let mut settings =
        kind.required_settings.iter().chain(&kind.connection_settings).chain(derived).chain(claimed);
    if let Some(unknown) = settings.find(|setting| !known(setting)) {
        return Err(of(format!("{unknown:?} is not one of the manifest's settings")));
    }
    match &kind.authentication {
        Authentication::SignedToken((_, place))
        | Authentication::ExchangedToken((_, place))
        | Authentication::Secret((_, place)) => placement(place).map_err(of),
        Authentication::Composed(composition) => {
            composition.texts.iter().try_for_each(|(_, place)| placement(place)).map_err(of)
        }
        Authentication::InStream => {
            ensure(is_stream(manifest), || of("only a stream-provider writes secrets into a stream".into()))
        }
        Authentication::ClientCertificate | Authentication::Vapid(_) => Ok(()),
    }
}

/// Checks the header of a credential: any that a component may set, and `authorization`.
fn placement(place: &Placement) -> Result<(), String> {
    let Place::Header(given) = &place.place else { return Ok(()) };
    let name = HeaderName::from_lowercase(given.as_bytes()).map_err(|_| {
        let rule = match HeaderName::from_bytes(given.as_bytes()) {
            Ok(_) => "the name must be in lower case",
            Err(_) => "the name cannot be one of HTTP",
        };
        format!("a credential cannot become the header {given:?}: {rule}")
    })?;
    ensure(name == header::AUTHORIZATION || !belongs_to_host(&name), || {
        format!("a credential must not become the header {given:?}")
    })
}

/// Checks the names of headers that the component wants to read.
fn response_headers(names: &[String]) -> Result<(), String> {
    ensure(names.len() <= MAX_RESPONSE_HEADERS, || {
        format!("it reads more than {MAX_RESPONSE_HEADERS} headers")
    })?;
    let wrong = names.iter().find(|name| HeaderName::from_lowercase(name.as_bytes()).is_err());
    match wrong {
        None => unique("response header", names.iter()),
        Some(wrong) => Err(format!("the response header {wrong:?} is not a name in lower case")),
    }
}

fn endpoints(environments: &[Environment], endpoints: &[Endpoint]) -> Result<(), String> {
    ensure(environments.contains(&Environment::Production), || {
        "its environments lack production, where applications are unless they say otherwise".into()
    })?;
    ensure(
        environments.len() <= 2 && (environments.len() < 2 || environments[0] != environments[1]),
        || "an environment is there twice".into(),
    )?;
    ensure(!endpoints.is_empty() && endpoints.len() <= MAX_ITEMS, || {
        "it has no or too many endpoints".into()
    })?;
    let mut seen = HashSet::new();
    for endpoint in endpoints {
        field_name("endpoint", &endpoint.name)?;
        ensure(environments.contains(&endpoint.environment), || {
            format!("endpoint {} is for an environment that it does not declare", endpoint.name)
        })?;
        ensure(seen.insert((&endpoint.name, endpoint.environment as u8)), || {
            format!("endpoint {} is there twice", endpoint.name)
        })?;
        if let Origin::Fixed(origin) = &endpoint.origin {
            ensure(is_origin(origin), || format!("{origin:?} is not of the form https://host[:port]"))?;
        }
    }
    for (endpoint, environment) in
        endpoints.iter().flat_map(|one| environments.iter().map(move |env| (one, env)))
    {
        ensure(seen.contains(&(&endpoint.name, *environment as u8)), || {
            let environment = match environment {
                Environment::Production => "production",
                Environment::Development => "development",
            };
            format!(
                "endpoint {} is not there for {environment}, which is among its environments",
                endpoint.name
            )
        })?;
    }
    Ok(())
}

/// Says what is wrong with the manifest of a component of the world `stream-provider`, or of the other world.
pub(super) fn check_world(manifest: &ProviderManifest, streams: bool) -> Result<(), String> {
    if !streams {
        return ensure(!is_stream(manifest), || "the transport tls is for the world stream-provider".into());
    }
    let sound = |endpoint: &Endpoint| {
        endpoint.transport == Transport::Tls && !matches!(endpoint.origin, Origin::AnyHttps)
    };
    ensure(manifest.endpoints.iter().all(sound), || {
        "a stream-provider's endpoints have the transport tls and a fixed or configured origin".into()
    })?;
    ensure(manifest.endpoints.iter().any(|endpoint| endpoint.name == PUSH), || {
        format!("a stream-provider has an endpoint {}", PUSH)
    })?;
    let fits = |kind: &Credential| {
        matches!(kind.authentication, Authentication::InStream | Authentication::ClientCertificate)
    };
    ensure(manifest.credentials.iter().all(fits), || {
        "a stream-provider authenticates with a client certificate or in the stream".into()
    })
}

fn is_stream(manifest: &ProviderManifest) -> bool {
    manifest.endpoints.iter().any(|endpoint| endpoint.transport == Transport::Tls)
}

/// Returns true if it is written exactly as it is understood. Parsers of URLs forgive much.
fn is_origin(origin: &str) -> bool {
    let plain = origin.strip_suffix(":443").unwrap_or(origin);
    Url::parse(plain).is_ok_and(|url| url.scheme() == "https" && url.origin().ascii_serialization() == plain)
}

fn fields(kind: &'static str, fields: &[Field]) -> Result<(), String> {
    ensure(fields.len() <= MAX_ITEMS, || format!("it has too many {kind}s"))?;
    fields.iter().try_for_each(|field| {
        ensure(field.choices.len() <= MAX_ITEMS && field.description.len() <= MAX_TEXT, || {
            format!("{kind} {} is too large", field.name)
        })?;
        field_name(kind, &field.name)?;
        bounds(kind, field)
    })?;
    unique(kind, fields.iter().map(|field| &field.name))
}

/// Checks what a field says about its values.
fn bounds(kind: &str, field: &Field) -> Result<(), String> {
    let of = |what: &str| format!("{kind} {}: {what}", field.name);
    let is_number = matches!(field.kind, ValueKind::Integer | ValueKind::Number);
    let numbers = [field.minimum, field.maximum];
    ensure(is_number || numbers.iter().all(Option::is_none), || of("only a number has a range"))?;
    ensure(numbers.iter().flatten().all(|number| number.is_finite()), || of("its range is not a number"))?;
    if let [Some(least), Some(most)] = numbers {
        ensure(least <= most, || of("its minimum is more than its maximum"))?;
    }
    let has_length = matches!(field.kind, ValueKind::Text | ValueKind::Json);
    ensure(field.max_length.is_none() || has_length, || of("only a text or JSON has a length"))?;
    ensure(field.unit.as_ref().is_none_or(|unit| unit.len() <= MAX_UNIT), || of("its unit is too long"))?;
    let Some(default) = &field.default else { return Ok(()) };
    let value = serde_json::from_str::<serde_json::Value>(default).ok().filter(|_| default.len() <= MAX_TEXT);
    let value = value.ok_or_else(|| of("its default is not JSON, or too long"))?;
    notification::check_value(field, &value).map_err(|error| of(&format!("its default: {}", error.message)))
}

fn unique<'a>(kind: &str, names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = HashSet::new();
    names
        .map(|name| (name, seen.insert(name)))
        .try_for_each(|(name, new)| ensure(new, || format!("{kind} {name:?} is there twice")))
}

/// Names of providers and credentials: they become `type`s, metrics' labels and URL segments.
pub(super) fn name(what: &str, name: &str) -> Result<(), String> {
    let sound = text::is_name(name, 32) && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    ensure(sound, || format!("{what} must be 1 to 32 of a-z, 0-9, - and _, and begin with a letter"))
}

pub(super) fn field_name(kind: &str, name: &str) -> Result<(), String> {
    let sound = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    ensure(sound, || format!("a {kind}'s name must be 1 to 64 letters, digits, - and _"))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "contract_tests.rs"]
mod tests;
