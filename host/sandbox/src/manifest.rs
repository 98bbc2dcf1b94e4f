//! Is a component's manifest sound? It decides where the host connects and what it signs.

use std::collections::HashSet;

use http::header::{self, HeaderName};
use url::Url;

use super::check::belongs_to_host;
use pushlet_credential as credential;
use pushlet_model::contract::Environment;
use pushlet_model::contract::manifest::{
    Authentication, Credential, Endpoint, Field, HeaderPlacement, Origin, ProviderManifest, Source,
};
use pushlet_model::text;

const MAX_ITEMS: usize = 200;
const MAX_TEXT: usize = 8 << 10;
const MAX_ENTROPY: u32 = 64;
const MAX_TARGETS: u32 = 10_000;

/// Says in one sentence what is wrong with a manifest, if anything is.
pub fn check(manifest: &ProviderManifest) -> Result<(), String> {
    name("the name", &manifest.name)?;
    manifest.also_answers.iter().try_for_each(|other| name("a name in also-answers", other))?;
    name("the vendor", &manifest.vendor)?;
    for text in [&manifest.title, &manifest.version, &manifest.description] {
        ensure(text.len() <= MAX_TEXT, || "a text is too long".into())?;
    }
    ensure((1..=MAX_TARGETS).contains(&manifest.targets_per_exchange), || {
        format!("targets-per-exchange must be 1 to {MAX_TARGETS}")
    })?;
    ensure(manifest.entropy <= MAX_ENTROPY, || format!("entropy must be at most {MAX_ENTROPY}"))?;
    ensure(!manifest.targets.is_empty(), || "it knows no kind of target".into())?;
    ensure(manifest.examples.len() <= MAX_ITEMS, || "it has too many examples".into())?;
    fields("setting", &manifest.settings)?;
    fields("option", &manifest.options)?;
    endpoints(&manifest.endpoints)?;
    credential::check_manifest(&manifest.credentials).map_err(|error| error.to_string())?;
    manifest.credentials.iter().try_for_each(|credential| check_credential(manifest, credential))
}

/// Checks a credential together with the rest of the manifest; `pushlet_credential` checks it alone.
fn check_credential(manifest: &ProviderManifest, kind: &Credential) -> Result<(), String> {
    let of = |what: String| format!("credential {}: {what}", kind.name);
    name("a credential's name", &kind.name)?;
    let derived = kind.derivations.iter().map(|derivation| &derivation.setting);
    let claimed = credential::sources(&kind.authentication).into_iter().filter_map(|source| match source {
        Source::Setting(setting) => Some(setting),
        _ => None,
    });
    let known = |setting: &String| manifest.settings.iter().any(|field| field.name == *setting);
    let mut settings =
        kind.required_settings.iter().chain(&kind.connection_settings).chain(derived).chain(claimed);
    if let Some(unknown) = settings.find(|setting| !known(setting)) {
        return Err(of(format!("{unknown:?} is not one of the manifest's settings")));
    }
    match &kind.authentication {
        Authentication::SignedToken((_, place))
        | Authentication::ExchangedToken((_, place))
        | Authentication::SecretHeader((_, place)) => placement(place).map_err(of),
        Authentication::ClientCertificate | Authentication::Vapid(_) => Ok(()),
    }
}

/// Checks the header of a credential: any that a component may set, and `authorization`.
fn placement(place: &HeaderPlacement) -> Result<(), String> {
    let name = HeaderName::from_lowercase(place.name.as_bytes()).map_err(|_| {
        let rule = match HeaderName::from_bytes(place.name.as_bytes()) {
            Ok(_) => "the name must be in lower case",
            Err(_) => "the name cannot be one of HTTP",
        };
        format!("a credential cannot become the header {:?}: {rule}", place.name)
    })?;
    ensure(name == header::AUTHORIZATION || !belongs_to_host(&name), || {
        format!("a credential must not become the header {:?}", place.name)
    })
}

fn endpoints(endpoints: &[Endpoint]) -> Result<(), String> {
    ensure(!endpoints.is_empty() && endpoints.len() <= MAX_ITEMS, || {
        "it has no or too many endpoints".into()
    })?;
    let mut seen = HashSet::new();
    for endpoint in endpoints {
        field_name("endpoint", &endpoint.name)?;
        ensure(seen.insert((&endpoint.name, endpoint.environment as u8)), || {
            format!("endpoint {} is there twice", endpoint.name)
        })?;
        if let Origin::Fixed(origin) = &endpoint.origin {
            ensure(is_origin(origin), || format!("{origin:?} is not of the form https://host[:port]"))?;
        }
    }
    let in_production = |endpoint: &Endpoint| endpoint.environment == Environment::Production;
    ensure(endpoints.iter().any(in_production), || {
        "it has no endpoint for production, where applications are unless they say otherwise".into()
    })
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
        field_name(kind, &field.name)
    })?;
    unique(kind, fields.iter().map(|field| &field.name))
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
#[path = "manifest_tests.rs"]
mod tests;
