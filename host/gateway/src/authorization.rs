//! With which identity and header an exchange is sent, and where a secret stands in it: in a header, the path, the query, a
//! form or JSON; and the HTTP client for token endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::uri::{InvalidUri, PathAndQuery};
use percent_encoding::percent_encode;
use serde::de::IgnoredAny;
use serde_json::Value;
use url::{Position, form_urlencoded};

use pushlet_credential::{
    self as credential, Authorization, Credential, Secret, TokenClient, TokenHandle, TokenHttpError,
    TokenRequest, TokenResponse,
};
use pushlet_model::contract::manifest::{Credential as CredentialKind, Place, ProviderManifest};
use pushlet_model::digest::DigestParts;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_registry::{ConnectionIdentity, RegisteredApplication};
use pushlet_transport::{
    ClientIdentity, FailureCause, Origin, OriginError, Protocol, Request, SendError, TlsCertificate,
    Transport,
};

/// The identity, the header and the texts that authorise a request.
pub(super) struct RequestAuthorization {
    pub identity: ClientIdentity,
    pub header: Option<(HeaderName, HeaderValue)>,
    /// What stands elsewhere in the request.
    pub texts: Vec<(Place, HeaderValue)>,
    pub token: Option<TokenHandle>,
}

impl RequestAuthorization {
    /// Returns what an exchange without a credential needs.
    pub fn anonymous() -> Self {
        Self::of(ClientIdentity::Anonymous)
    }

    fn of(identity: ClientIdentity) -> Self {
        Self { identity, header: None, texts: Vec::new(), token: None }
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
                Self::of(certificate_identity(certificate, digest))
            }
            Authorization::Header { name, value, token } => {
                let header = Some((name, value));
                Self { header, token, ..Self::of(ClientIdentity::Token(digest)) }
            }
            Authorization::Placed { texts, token } => {
                Self { texts, token, ..Self::of(ClientIdentity::Token(digest)) }
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
    fn post(&self, request: TokenRequest) -> BoxFuture<'static, Result<TokenResponse, TokenHttpError>> {
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
            let content_type = (CONTENT_TYPE, HeaderValue::from_static(request.content_type));
            let authorization = request.authorization.map(|value| (AUTHORIZATION, value));
            let request = Request {
                tenant: request.tenant,
                origin,
                protocol: Protocol::Https,
                identity: ClientIdentity::Anonymous,
                method: Method::POST,
                path: path.map_err(no_path)?,
                common_headers: Arc::default(),
                headers: std::iter::once(content_type).chain(authorization).collect(),
                body: Bytes::copy_from_slice(request.body.as_bytes()),
                deadline: request.deadline.into(),
                // The credential may name the URL, so only the operator's own endpoints may be private.
                guarded: request.guarded,
                payer: None,
            };
            let response = transport.send(&request).await.map_err(unanswered)?;
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

/// The parts of a request that a secret may stand in.
pub(super) struct RequestParts {
    pub path: PathAndQuery,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl RequestParts {
    /// Writes the texts into their places. An error says what the component wrote that does not fit.
    pub fn place(&mut self, texts: Vec<(Place, HeaderValue)>) -> Result<(), Error> {
        for (place, value) in texts {
            let placed = match &place {
                Place::Header(name) => HeaderName::from_bytes(name.as_bytes())
                    .map(|name| self.headers.push((name, value)))
                    .map_err(|_| "a header for a secret has no valid name"),
                Place::Path(marker) => self.in_path(marker, &value),
                Place::Query(name) => self.in_query(name, &value),
                Place::FormField(name) => self.in_form(name, &value),
                Place::JsonField(name) => self.in_json(name, &value),
            };
            placed.map_err(|why| {
                let message = format!("the provider's answer breaks the contract: {why}");
                Error::new(Kind::Provider, "provider_bad_output", message)
            })?;
        }
        Ok(())
    }

    fn in_path(&mut self, marker: &str, value: &HeaderValue) -> Result<(), &'static str> {
        let (path, query) = (self.path.path(), self.path.query());
        let (before, behind) = path.split_once(marker).ok_or("its path has no place for the secret")?;
        if behind.contains(marker) {
            return Err("its path has more than one place for the secret");
        }
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        self.set_path(&[before, &percent_encoded(value), behind, &query].concat())
    }

    fn in_query(&mut self, name: &str, value: &HeaderValue) -> Result<(), &'static str> {
        let query = self.path.query().unwrap_or_default();
        if form_urlencoded::parse(query.as_bytes()).any(|(known, _)| known == name) {
            return Err("its query has the parameter that is for the secret");
        }
        let joint = if self.path.query().is_none() { '?' } else { '&' };
        self.set_path(&format!("{}{joint}{name}={}", self.path, percent_encoded(value)))
    }

    fn set_path(&mut self, path: &str) -> Result<(), &'static str> {
        self.path = PathAndQuery::try_from(path).map_err(|_| "its path is too long for the secret")?;
        Ok(())
    }

    fn in_form(&mut self, name: &str, value: &HeaderValue) -> Result<(), &'static str> {
        if form_urlencoded::parse(&self.body).any(|(known, _)| known == name) {
            return Err("its form has the field that is for the secret");
        }
        let joint = if self.body.is_empty() { "" } else { "&" };
        let field = format!("{joint}{name}={}", percent_encoded(value));
        self.body = [&self.body, field.as_bytes()].concat().into();
        Ok(())
    }

    fn in_json(&mut self, name: &str, value: &HeaderValue) -> Result<(), &'static str> {
        let members: BTreeMap<String, IgnoredAny> =
            serde_json::from_slice(&self.body).map_err(|_| "its body is not a JSON object")?;
        if members.contains_key(name) {
            return Err("its body has the member that is for the secret");
        }
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| "the secret is not UTF-8")?;
        let joint = if members.is_empty() { "" } else { "," };
        let member = format!("{{{}:{}{joint}", Value::from(name), Value::from(text));
        let rest = self.body.trim_ascii_start().get(1..).unwrap_or_default();
        self.body = [member.as_bytes(), rest].concat().into();
        Ok(())
    }
}

fn percent_encoded(value: &HeaderValue) -> String {
    percent_encode(value.as_bytes(), credential::RESERVED).to_string()
}

#[cfg(test)]
#[path = "authorization_tests.rs"]
mod tests;
