//! Checks what a manifest says about credentials: it comes from an untrusted component.

use http::{HeaderName, HeaderValue};
use serde_json::Value;
use url::Url;

use super::tokens::token_endpoint::parse_token_url;
use pushlet_model::contract::manifest::{
    Authentication, BodyFormat, Composition, Credential as CredentialKind, Digest, DigestAlgorithm, Encoding,
    Grant, Part, Place, Placement, Property, SecretFormat, SignedToken, SigningAlgorithm, Source,
    TokenExchange, TokenRequest,
};
use pushlet_model::text;

const MOST_KINDS: usize = 16;
const MOST_SECRETS: usize = 8;
const MOST_SOURCES: usize = 16;
/// Texts of one composition.
const MOST_TEXTS: usize = 8;
/// Parts of one text.
const MOST_PARTS: usize = 16;
const LONGEST_NAME: usize = 64;
const LONGEST_LITERAL: usize = 1 << 10;
/// Milliseconds that a text may name a time ahead.
const LONGEST_WAIT: u64 = 24 * 3600 * 1000;
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
        checked.map_err(|message| ManifestError {
            credential: kind.name.chars().take(LONGEST_NAME).collect(),
            message,
        })?;
    }
    Ok(())
}

/// Returns the settings that a credential's tokens and texts are made of.
pub fn settings(authentication: &Authentication) -> Vec<&String> {
    let sources = sources(authentication).into_iter().filter_map(|source| match source {
        Source::Setting(name) => Some(name),
        _ => None,
    });
    let parts = parts(authentication).into_iter().filter_map(|part| match part {
        Part::Setting(name) | Part::EncodedSetting(name) => Some(name),
        _ => None,
    });
    sources.chain(parts).collect()
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
    check_companions(kind)?;
    ensure(kind.derivations.len() <= MOST_SOURCES, "it has too many derivations")?;
    let mut derived = kind.derivations.iter().map(|derivation| &derivation.setting);
    ensure(derived.all(|setting| is_name(setting)), "a setting is not a name")?;
    sources(&kind.authentication).into_iter().try_for_each(|source| check_source(source, kind))?;
    check_authentication(kind)
}

fn check_companions(kind: &CredentialKind) -> ManifestCheck {
    ensure(kind.companions.len() <= MOST_SECRETS, "it has too many companions")?;
    for (index, secret) in kind.companions.iter().enumerate() {
        let sound = is_name(&secret.name) && secret.password.is_none() && secret.format == SecretFormat::Text;
        ensure(sound, "a companion must be a text with a name, without a password")?;
        let mut others = kind.secrets.iter().chain(kind.companions.iter().take(index));
        ensure(others.all(|other| other.name != secret.name), "a secret is there twice")?;
    }
    Ok(())
}

