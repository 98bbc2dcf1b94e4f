//! Checks what a manifest says about credentials: it comes from an untrusted component.

use http::HeaderValue;
use serde_json::Value;

use super::tokens::token_endpoint::parse_token_url;
use pushlet_model::contract::manifest::{
    Authentication, Credential as CredentialKind, Grant, HeaderPlacement, Property, SecretFormat,
    SignedToken, SigningAlgorithm, Source, TokenExchange,
};
use pushlet_model::text;

const MOST_KINDS: usize = 16;
const MOST_SECRETS: usize = 8;
const MOST_SOURCES: usize = 16;
const LONGEST_NAME: usize = 64;
const LONGEST_TEXT: usize = 1 << 10;
const SHORTEST_LIFE: u64 = 60_000;
const LONGEST_LIFE: u64 = 24 * 3600 * 1000;

/// A manifest describes credentials that the host cannot serve: the provider's author must act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("credential {credential}: {message}")]
pub struct ManifestError {
    pub credential: String,
    pub message: String,
}

/// Checks the credentials of a manifest when its component is loaded.
pub fn check_manifest(kinds: &[CredentialKind]) -> Result<(), ManifestError> {
    if kinds.len() > MOST_KINDS {
        let message = format!("there are more than {MOST_KINDS}");
        return Err(ManifestError { credential: "*".to_owned(), message });
    }
    for (index, kind) in kinds.iter().enumerate() {
        let unique = kinds.iter().take(index).all(|earlier| earlier.name != kind.name);
        let checked = ensure(unique, "its name is used twice").and_then(|()| check_kind(kind));
        checked.map_err(|message| ManifestError { credential: shorten(&kind.name), message })?;
    }
    Ok(())
}

/// Returns the algorithm that the key of a credential signs with, if it signs.
pub(crate) fn algorithm(kind: &CredentialKind) -> Option<SigningAlgorithm> {
    signed_token(&kind.authentication).map(|token| token.algorithm)
}

/// Returns the properties of a service account that the manifest refers to.
pub(crate) fn needed_properties<'a>(kind: &'a CredentialKind, secret: &str) -> Vec<&'a str> {
    let derived = kind.derivations.iter().filter_map(|derivation| match &derivation.property {
        Property::ServiceAccountProperty(name) => Some(name.as_str()),
        _ => None,
    });
    let sources = sources(&kind.authentication).into_iter().filter_map(|source| match source {
        Source::SecretProperty((holder, name)) if holder == secret => Some(name.as_str()),
        _ => None,
    });
    derived.chain(sources).collect()
}

type ManifestCheck = Result<(), String>;

