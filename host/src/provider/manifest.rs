//! Is a component's manifest sound? It decides where the host connects and what it signs.

use std::collections::HashSet;

use http::header::{self, HeaderName, HeaderValue};
use url::Url;

use super::check::belongs_to_host;
use crate::contract::manifest::{
    Authentication, Credential, Endpoint, Field, Grant, HeaderPlacement, Origin, ProviderManifest,
    SecretFormat, SignedToken, Source,
};

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
    unique("credential", manifest.credentials.iter().map(|credential| &credential.name))?;
    manifest.credentials.iter().try_for_each(|credential| check_credential(manifest, credential))
}

fn check_credential(manifest: &ProviderManifest, credential: &Credential) -> Result<(), String> {
    let of = |what: String| format!("credential {}: {what}", credential.name);
    name("a credential's name", &credential.name)?;
    ensure(!credential.secrets.is_empty(), || of("it has no secret".into()))?;
    unique("secret", credential.secrets.iter().map(|secret| &secret.name))?;
    for secret in &credential.secrets {
        field_name("secret", &secret.name)?;
        secret.password.iter().try_for_each(|password| field_name("password", password))?;
    }
    let known = |setting: &String| manifest.settings.iter().any(|field| field.name == *setting);
    let derived = credential.derivations.iter().map(|derivation| &derivation.setting);
    let mut settings =
        credential.required_settings.iter().chain(&credential.connection_settings).chain(derived);
    if let Some(unknown) = settings.find(|setting| !known(setting)) {
        return Err(of(format!("{unknown:?} is not one of the manifest's settings")));
    }
    authentication(manifest, credential).map_err(of)
}

fn authentication(manifest: &ProviderManifest, credential: &Credential) -> Result<(), String> {
    let formats: Vec<_> = credential.secrets.iter().map(|secret| secret.format).collect();
    let identity =
        |format: &SecretFormat| matches!(format, SecretFormat::Pkcs12Identity | SecretFormat::PemIdentity);
    match &credential.authentication {
        Authentication::ClientCertificate => ensure(formats.iter().all(identity), || {
            "a client certificate needs a PKCS#12 or PEM secret".into()
        }),
        Authentication::SignedToken((token, place)) => {
            placement(place)?;
            signed_token(manifest, credential, token)
        }
        Authentication::ExchangedToken((exchange, place)) => {
            placement(place)?;
            source(manifest, credential, &exchange.token_url)?;
            match &exchange.grant {
                Grant::JwtBearer(token) => signed_token(manifest, credential, token),
                Grant::ClientCredentials(grant) => {
                    secret(credential, &grant.secret)?;
                    source(manifest, credential, &grant.id)
                }
            }
        }
        Authentication::SecretHeader((name, place)) => {
            placement(place)?;
            secret(credential, name)
        }
        Authentication::Vapid(token) => signed_token(manifest, credential, token),
    }
}

fn signed_token(
    manifest: &ProviderManifest,
    credential: &Credential,
    token: &SignedToken,
) -> Result<(), String> {
    secret(credential, &token.key)?;
    ensure(token.header.len() <= 16 && token.claims.len() <= 32, || "its token has too many claims".into())?;
    ensure(token.lifetime > 0 && token.minimum_age <= token.lifetime, || {
        "its token's lifetime must be longer than its minimum-age".into()
    })?;
    let mut sources = token.header.iter().chain(&token.claims).map(|(_, source)| source);
    sources.try_for_each(|value| source(manifest, credential, value))
}

fn source(manifest: &ProviderManifest, credential: &Credential, source: &Source) -> Result<(), String> {
    match source {
        Source::Literal(json) => {
            ensure(serde_json::from_str::<serde_json::Value>(json).is_ok(), || "a literal is not JSON".into())
        }
        Source::Setting(setting) => {
            ensure(manifest.settings.iter().any(|field| field.name == *setting), || {
                format!("{setting:?} is not one of the manifest's settings")
            })
        }
        Source::SecretProperty((name, _)) => secret(credential, name),
        Source::IssuedAt | Source::ExpiresAt | Source::UniqueId | Source::TargetOrigin => Ok(()),
    }
}

fn secret(credential: &Credential, name: &str) -> Result<(), String> {
    ensure(credential.secrets.iter().any(|secret| secret.name == name), || {
        format!("{name:?} is not one of its secrets")
    })
}

fn placement(place: &HeaderPlacement) -> Result<(), String> {
    let name = HeaderName::from_lowercase(place.name.as_bytes())
        .map_err(|_| format!("{:?} is not a header name in lower case", place.name))?;
    ensure(name == header::AUTHORIZATION || !belongs_to_host(&name), || {
        format!("a credential must not become the header {name}")
    })?;
    ensure(HeaderValue::from_str(&place.prefix).is_ok() && place.prefix.len() <= 64, || {
        "a header prefix is not printable or too long".into()
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
    Ok(())
}

/// Is it written in just the way in which it is understood? Parsers of URLs forgive much.
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
    let letters =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    let sound = (1..=32).contains(&name.len())
        && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && name.bytes().all(letters);
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
