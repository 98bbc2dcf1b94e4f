//! With which identity and header an exchange is sent; and the HTTP client for token endpoints.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::uri::{InvalidUri, PathAndQuery};
use url::Position;

use pushlet_credential::{
    self as credential, Authorization, Credential, Secret, TokenClient, TokenHandle, TokenHttpError,
    TokenRequest, TokenResponse,
};
use pushlet_model::contract::manifest::{Credential as CredentialKind, ProviderManifest};
use pushlet_model::digest::DigestParts;
use pushlet_model::tenant::TenantId;
use pushlet_registry::{ConnectionIdentity, RegisteredApplication};
use pushlet_transport::{
    ClientIdentity, FailureCause, Origin, OriginError, Protocol, Request, SendError, TlsCertificate,
    Transport,
};

/// The identity and the header that authorise a request.
pub(super) struct RequestAuthorization {
    pub identity: ClientIdentity,
    pub header: Option<(HeaderName, HeaderValue)>,
    pub token: Option<TokenHandle>,
}

impl RequestAuthorization {
    /// Returns what an exchange without a credential needs.
    pub fn anonymous() -> Self {
        Self { identity: ClientIdentity::Anonymous, header: None, token: None }
    }

    pub fn new(
        authorization: Authorization,
        tenant: &TenantId,
        application: &RegisteredApplication,
        kind: &CredentialKind,
    ) -> Self {
        let digest = connection_digest(tenant, application, kind);
        match authorization {
            Authorization::ClientCertificate(certificate) => {
                Self { identity: certificate_identity(certificate, digest), header: None, token: None }
            }
            Authorization::Header { name, value, token } => {
                Self { identity: ClientIdentity::Token(digest), header: Some((name, value)), token }
            }
        }
    }
}

/// Returns an application's identity towards the push service.
pub(super) fn identity(
    tenant: &TenantId,
    application: &RegisteredApplication,
    manifest: &ProviderManifest,
) -> ClientIdentity {
    let Some(kind) = kind_of(manifest, application) else { return ClientIdentity::Anonymous };
    let digest = connection_digest(tenant, application, kind);
    match application.credential.as_ref().map(Credential::client_certificate) {
        Some(Some(certificate)) => certificate_identity(certificate.clone(), digest),
        Some(None) => ClientIdentity::Token(digest),
        None => ClientIdentity::Anonymous,
    }
}

fn certificate_identity(certificate: credential::ClientCertificate, digest: [u8; 32]) -> ClientIdentity {
    ClientIdentity::Certificate(Arc::new(TlsCertificate { digest, key: certificate.key }))
}

/// Returns the digest of what applications must have in common to share connections: tenant, provider,
/// credential and connection settings. The credential is part of it so that no application can spoil
/// another's connection by naming the same team. It is computed once for each application, since every push
/// needs it.
fn connection_digest(
    tenant: &TenantId,
    application: &RegisteredApplication,
    kind: &CredentialKind,
) -> [u8; 32] {
    let of = || connection_identity(tenant, application, kind);
    let known = application.identity.get_or_init(of);
    // A new version of the provider may name other settings.
    if known.settings == kind.connection_settings { known.digest } else { of().digest }
}

fn connection_identity(
    tenant: &TenantId,
    application: &RegisteredApplication,
    kind: &CredentialKind,
) -> ConnectionIdentity {
    let mut parts = DigestParts::new();
    for part in [tenant.as_str(), &application.provider, &kind.name] {
        parts.add(part.as_bytes());
    }
    parts.add(application.credential.as_ref().map_or(&[], |credential| credential.fingerprint().as_slice()));
    for setting in &kind.connection_settings {
        let value = application.record.settings.iter().find(|(name, _)| name == setting);
        parts.add(setting.as_bytes());
        parts.add(value.map_or("", |(_, value)| value).as_bytes());
    }
    ConnectionIdentity { settings: kind.connection_settings.clone(), digest: parts.finish() }
}

/// Returns the manifest's credential that the application holds.
pub(super) fn kind_of<'a>(
    manifest: &'a ProviderManifest,
    application: &RegisteredApplication,
) -> Option<&'a CredentialKind> {
    let name = application.record.credential.as_ref()?;
    manifest.credentials.iter().find(|kind| kind.name == *name)
}

/// Sends requests to token endpoints over the same transport as pushes.
pub(super) struct Tokens {
    transport: Transport,
}

impl Tokens {
    pub fn new(transport: Transport) -> Self {
        Self { transport }
    }
}

