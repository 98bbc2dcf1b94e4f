//! A manifest that passes is safe to act upon.

use std::collections::HashSet;

use arbitrary::{Result, Unstructured};
use pushlet_credential as credential;
use pushlet_model::contract::manifest::{
    Authentication, ClientCredentials, Credential, Derivation, Endpoint, Example, Field, Grant,
    HeaderPlacement, Origin, Property, ProviderManifest, Secret, SecretFormat, SignedToken, SigningAlgorithm,
    Source, TargetKind, TokenExchange, Transport, ValueKind,
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
        if let Some(placement) = placement(&credential.authentication) {
            assert!(!FRAMING.contains(&placement.name.as_str()), "{}", placement.name);
            assert!(placement.name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
            assert!(!placement.prefix.contains(['\r', '\n', '\0']));
        }
    }
    // The credential's own check comes to an end too, whatever it says.
    let _ = credential::check_manifest(&manifest.credentials);
}

fn placement(authentication: &Authentication) -> Option<&HeaderPlacement> {
    match authentication {
        Authentication::SignedToken((_, placement)) => Some(placement),
        Authentication::ExchangedToken((_, placement)) => Some(placement),
        Authentication::SecretHeader((_, placement)) => Some(placement),
        Authentication::ClientCertificate | Authentication::Vapid(_) => None,
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
        entropy: u.arbitrary()?,
        examples: some(u, 2, example)?,
    })
}

fn field(u: &mut Unstructured<'_>) -> Result<Field> {
    let kind = *u.choose(&[ValueKind::Text, ValueKind::Integer, ValueKind::Json])?;
    Ok(Field { name: text(u)?, kind, choices: some(u, 3, text)?, description: text(u)? })
}

fn endpoint(u: &mut Unstructured<'_>) -> Result<Endpoint> {
    let origin = if u.ratio(1, 4)? { Origin::AnyHttps } else { Origin::Fixed(text(u)?) };
    let transport = *u.choose(&[Transport::Http2, Transport::Https])?;
    Ok(Endpoint { name: text(u)?, environment: environment(u)?, transport, origin })
}

fn example(u: &mut Unstructured<'_>) -> Result<Example> {
    Ok(Example {
        settings: pairs(u)?,
        credential: perhaps(u, text)?,
        notification: text(u)?,
        target: text(u)?,
    })
}

fn credential_kind(u: &mut Unstructured<'_>) -> Result<Credential> {
    let formats = [
        SecretFormat::Pkcs12Identity,
        SecretFormat::PemIdentity,
        SecretFormat::Pkcs8Key,
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
        connection_settings: some(u, 2, text)?,
    })
}

fn authentication(u: &mut Unstructured<'_>) -> Result<Authentication> {
    let header = |u: &mut Unstructured<'_>| Ok(HeaderPlacement { name: text(u)?, prefix: text(u)? });
    Ok(match u.int_in_range(0..=4)? {
        0 => Authentication::ClientCertificate,
        1 => Authentication::SignedToken((signed_token(u)?, header(u)?)),
        2 => {
            let grant = if u.arbitrary()? {
                Grant::JwtBearer(signed_token(u)?)
            } else {
                Grant::ClientCredentials(ClientCredentials { id: source(u)?, secret: text(u)? })
            };
            let (token_url, scope) = (source(u)?, perhaps(u, text)?);
            let exchange = TokenExchange { token_url, scope, grant, refresh_before: u.arbitrary()? };
            Authentication::ExchangedToken((exchange, header(u)?))
        }
        3 => Authentication::SecretHeader((text(u)?, header(u)?)),
        _ => Authentication::Vapid(signed_token(u)?),
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
