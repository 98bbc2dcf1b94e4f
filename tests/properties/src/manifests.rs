//! A manifest that passes is safe to act upon.

use std::collections::HashSet;

use arbitrary::{Result, Unstructured};
use pushlet_credential as credential;
use pushlet_model::contract::manifest::{
    Authentication, BodyFormat, ClientAuthentication, ClientCredentials, ComposedText, Composition,
    Credential, Derivation, Digest, DigestAlgorithm, Encoding, Endpoint, Example, Field, Grant, Origin, Part,
    Place, Placement, Property, ProviderManifest, RequestField, Secret, SecretFormat, SignedToken,
    SigningAlgorithm, Source, TargetKind, TokenExchange, TokenRequest, Transport, ValueKind,
};
use pushlet_sandbox as provider;
use url::Url;

use crate::contract::{environment, pairs, perhaps, some, text};

/// Headers that decide where a request goes and where it ends.
const FRAMING: &[&str] =
    &["host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "expect"];

/// The check of manifests lets nothing pass that the host could not act upon safely.
pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) = arbitrary(&mut Unstructured::new(bytes)) else { return };
    if provider::check_manifest(&manifest).is_err() {
        return;
    }
    let mut endpoints = HashSet::new();
    for endpoint in &manifest.endpoints {
        assert!(endpoints.insert((&endpoint.name, endpoint.environment as u8)), "two of a name");
        if let Origin::Fixed(origin) = &endpoint.origin {
            let url = Url::parse(origin).expect("an origin is a URL");
            assert_eq!(url.scheme(), "https");
            assert!(url.username().is_empty() && url.password().is_none() && url.path() == "/");
            assert!(origin.bytes().all(|byte| byte.is_ascii_graphic()), "{origin:?}");
        }
    }
    assert!(!manifest.endpoints.is_empty() && !manifest.name.is_empty());
    for credential in &manifest.credentials {
        for placement in placements(&credential.authentication) {
            if let Place::Header(name) = &placement.place {
                assert!(!FRAMING.contains(&name.as_str()), "{name}");
                assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
            }
            assert!(!placement.prefix.contains(['\r', '\n', '\0']));
        }
    }
    // The credential's own check comes to an end too, whatever it says.
    let _ = credential::check_manifest(&manifest.credentials);
}

fn placements(authentication: &Authentication) -> Vec<&Placement> {
    match authentication {
        Authentication::SignedToken((_, placement)) => vec![placement],
        Authentication::ExchangedToken((_, placement)) => vec![placement],
        Authentication::Secret((_, placement)) => vec![placement],
        Authentication::Composed(composition) => {
            composition.texts.iter().map(|(_, placement)| placement).collect()
        }
        Authentication::ClientCertificate | Authentication::Vapid(_) | Authentication::InStream => Vec::new(),
    }
}

fn arbitrary(u: &mut Unstructured<'_>) -> Result<ProviderManifest> {
    Ok(ProviderManifest {
        name: text(u)?,
        title: text(u)?,
        vendor: text(u)?,
        version: text(u)?,
        description: text(u)?,
        also_answers: some(u, 2, text)?,
        settings: some(u, 3, field)?,
        credentials: some(u, 2, credential_kind)?,
        options: some(u, 3, field)?,
        targets: some(u, 3, |u| Ok(*u.choose(&[TargetKind::Device, TargetKind::Topic, TargetKind::Url])?))?,
        endpoints: some(u, 3, endpoint)?,
        targets_per_exchange: u.arbitrary()?,
        targets_per_call: u.arbitrary()?,
        target_options: some(u, 2, field)?,
        environments: some(u, 2, environment)?,
        response_headers: some(u, 2, text)?,
        entropy: u.arbitrary()?,
        examples: some(u, 2, example)?,
    })
}