impl TokenClient for Tokens {
    fn post_form(&self, request: TokenRequest) -> BoxFuture<'static, Result<TokenResponse, TokenHttpError>> {
        let transport = self.transport.clone();
        async move {
            let no_origin = |error: OriginError| TokenHttpError {
                reason: "its URL has no origin".to_owned(),
                detail: error.to_string(),
                forbidden: true,
            };
            let origin = Origin::of(&request.url).map_err(no_origin)?;
            let path = PathAndQuery::try_from(&request.url[Position::BeforePath..Position::AfterQuery]);
            let no_path = |error: InvalidUri| TokenHttpError {
                reason: "its URL has no path".to_owned(),
                detail: error.to_string(),
                forbidden: false,
            };
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            let request = Request {
                tenant: request.tenant,
                origin,
                protocol: Protocol::Https,
                identity: ClientIdentity::Anonymous,
                method: Method::POST,
                path: path.map_err(no_path)?,
                common_headers: Arc::default(),
                headers: vec![(CONTENT_TYPE, form)],
                body: Bytes::copy_from_slice(request.body.as_bytes()),
                deadline: request.deadline.into(),
                // The credential may name the URL, so only the operator's own endpoints may be private.
                guarded: request.guarded,
                payer: None,
            };
            let response = transport.send(request).await.map_err(unanswered)?;
            let retry_after = retry_after(&response.headers, SystemTime::now());
            Ok(TokenResponse {
                status: response.status,
                retry_after,
                body: Secret::new(response.body.into()),
            })
        }
        .boxed()
    }
}

fn unanswered(error: SendError) -> TokenHttpError {
    let forbidden = error.cause == FailureCause::ForbiddenAddress;
    TokenHttpError { reason: error.reason(), detail: error.to_string(), forbidden }
}

/// Reads `Retry-After` in either of its forms (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use tokio::sync::Semaphore;

    use super::*;
    use pushlet_model::contract::manifest::Authentication;
    use pushlet_model::contract::{self, Environment};
    use pushlet_registry::FeedbackList;

    fn kind(name: &str, connection_settings: &[&str]) -> CredentialKind {
        CredentialKind {
            name: name.to_owned(),
            secrets: Vec::new(),
            authentication: Authentication::ClientCertificate,
            derivations: Vec::new(),
            required_settings: Vec::new(),
            inline: false,
            connection_settings: connection_settings.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn application(provider: &str, settings: &[(&str, &str)]) -> RegisteredApplication {
        let setting = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        RegisteredApplication {
            record: contract::Application {
                id: "app".to_owned(),
                environment: Environment::Production,
                settings: settings.iter().map(setting).collect(),
                credential: None,
            },
            provider: provider.to_owned(),
            credential: None,
            feedback: Arc::new(FeedbackList::new(1)),
            places: Arc::new(Semaphore::new(1)),
            identity: OnceLock::new(),
            unreached: pushlet_model::error::RepeatedWarning::default(),
        }
    }

    /// Tenant, provider, credential, and settings.
    type Of<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

    #[test]
    fn identities_whose_parts_concatenate_equally_differ() {
        let of: [Of<'_>; 8] = [
            ("acme", "apns", "token", &[("a", "x:y"), ("b", "z")]),
            ("acme", "apns", "token", &[("a", "x"), ("b", "y:z")]),
            ("acme", "apns", "token", &[("a", "x:y:z"), ("b", "")]),
            ("acme", "apns", "token", &[("a", "x:yz")]),
            ("acmea", "pns", "token", &[("a", "x:y"), ("b", "z")]),
            ("acme", "apnst", "oken", &[("a", "x:y"), ("b", "z")]),
            ("acme", "apns", "tokena", &[("", "x:y"), ("b", "z")]),
            ("other", "apns", "token", &[("a", "x:y"), ("b", "z")]),
        ];
        let mut digests: Vec<[u8; 32]> = Vec::new();
        for (tenant, provider, credential, settings) in of {
            let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
            let tenant = TenantId::new(tenant);
            let of =
                || connection_digest(&tenant, &application(provider, settings), &kind(credential, &names));
            assert_eq!(of(), of(), "the same parts are the same identity");
            digests.push(of());
        }
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), of.len());
    }

    #[test]
    fn only_connection_settings_count_and_a_new_version_may_name_others() {
        let tenant = TenantId::new("acme");
        let application = application("apns", &[("team", "T"), ("topic", "one")]);
        let by_team = connection_digest(&tenant, &application, &kind("token", &["team"]));
        let by_topic = connection_digest(&tenant, &application, &kind("token", &["topic"]));
        assert_ne!(by_team, by_topic);
        assert_eq!(by_team, connection_digest(&tenant, &application, &kind("token", &["team"])));
        let other = self::application("apns", &[("team", "T"), ("topic", "two")]);
        assert_eq!(by_team, connection_digest(&tenant, &other, &kind("token", &["team"])));
    }
}
