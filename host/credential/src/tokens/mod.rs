//! The authentication that the host adds to requests: a client certificate, a secret, or a token that is signed here or
//! fetched from a token endpoint.

mod access_tokens;
pub(crate) mod composition;
mod grant;
mod jwt;
mod provider_tokens;
pub(crate) mod token;
pub(crate) mod token_endpoint;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use token::{AuthorizeError, ClockReading, TokenHandle, TokenId, TokenSource, sensitive};
use token_endpoint::{TokenClient, TokenTrust};

use super::credential::Credential;
use super::files::identity::ClientCertificate;
use access_tokens::{AccessTokens, TokenFetch};
use composition::{ComposedRequest, Composer};
use grant::{ResolvedGrant, token_key, token_url};
use jwt::{HeaderFrame, SigningJob, TokenInputs};
use provider_tokens::{MintRequest, ProviderTokens};
use pushlet_model::contract::CredentialFault;
use pushlet_model::contract::manifest::{
    Authentication, Credential as CredentialKind, Place, Placement, SignedToken, TokenExchange,
};
use pushlet_model::digest::DigestParts;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Accounts;

/// The authentication that the host adds to a request.
pub enum Authorization {
    /// The connection must be made with this certificate.
    ClientCertificate(ClientCertificate),
    Header {
        name: HeaderName,
        /// Marked sensitive: neither logged nor put into header compression tables.
        value: HeaderValue,
        /// For [`Authorizer::refused`]; none for a secret that does not age.
        token: Option<TokenHandle>,
    },
    /// Texts that stand elsewhere in the request, or several of them. Their values are marked sensitive.
    Placed { texts: Vec<(Place, HeaderValue)>, token: Option<TokenHandle> },
}

/// Numbers of tokens since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenCounts {
    /// Signed by this host.
    pub minted: u64,
    /// Requests to token endpoints.
    pub fetches: u64,
    /// Those among them that gave no token.
    pub failed_fetches: u64,
}

/// The request to be authenticated.
#[derive(Clone, Copy)]
pub struct AuthorizeRequest<'a> {
    /// The tenant that is charged for the signature and for the cached token.
    pub tenant: &'a TenantId,
    pub credential: &'a Credential,
    /// The credential's kind, from the provider's manifest.
    pub kind: &'a CredentialKind,
    /// The application's settings, derived ones included.
    pub settings: &'a [(String, String)],
    /// `https://host[:port]` of the target.
    pub origin: &'a str,
    pub token_trust: &'a dyn TokenTrust,
    /// What a composition may be about; None where nothing is sent.
    pub request: Option<ComposedRequest<'a>>,
}

/// Creates authorizations, and owns the tokens of the whole process.
pub struct Authorizer {
    provider_tokens: ProviderTokens,
    access_tokens: AccessTokens,
    accounts: Arc<Accounts>,
}

impl Authorizer {
    pub fn new(client: Arc<dyn TokenClient>, accounts: Arc<Accounts>) -> Self {
        let (provider_tokens, access_tokens) = (ProviderTokens::new(), AccessTokens::new(client));
        Self { provider_tokens, access_tokens, accounts }
    }

    pub fn counts(&self) -> TokenCounts {
        let (fetches, failed_fetches) = self.access_tokens.counts();
        TokenCounts { minted: self.provider_tokens.minted(), fetches, failed_fetches }
    }

    /// Drops the tokens of a removed tenant.
    pub fn release(&self, tenant: &TenantId, now: &ClockReading) {
        self.provider_tokens.release(tenant, now);
        self.access_tokens.release(tenant);
    }

    /// Returns the authentication of one exchange. Waits only if a token must be signed or fetched, until `deadline`.
    pub async fn authorize(
        &self,
        exchange: AuthorizeRequest<'_>,
        now: &ClockReading,
        deadline: Instant,
    ) -> Result<Authorization, AuthorizeError> {
        match &exchange.kind.authentication {
            Authentication::ClientCertificate => certificate(exchange),
            Authentication::SignedToken((token, placement)) => {
                let frame = HeaderFrame::Prefix(&placement.prefix);
                let (value, handle) = self.signed(exchange, token, frame, now, deadline).await?;
                placed(&placement.place, value, Some(handle))
            }
            Authentication::ExchangedToken((token, place)) => {
                self.exchanged(exchange, token, place, now, deadline).await
            }
            Authentication::Secret((secret, placement)) => plain_secret(exchange, secret, placement),
            // The secrets are written into the stream, not added to a request.
            Authentication::InStream => Ok(Authorization::Placed { texts: Vec::new(), token: None }),
            Authentication::Composed(composition) => {
                let texts = Composer::new(exchange.facts(), exchange.request, now).texts(composition)?;
                Ok(Authorization::Placed { texts, token: None })
            }
            Authentication::Vapid(token) => {
                let (value, token) = self.signed(exchange, token, HeaderFrame::Vapid, now, deadline).await?;
                Ok(Authorization::Header { name: AUTHORIZATION, value, token: Some(token) })
            }
        }
    }

    /// Checks that everything is there that [`Authorizer::authorize`] needs. Signs nothing, and calls no token
    /// endpoint.
    pub fn check(&self, exchange: AuthorizeRequest<'_>) -> Result<(), AuthorizeError> {
        let signed = |token: &SignedToken| {
            let key = token_key(exchange.credential, &token.key)?;
            SigningJob::new(token, key, exchange.facts()).map(drop)
        };
        match &exchange.kind.authentication {
            Authentication::ClientCertificate => certificate(exchange).map(drop),
            Authentication::InStream => Ok(()),
            Authentication::SignedToken((token, _)) | Authentication::Vapid(token) => signed(token),
            Authentication::ExchangedToken((token, _)) => {
                token_url(exchange.facts(), token)?;
                let grant = ResolvedGrant::new(&token.grant, exchange.facts())?;
                grant.form(token.scope.as_deref(), &ClockReading::now()).map(drop)
            }
            Authentication::Secret((secret, placement)) => {
                plain_secret(exchange, secret, placement).map(drop)
            }
            Authentication::Composed(composition) => {
                let composer = Composer::new(exchange.facts(), exchange.request, &ClockReading::now());
                composer.texts(composition).map(drop)
            }
        }
    }