fn field(u: &mut Unstructured<'_>) -> Result<Field> {
    let kind = *u.choose(&[ValueKind::Text, ValueKind::Integer, ValueKind::Json])?;
    Ok(Field {
        name: text(u)?,
        kind,
        required: u.arbitrary()?,
        choices: some(u, 3, text)?,
        default: perhaps(u, text)?,
        minimum: u.arbitrary()?,
        maximum: u.arbitrary()?,
        max_length: u.arbitrary()?,
        unit: perhaps(u, text)?,
        description: text(u)?,
    })
}

fn endpoint(u: &mut Unstructured<'_>) -> Result<Endpoint> {
    let origin = match u.int_in_range(0..=5)? {
        0 => Origin::AnyHttps,
        1 => Origin::Configured,
        _ => Origin::Fixed(text(u)?),
    };
    let transport = *u.choose(&[Transport::Http2, Transport::Https, Transport::Tls])?;
    Ok(Endpoint { name: text(u)?, environment: environment(u)?, transport, origin })
}

fn example(u: &mut Unstructured<'_>) -> Result<Example> {
    Ok(Example {
        settings: pairs(u)?,
        credential: perhaps(u, text)?,
        notification: text(u)?,
        target: text(u)?,
        target_options: pairs(u)?,
    })
}

fn credential_kind(u: &mut Unstructured<'_>) -> Result<Credential> {
    let formats = [
        SecretFormat::Pkcs12Identity,
        SecretFormat::PemIdentity,
        SecretFormat::Pkcs8Key,
        SecretFormat::P256Key,
        SecretFormat::ServiceAccount,
        SecretFormat::Text,
    ];
    let secret = |u: &mut Unstructured<'_>| {
        let format = *u.choose(&formats)?;
        Ok(Secret { name: text(u)?, format, password: perhaps(u, text)?, description: text(u)? })
    };
    let derivation = |u: &mut Unstructured<'_>| {
        let property = match u.int_in_range(0..=2)? {
            0 => Property::CertificateSubjectUid,
            1 => Property::CertificateTopics,
            _ => Property::ServiceAccountProperty(text(u)?),
        };
        Ok(Derivation { setting: text(u)?, property })
    };
    Ok(Credential {
        name: text(u)?,
        secrets: some(u, 2, secret)?,
        authentication: authentication(u)?,
        required_settings: some(u, 2, text)?,
        derivations: some(u, 2, derivation)?,
        inline: u.arbitrary()?,
        companions: some(u, 1, secret)?,
        connection_settings: some(u, 2, text)?,
    })
}

fn placement(u: &mut Unstructured<'_>) -> Result<Placement> {
    let name = text(u)?;
    let place = match u.int_in_range(0..=4)? {
        0 => Place::Path(name),
        1 => Place::Query(name),
        2 => Place::FormField(name),
        3 => Place::JsonField(name),
        _ => Place::Header(name),
    };
    Ok(Placement { place, prefix: text(u)? })
}

fn authentication(u: &mut Unstructured<'_>) -> Result<Authentication> {
    Ok(match u.int_in_range(0..=6)? {
        0 => Authentication::ClientCertificate,
        6 => Authentication::InStream,
        1 => Authentication::SignedToken((signed_token(u)?, placement(u)?)),
        2 => {
            let authentication = *u.choose(&[ClientAuthentication::Body, ClientAuthentication::Basic])?;
            let grant = match u.int_in_range(0..=2)? {
                0 => Grant::JwtBearer(signed_token(u)?),
                1 => {
                    let (id, secret) = (source(u)?, text(u)?);
                    Grant::ClientCredentials(ClientCredentials { id, secret, authentication })
                }
                _ => Grant::Custom(token_request(u)?),
            };
            let exchange = TokenExchange {
                token_url: some(u, 3, source)?,
                scope: perhaps(u, text)?,
                grant,
                refresh_before: u.arbitrary()?,
                minimum_age: u.arbitrary()?,
            };
            Authentication::ExchangedToken((exchange, placement(u)?))
        }
        3 => Authentication::Secret((text(u)?, placement(u)?)),
        4 => {
            let composed = |u: &mut Unstructured<'_>| Ok((composed_text(u)?, placement(u)?));
            Authentication::Composed(Composition {
                digest: perhaps(u, digest)?,
                texts: some(u, 3, composed)?,
            })
        }
        _ => Authentication::Vapid(signed_token(u)?),
    })
}