fn ensure(sound: bool, otherwise: &str) -> ManifestCheck {
    if sound { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn check_kind(kind: &CredentialKind) -> ManifestCheck {
    ensure(is_name(&kind.name), "its name is not a name")?;
    ensure((1..=MOST_SECRETS).contains(&kind.secrets.len()), "it has no secrets, or too many")?;
    for (index, secret) in kind.secrets.iter().enumerate() {
        ensure(is_name(&secret.name), "the name of a secret is not a name")?;
        ensure(secret.password.as_deref().is_none_or(is_name), "the name of a password is not a name")?;
        let unique = kind.secrets.iter().take(index).all(|earlier| earlier.name != secret.name);
        ensure(unique, "a secret is there twice")?;
        let fits = format_fits(&kind.authentication, secret.format);
        ensure(fits, "the format of a secret does not fit the authentication")?;
    }
    ensure(kind.derivations.len() <= MOST_SOURCES, "it has too many derivations")?;
    ensure(
        kind.derivations.iter().all(|derivation| is_name(&derivation.setting)),
        "a setting is not a name",
    )?;
    for source in sources(&kind.authentication) {
        check_source(source, kind)?;
    }
    check_authentication(kind)
}

fn check_authentication(kind: &CredentialKind) -> ManifestCheck {
    let names_secret = |name: &str| kind.secrets.iter().any(|secret| secret.name == name);
    if let Some(token) = signed_token(&kind.authentication) {
        ensure(names_secret(&token.key), "the key of its token is not one of its secrets")?;
        ensure(kind.secrets.len() == 1, "a credential that signs has one secret")?;
        check_token(token)?;
    }
    match &kind.authentication {
        Authentication::ClientCertificate => Ok(()),
        Authentication::SignedToken((_, place)) => check_placement(place),
        Authentication::ExchangedToken((exchange, place)) => {
            check_exchange(exchange, &names_secret)?;
            check_placement(place)
        }
        Authentication::SecretHeader((secret, place)) => {
            ensure(names_secret(secret), "the secret of its header is not one of its secrets")?;
            check_placement(place)
        }
        Authentication::Vapid(token) => {
            ensure(token.algorithm == SigningAlgorithm::Es256, "VAPID tokens are signed with ES256")
        }
    }
}

fn check_token(token: &SignedToken) -> ManifestCheck {
    ensure(token.header.len() <= MOST_SOURCES, "its token has too many headers")?;
    ensure(token.claims.len() <= MOST_SOURCES, "its token has too many claims")?;
    let names = token.header.iter().chain(&token.claims).map(|(name, _)| name);
    ensure(names.clone().all(|name| (1..=LONGEST_NAME).contains(&name.len())), "a claim has no sound name")?;
    ensure(token.header.iter().all(|(name, _)| name != "alg"), "alg is the host's to set")?;
    let lives = (SHORTEST_LIFE..=LONGEST_LIFE).contains(&token.lifetime);
    ensure(lives, "the lifetime of its token is not between a minute and a day")?;
    ensure(token.minimum_age <= token.lifetime, "the minimum age of its token is more than its lifetime")
}

fn check_exchange(exchange: &TokenExchange, names_secret: &dyn Fn(&str) -> bool) -> ManifestCheck {
    if let Source::Literal(json) = &exchange.token_url {
        let url: Option<String> = serde_json::from_str(json).ok();
        let sound = url.is_some_and(|url| parse_token_url(&url).is_some());
        ensure(sound, "its token URL is not the https URL of an endpoint")?;
    }
    ensure(exchange.scope.as_ref().is_none_or(|scope| scope.len() <= LONGEST_TEXT), "its scope is too long")?;
    ensure(exchange.refresh_before <= LONGEST_LIFE, "it refreshes its token too early")?;
    match &exchange.grant {
        Grant::JwtBearer(_) => Ok(()),
        Grant::ClientCredentials(client) => {
            ensure(names_secret(&client.secret), "the client's secret is not one of its secrets")
        }
    }
}

fn check_source(source: &Source, kind: &CredentialKind) -> ManifestCheck {
    match source {
        Source::Literal(json) => {
            let sound = json.len() <= LONGEST_TEXT && serde_json::from_str::<Value>(json).is_ok();
            ensure(sound, "a literal is not JSON, or too long")
        }
        Source::Setting(name) => ensure(is_name(name), "a setting is not a name"),
        Source::SecretProperty((secret, name)) => {
            let secret = kind.secrets.iter().find(|candidate| candidate.name == *secret);
            let sound = secret.is_some_and(|secret| secret.format == SecretFormat::ServiceAccount);
            let name_sound = (1..=LONGEST_NAME).contains(&name.len()) && name != "private_key";
            ensure(sound && name_sound, "a property is not one of its secrets'")
        }
        Source::IssuedAt | Source::ExpiresAt | Source::UniqueId | Source::TargetOrigin => Ok(()),
    }
}

/// Checks the prefix. Whether the header may carry a secret is checked where components' headers are.
fn check_placement(place: &HeaderPlacement) -> ManifestCheck {
    let sound = place.prefix.len() <= LONGEST_NAME && HeaderValue::from_str(&place.prefix).is_ok();
    ensure(sound, "the prefix of its header makes no header value")
}

fn format_fits(authentication: &Authentication, format: SecretFormat) -> bool {
    let signs = matches!(format, SecretFormat::Pkcs8Key | SecretFormat::ServiceAccount);
    match authentication {
        Authentication::ClientCertificate => {
            matches!(format, SecretFormat::Pkcs12Identity | SecretFormat::PemIdentity)
        }
        Authentication::SignedToken(_) | Authentication::Vapid(_) => signs,
        Authentication::ExchangedToken((exchange, _)) => match exchange.grant {
            Grant::JwtBearer(_) => signs,
            Grant::ClientCredentials(_) => format == SecretFormat::Text,
        },
        Authentication::SecretHeader(_) => format == SecretFormat::Text,
    }
}

fn signed_token(authentication: &Authentication) -> Option<&SignedToken> {
    match authentication {
        Authentication::SignedToken((token, _)) | Authentication::Vapid(token) => Some(token),
        Authentication::ExchangedToken((exchange, _)) => match &exchange.grant {
            Grant::JwtBearer(token) => Some(token),
            Grant::ClientCredentials(_) => None,
        },
        Authentication::ClientCertificate | Authentication::SecretHeader(_) => None,
    }
}

/// Returns the sources of a credential's tokens, and of the requests that fetch them.
pub fn sources(authentication: &Authentication) -> Vec<&Source> {
    let mut sources = Vec::new();
    if let Some(token) = signed_token(authentication) {
        sources.extend(token.header.iter().chain(&token.claims).map(|(_, source)| source));
    }
    if let Authentication::ExchangedToken((exchange, _)) = authentication {
        sources.push(&exchange.token_url);
        if let Grant::ClientCredentials(client) = &exchange.grant {
            sources.push(&client.id);
        }
    }
    sources
}

fn is_name(name: &str) -> bool {
    text::is_name(name, LONGEST_NAME)
}

fn shorten(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
}