    /// Handles a token that the service refused. Returns true if the exchange is worth one more try with a new
    /// authorization. An expired token is given up if its age allows; a refused credential is the
    /// operator's to mend, and a new token would not change it.
    pub fn refused(&self, token: &TokenHandle, fault: CredentialFault, now: &ClockReading) -> bool {
        match (fault, token.origin) {
            // A new token of the same key would be refused too.
            (CredentialFault::Refused, _) => false,
            (CredentialFault::Expired, TokenSource::Minted) => {
                self.provider_tokens.expired(&token.id, token.serial, now)
            }
            (CredentialFault::Expired, TokenSource::Fetched) => {
                self.access_tokens.expired(&token.id, token.serial, now)
            }
        }
    }

    async fn signed(
        &self,
        exchange: AuthorizeRequest<'_>,
        token: &SignedToken,
        frame: HeaderFrame<'_>,
        now: &ClockReading,
        deadline: Instant,
    ) -> Result<(HeaderValue, TokenHandle), AuthorizeError> {
        let key = token_key(exchange.credential, &token.key)?;
        let facts = exchange.facts();
        let id = exchange.token_id(|| {
            Ok(DigestParts::of(&[key.fingerprint(), &jwt::digest(token, facts)?, frame.name().as_bytes()]))
        })?;
        match self.provider_tokens.current(exchange.tenant, id, now)? {
            Some(current) => Ok(current),
            None => {
                let account = self.accounts.of(exchange.tenant);
                let job = || SigningJob::new(token, key, facts);
                let mint = MintRequest {
                    tenant: exchange.tenant,
                    id,
                    token,
                    account,
                    job: &job,
                    frame: frame.parts(key),
                };
                // Few callers wait, so this future is boxed: every send holds the room for what is inline.
                Box::pin(self.provider_tokens.get(mint, now, deadline)).await
            }
        }
    }

    async fn exchanged(
        &self,
        exchange: AuthorizeRequest<'_>,
        token: &TokenExchange,
        place: &Placement,
        now: &ClockReading,
        deadline: Instant,
    ) -> Result<Authorization, AuthorizeError> {
        let url = token_url(exchange.facts(), token)?;
        let url = exchange.token_trust.redirected(&url).unwrap_or(url);
        let grant = ResolvedGrant::new(&token.grant, exchange.facts())?;
        let scope = token.scope.as_deref();
        let id = exchange.token_id(|| {
            Ok(DigestParts::of(&[
                exchange.credential.fingerprint(),
                url.as_str().as_bytes(),
                scope.unwrap_or_default().as_bytes(),
                &grant.digest()?,
                place.prefix.as_bytes(),
                // One provider's way to a private address is not another's.
                &[u8::from(exchange.token_trust.trusts(&url))],
            ]))
        })?;
        let form = |now: &ClockReading| grant.form(scope, now);
        let account = || self.accounts.of(exchange.tenant);
        let refresh_before = Duration::from_millis(token.refresh_before);
        let minimum_age = Duration::from_millis(token.minimum_age);
        let (tenant, prefix) = (exchange.tenant, &place.prefix);
        let trust = exchange.token_trust;
        let fetch = TokenFetch {
            tenant,
            id,
            url: &url,
            trust,
            form: &form,
            account: &account,
            refresh_before,
            minimum_age,
            prefix,
        };
        let (value, handle) = self.access_tokens.get(fetch, now, deadline).await?;
        placed(&place.place, value, Some(handle))
    }
}

impl<'a> AuthorizeRequest<'a> {
    fn token_id(
        &self,
        find: impl FnOnce() -> Result<TokenId, AuthorizeError>,
    ) -> Result<TokenId, AuthorizeError> {
        self.credential.last_token.id(&self.kind.authentication, self.settings, self.origin, find)
    }

    fn facts(&self) -> TokenInputs<'a> {
        TokenInputs { credential: self.credential, settings: self.settings, origin: self.origin }
    }
}

fn certificate(exchange: AuthorizeRequest<'_>) -> Result<Authorization, AuthorizeError> {
    let certificate = exchange.credential.client_certificate();
    let certificate = certificate.ok_or_else(|| AuthorizeError::manifest("it is no certificate"))?;
    Ok(Authorization::ClientCertificate(certificate.clone()))
}

fn plain_secret(
    exchange: AuthorizeRequest<'_>,
    secret: &str,
    placement: &Placement,
) -> Result<Authorization, AuthorizeError> {
    let text = exchange.credential.text(secret).ok_or_else(|| AuthorizeError::manifest("it is no text"))?;
    let value = [placement.prefix.as_bytes(), text].concat();
    let value = String::from_utf8(value).map_err(|_| AuthorizeError::manifest("the secret is no text"))?;
    placed(&placement.place, sensitive(value)?, None)
}

fn placed(
    place: &Place,
    value: HeaderValue,
    token: Option<TokenHandle>,
) -> Result<Authorization, AuthorizeError> {
    let Place::Header(name) = place else {
        return Ok(Authorization::Placed { texts: vec![(place.clone(), value)], token });
    };
    let name = HeaderName::from_bytes(name.as_bytes());
    let name = name.map_err(|_| AuthorizeError::manifest("a header name is not valid"))?;
    Ok(Authorization::Header { name, value, token })
}
