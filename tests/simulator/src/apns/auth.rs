//! Who sends: a client certificate or a provider token.

use std::sync::PoisonError;

use http::HeaderMap;

use super::ApnsState;
use super::headers::{self, Refusal};
use super::jwt::ProviderToken;
use super::server::ApnsConnection;
use crate::Environment;
use crate::clock::unix_seconds;
use crate::tls::ClientIdentity;

/// A credential that APNs accepts.
pub(super) enum Credential<'a> {
    /// The connection's certificate; it stands for its topics.
    Certificate(&'a ClientIdentity),
    /// A provider token; it stands for all topics of its team.
    Token,
}

/// The request's credential. With a client certificate, `authorization` is ignored.
pub(super) fn check<'a>(
    apns: &ApnsState,
    connection: &'a ApnsConnection,
    headers: &HeaderMap,
) -> Result<Credential<'a>, Refusal> {
    match &connection.identity {
        Some(identity) => certificate(connection.environment, identity),
        None => token(apns, connection, headers),
    }
}

fn certificate(environment: Environment, identity: &ClientIdentity) -> Result<Credential<'_>, Refusal> {
    let (right, wrong) = match environment {
        Environment::Development => (identity.development, identity.production),
        Environment::Production => (identity.production, identity.development),
    };
    match (right, wrong) {
        _ if identity.topics.is_empty() => Err(Refusal("BadCertificate")),
        (true, _) => Ok(Credential::Certificate(identity)),
        (false, true) => Err(Refusal("BadCertificateEnvironment")),
        (false, false) => Err(Refusal("BadCertificate")),
    }
}

fn token<'a>(
    apns: &ApnsState,
    connection: &'a ApnsConnection,
    headers: &HeaderMap,
) -> Result<Credential<'a>, Refusal> {
    let value = headers::text(headers, "authorization").ok_or(Refusal("MissingProviderToken"))?;
    let raw = value.strip_prefix("bearer").ok_or(Refusal("InvalidProviderToken"))?.trim();
    if raw.is_empty() {
        return Err(Refusal("MissingProviderToken"));
    }
    let now = unix_seconds();
    let current = || connection.token.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(token) = current().as_ref().filter(|token| token.raw == raw) {
        return token.check_age(now).map(|()| Credential::Token);
    }
    // Verifying takes long enough to do it outside the lock.
    let token = ProviderToken::verify(raw, |key_id| apns.key(key_id))?;
    token.check_age(now)?;
    let mut current = current();
    if let Some(previous) = current.as_ref().filter(|previous| previous.raw != raw) {
        token.check_renewal(previous)?;
    }
    *current = Some(token);
    Ok(Credential::Token)
}