fn check_authentication(kind: &CredentialKind) -> ManifestCheck {
    let names_secret = |name: &str| kind.secrets.iter().any(|secret| secret.name == name);
    if let Some(token) = signed_token(&kind.authentication) {
        ensure(names_secret(&token.key), "the key of its token is not one of its secrets")?;
        ensure(kind.secrets.len() == 1, "a credential that signs has one secret")?;
        check_token(token)?;
    }
    match &kind.authentication {
        Authentication::ClientCertificate | Authentication::InStream => Ok(()),
        Authentication::SignedToken((_, place)) => check_placement(place),
        Authentication::ExchangedToken((exchange, place)) => {
            check_exchange(exchange, kind)?;
            check_placement(place)
        }
        Authentication::Secret((secret, place)) => {
            ensure(names_secret(secret), "the secret of its header is not one of its secrets")?;
            check_placement(place)
        }
        Authentication::Composed(composition) => check_composition(composition, kind),
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

fn check_exchange(exchange: &TokenExchange, kind: &CredentialKind) -> ManifestCheck {
    check_token_url(&exchange.token_url)?;
    ensure(exchange.scope.as_ref().is_none_or(|scope| scope.len() <= LONGEST_TEXT), "its scope is too long")?;
    ensure(exchange.refresh_before <= LONGEST_LIFE, "it refreshes its token too early")?;
    ensure(exchange.minimum_age <= LONGEST_LIFE, "the minimum age of its token is more than a day")?;
    match &exchange.grant {
        Grant::JwtBearer(_) => Ok(()),
        Grant::ClientCredentials(client) => {
            ensure(names_text(kind, &client.secret), "the client's secret is not one of its secrets")
        }
        Grant::Custom(request) => check_request(request, kind),
    }
}

/// Checks the pieces of a token URL. The first of several decides the host.
fn check_token_url(pieces: &[Source]) -> ManifestCheck {
    let wrong = "its token URL is not the https URL of an endpoint";
    ensure((1..=MOST_SOURCES).contains(&pieces.len()), "its token URL has no pieces, or too many")?;
    match pieces {
        [Source::Literal(_)] => ensure(literal_url(pieces).is_some(), wrong),
        [_] => Ok(()),
        [Source::Literal(json), rest @ ..] => {
            let text: Option<String> = serde_json::from_str(json).ok();
            // Without the slash, the next piece would be a part of the host's name.
            let whole_origin =
                |text: &String| text.strip_prefix("https://").is_some_and(|rest| rest.contains('/'));
            ensure(text.as_ref().is_some_and(whole_origin) && literal_url(pieces).is_some(), wrong)?;
            let fixed = |piece: &Source| {
                matches!(piece, Source::Literal(_) | Source::Setting(_) | Source::SecretProperty(_))
            };
            ensure(
                rest.iter().all(fixed),
                "a piece of its token URL is not a literal, a setting or a property",
            )
        }
        _ => Err("the first piece of its token URL is not a literal".to_owned()),
    }
}

/// Returns the URL that the first piece is or begins.
fn literal_url(pieces: &[Source]) -> Option<Url> {
    let Some(Source::Literal(json)) = pieces.first() else { return None };
    parse_token_url(&serde_json::from_str::<String>(json).ok()?)
}

/// Returns the URL that names the host of a token endpoint; None: a setting or a secret's property names it.
pub fn token_host(exchange: &TokenExchange) -> Option<Url> {
    literal_url(&exchange.token_url)
}

fn check_request(request: &TokenRequest, kind: &CredentialKind) -> ManifestCheck {
    let is_json = request.format == BodyFormat::Json;
    let fields = &request.fields;
    ensure((1..=MOST_SOURCES).contains(&fields.len()), "its token request has no fields, or too many")?;
    for (index, field) in fields.iter().enumerate() {
        let named = (1..=LONGEST_NAME).contains(&field.name.len());
        let unique = fields.iter().take(index).all(|earlier| earlier.name != field.name);
        ensure(named && unique, "a field of its token request has no name of its own")?;
        ensure(is_json || !field.number, "a form has no numbers")?;
        check_parts(&field.value.parts, request.digest.is_some(), kind)?;
    }
    request.digest.iter().try_for_each(|digest| check_digest(digest, kind))?;
    let of_request =
        |part: &Part| matches!(part, Part::Header(_) | Part::Path | Part::Body | Part::FormFields(_));
    ensure(
        !parts(&kind.authentication).into_iter().any(of_request),
        "a token request cannot be signed over itself",
    )?;
    let path = |path: &str| (1..=2 * LONGEST_NAME).contains(&path.len());
    let success = request.success.as_ref().map(|(path, _)| path);
    let mut paths = [Some(&request.token), request.expires_in.as_ref(), success].into_iter().flatten();
    ensure(paths.all(|text| path(text)), "a path into its token's answer is empty or too long")?;
    let lives = (SHORTEST_LIFE..=LONGEST_LIFE).contains(&request.lifetime);
    ensure(lives, "the lifetime of its token is not between a minute and a day")
}

fn check_composition(composition: &Composition, kind: &CredentialKind) -> ManifestCheck {
    ensure(kind.secrets.len() == 1, "a credential that composes has one secret and its companions")?;
    ensure((1..=MOST_TEXTS).contains(&composition.texts.len()), "it composes no texts, or too many")?;
    composition.digest.iter().try_for_each(|digest| check_digest(digest, kind))?;
    for (index, (text, placement)) in composition.texts.iter().enumerate() {
        check_parts(&text.parts, composition.digest.is_some(), kind)?;
        check_placement(placement)?;
        let mut earlier = composition.texts.iter().take(index);
        ensure(earlier.all(|(_, other)| other.place != placement.place), "two texts have the same place")?;
    }
    Ok(())
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

/// Checks the prefix and the place. Whether a header may carry a secret is checked where components' headers are.
fn check_placement(placement: &Placement) -> ManifestCheck {
    let sound = placement.prefix.len() <= LONGEST_NAME && HeaderValue::from_str(&placement.prefix).is_ok();
    ensure(sound, "the prefix of its header makes no header value")?;
    match &placement.place {
        Place::Header(_) => Ok(()),
        // Of letters that no percent-encoding changes, and long enough not to stand in a path by chance.
        Place::Path(marker) => {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:{}".contains(&byte);
            let sound = (4..=LONGEST_NAME).contains(&marker.len()) && marker.bytes().all(letter);
            ensure(
                sound,
                "the text that stands for a secret in the path must be 4 to 64 letters, digits and -_.~:{}",
            )
        }
        Place::Query(name) | Place::FormField(name) | Place::JsonField(name) => {
            ensure(is_name(name), "the name of a field for a secret is not a name")
        }
    }
}

fn format_fits(authentication: &Authentication, format: SecretFormat) -> bool {
    let signs = match format {
        SecretFormat::Pkcs8Key | SecretFormat::ServiceAccount => true,
        SecretFormat::P256Key => {
            signed_token(authentication).is_some_and(|token| token.algorithm == SigningAlgorithm::Es256)
        }
        _ => false,
    };
    match authentication {
        Authentication::ClientCertificate => {
            matches!(format, SecretFormat::Pkcs12Identity | SecretFormat::PemIdentity)
        }
        Authentication::SignedToken(_) | Authentication::Vapid(_) => signs,
        Authentication::ExchangedToken((exchange, _)) => match exchange.grant {
            Grant::JwtBearer(_) => signs,
            Grant::ClientCredentials(_) | Grant::Custom(_) => format == SecretFormat::Text,
        },
        _ => format == SecretFormat::Text,
    }
}

fn signed_token(authentication: &Authentication) -> Option<&SignedToken> {
    match authentication {
        Authentication::SignedToken((token, _)) | Authentication::Vapid(token) => Some(token),
        Authentication::ExchangedToken((exchange, _)) => match &exchange.grant {
            Grant::JwtBearer(token) => Some(token),
            Grant::ClientCredentials(_) | Grant::Custom(_) => None,
        },
        _ => None,
    }
}

/// Checks a digest of a manifest.
fn check_digest(digest: &Digest, kind: &CredentialKind) -> ManifestCheck {
    let is_hmac = matches!(digest.algorithm, DigestAlgorithm::HmacSha1 | DigestAlgorithm::HmacSha256);
    let has_key = digest.key.as_ref().is_some_and(|key| names_text(kind, key));
    let keyed = if is_hmac { has_key } else { digest.key.is_none() };
    ensure(keyed, "an HMAC, and no other digest, has a secret as key")?;
    let readable = matches!(digest.key_encoding, Encoding::Plain | Encoding::Hex | Encoding::Base64);
    ensure(readable, "the key of its HMAC must be plain, hex or base64")?;
    ensure(digest.encoding != Encoding::Plain, "a digest is bytes and cannot stay plain")?;
    ensure(digest.join.len() <= LONGEST_NAME, "the text between its digest's parts is too long")?;
    check_parts(&digest.parts, false, kind)
}

/// Checks the parts of a text. `has_digest`: there is a digest that they may contain.
fn check_parts(parts: &[Part], has_digest: bool, kind: &CredentialKind) -> ManifestCheck {
    ensure((1..=MOST_PARTS).contains(&parts.len()), "a text has no parts, or too many")?;
    for part in parts {
        match part {
            Part::Literal(text) => ensure(text.len() <= LONGEST_LITERAL, "a literal is too long")?,
            Part::Secret(name) => {
                ensure(names_text(kind, name), "a part is not one of its secrets of the format text")?
            }
            Part::Setting(name) | Part::EncodedSetting(name) => {
                ensure(is_name(name), "a setting is not a name")?
            }
            Part::Header(name) => {
                let sound = HeaderName::from_lowercase(name.as_bytes()).is_ok();
                ensure(sound, "a signed header is not a name in lower case")?;
            }
            Part::SecondsAfter(wait) => ensure(*wait <= LONGEST_WAIT, "a time is more than a day ahead")?,
            Part::FormFields(join) => {
                ensure(join.len() <= LONGEST_NAME, "the text between fields is too long")?
            }
            Part::Digest => ensure(has_digest, "a part is a digest that is not there")?,
            Part::Seconds | Part::Milliseconds | Part::UniqueId | Part::Path | Part::Body => {}
        }
    }
    Ok(())
}

/// Returns true if the credential always has this secret, and it is a text.
fn names_text(kind: &CredentialKind, name: &str) -> bool {
    let own = kind.secrets.iter().filter(|_| kind.secrets.len() == 1);
    let mut texts = own.chain(&kind.companions).filter(|secret| secret.format == SecretFormat::Text);
    texts.any(|secret| secret.name == name)
}

/// Returns the sources of a credential's tokens, and of the requests that fetch them.
fn sources(authentication: &Authentication) -> Vec<&Source> {
    let mut sources = Vec::new();
    if let Some(token) = signed_token(authentication) {
        sources.extend(token.header.iter().chain(&token.claims).map(|(_, source)| source));
    }
    if let Authentication::ExchangedToken((exchange, _)) = authentication {
        sources.extend(&exchange.token_url);
        if let Grant::ClientCredentials(client) = &exchange.grant {
            sources.push(&client.id);
        }
    }
    sources
}

/// Returns the parts of a credential's texts, and of the requests that fetch its tokens.
fn parts(authentication: &Authentication) -> Vec<&Part> {
    match authentication {
        Authentication::Composed(composition) => {
            let texts = composition.texts.iter().flat_map(|(text, _)| &text.parts);
            texts.chain(digest_parts(&composition.digest)).collect()
        }
        Authentication::ExchangedToken((TokenExchange { grant: Grant::Custom(request), .. }, _)) => {
            let fields = request.fields.iter().flat_map(|field| &field.value.parts);
            fields.chain(digest_parts(&request.digest)).collect()
        }
        _ => Vec::new(),
    }
}

fn digest_parts(digest: &Option<Digest>) -> &[Part] {
    digest.as_ref().map_or(&[], |digest| &digest.parts)
}

fn is_name(name: &str) -> bool {
    text::is_name(name, LONGEST_NAME)
}
