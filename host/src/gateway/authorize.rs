//! Who an exchange is from: the credential's certificate or header, and the way to token endpoints.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use url::Position;

use crate::contract::manifest::{Credential as CredentialKind, ProviderManifest};
use crate::credential::{
    self, Authorization, Credential, Secret, TokenClient, TokenHandle, TokenHttpError, TokenRequest,
    TokenResponse,
};
use crate::registry::Application;
use crate::transport::{ClientCertificate, Identity, Origin, Protocol, Request, Transport};

/// What an authorization means for the request.
pub(super) struct Authorized {
    pub identity: Identity,
    pub header: Option<(HeaderName, HeaderValue)>,
    pub token: Option<TokenHandle>,
}

impl Authorized {
    /// For an exchange that needs no credential.
    pub fn anonymous() -> Self {
        Self { identity: Identity::Anonymous, header: None, token: None }
    }

    pub fn new(authorization: Authorization, application: &Application, kind: &CredentialKind) -> Self {
        match authorization {
            Authorization::ClientCertificate(certificate) => {
                Self { identity: certificate_identity(certificate), header: None, token: None }
            }
            Authorization::Header { name, value, token } => {
                Self { identity: token_identity(application, kind), header: Some((name, value)), token }
            }
        }
    }
}

/// Who an application is to the push service.
pub(super) fn identity(application: &Application, manifest: &ProviderManifest) -> Identity {
    let certificate = application.credential.as_ref().and_then(Credential::client_certificate);
    match (certificate, kind_of(manifest, application)) {
        (Some(certificate), _) => certificate_identity(certificate.clone()),
        (None, Some(kind)) => token_identity(application, kind),
        (None, None) => Identity::Anonymous,
    }
}

fn certificate_identity(certificate: credential::ClientCertificate) -> Identity {
    let credential::ClientCertificate { fingerprint, key, .. } = certificate;
    Identity::Certificate(Arc::new(ClientCertificate { fingerprint, key }))
}

/// Which applications share connections: those with the same key and the same connection settings. The
/// key is in it so that nobody can spoil another's connection by naming the same team.
fn token_identity(application: &Application, kind: &CredentialKind) -> Identity {
    let Some(credential) = &application.credential else { return Identity::Anonymous };
    let mut name = hex::encode(&credential.fingerprint()[..8]);
    for setting in &kind.connection_settings {
        let value = application.record.settings.iter().find(|(name, _)| name == setting);
        name.push(':');
        name.push_str(value.map_or("", |(_, value)| value));
    }
    Identity::Token(name.into())
}

/// The manifest's credential that the application holds.
pub(super) fn kind_of<'a>(
    manifest: &'a ProviderManifest,
    application: &Application,
) -> Option<&'a CredentialKind> {
    let name = application.record.credential.as_ref()?;
    manifest.credentials.iter().find(|kind| kind.name == *name)
}

/// Reaches token endpoints over the same transport as everything else.
pub(super) struct Tokens {
    transport: Transport,
    trusted: Arc<HashSet<Origin>>,
}

impl Tokens {
    pub fn new(transport: Transport, trusted: Arc<HashSet<Origin>>) -> Self {
        Self { transport, trusted }
    }
}

impl TokenClient for Tokens {
    fn post_form(&self, request: TokenRequest) -> BoxFuture<'static, Result<TokenResponse, TokenHttpError>> {
        let transport = self.transport.clone();
        let trusted = self.trusted.clone();
        async move {
            let failed = |error: &dyn std::fmt::Display| TokenHttpError(error.to_string());
            let origin = Origin::of(&request.url).map_err(|error| failed(&error))?;
            // The URL came with an upload: only public addresses, or what the operator named.
            let guarded = !trusted.contains(&origin);
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            let request = Request {
                tenant: request.tenant,
                origin,
                protocol: Protocol::Https,
                identity: Identity::Anonymous,
                method: Method::POST,
                path: request.url[Position::BeforePath..Position::AfterQuery].to_owned(),
                common_headers: Arc::default(),
                headers: vec![(CONTENT_TYPE, form)],
                body: Bytes::copy_from_slice(request.body.as_bytes()),
                deadline: request.deadline.into(),
                guarded,
            };
            let response = transport.send(request).await.map_err(|error| failed(&error))?;
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

/// `Retry-After` in either of its forms (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}