fn token_request(u: &mut Unstructured<'_>) -> Result<TokenRequest> {
    let field = |u: &mut Unstructured<'_>| {
        Ok(RequestField { name: text(u)?, value: composed_text(u)?, number: u.arbitrary()? })
    };
    Ok(TokenRequest {
        format: *u.choose(&[BodyFormat::Form, BodyFormat::Json])?,
        fields: some(u, 3, field)?,
        digest: perhaps(u, digest)?,
        token: text(u)?,
        expires_in: perhaps(u, text)?,
        lifetime: u.arbitrary()?,
        success: perhaps(u, |u| Ok((text(u)?, text(u)?)))?,
    })
}

fn encoding(u: &mut Unstructured<'_>) -> Result<Encoding> {
    let all =
        [Encoding::Plain, Encoding::Hex, Encoding::Base64, Encoding::Base64url, Encoding::Base64Percent];
    Ok(*u.choose(&all)?)
}

fn digest(u: &mut Unstructured<'_>) -> Result<Digest> {
    let algorithms = [
        DigestAlgorithm::Md5,
        DigestAlgorithm::Sha1,
        DigestAlgorithm::Sha256,
        DigestAlgorithm::HmacSha1,
        DigestAlgorithm::HmacSha256,
    ];
    Ok(Digest {
        algorithm: *u.choose(&algorithms)?,
        key: perhaps(u, text)?,
        key_encoding: encoding(u)?,
        parts: some(u, 3, part)?,
        join: text(u)?,
        encoding: encoding(u)?,
    })
}

fn composed_text(u: &mut Unstructured<'_>) -> Result<ComposedText> {
    Ok(ComposedText { parts: some(u, 3, part)?, encoding: encoding(u)? })
}

fn part(u: &mut Unstructured<'_>) -> Result<Part> {
    Ok(match u.int_in_range(0..=12)? {
        0 => Part::Literal(text(u)?),
        1 => Part::Setting(text(u)?),
        2 => Part::EncodedSetting(text(u)?),
        3 => Part::Secret(text(u)?),
        4 => Part::Seconds,
        5 => Part::Milliseconds,
        6 => Part::SecondsAfter(u.arbitrary()?),
        7 => Part::UniqueId,
        8 => Part::Header(text(u)?),
        9 => Part::Path,
        10 => Part::Body,
        11 => Part::FormFields(text(u)?),
        _ => Part::Digest,
    })
}

fn signed_token(u: &mut Unstructured<'_>) -> Result<SignedToken> {
    let algorithms = [SigningAlgorithm::Es256, SigningAlgorithm::Rs256, SigningAlgorithm::Ps256];
    let claim = |u: &mut Unstructured<'_>| Ok((text(u)?, source(u)?));
    Ok(SignedToken {
        key: text(u)?,
        algorithm: *u.choose(&algorithms)?,
        header: some(u, 2, claim)?,
        claims: some(u, 3, claim)?,
        lifetime: u.arbitrary()?,
        minimum_age: u.arbitrary()?,
    })
}

fn source(u: &mut Unstructured<'_>) -> Result<Source> {
    Ok(match u.int_in_range(0..=6)? {
        0 => Source::Literal(text(u)?),
        1 => Source::Setting(text(u)?),
        2 => Source::SecretProperty((text(u)?, text(u)?)),
        3 => Source::IssuedAt,
        4 => Source::ExpiresAt,
        5 => Source::UniqueId,
        _ => Source::TargetOrigin,
    })
}
