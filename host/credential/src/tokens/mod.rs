//! The authentication that the host adds to requests: a client certificate, a secret, or a token that is signed here or
//! fetched from a token endpoint.

mod access_tokens;
mod jwt;
mod provider_tokens;
pub(crate) mod token;
pub(crate) mod token_endpoint;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use token::{AuthorizeError, ClockReading, TokenHandle, TokenId, TokenSource, sensitive};
use token_endpoint::{TokenClient, TokenTrust, parse_token_url};
use url::Url;
use zeroize::Zeroizing;

use super::credential::{Credential, text_fingerprint};
use super::files::identity::ClientCertificate;
use super::files::keys::TokenKey;
use access_tokens::{AccessTokens, TokenFetch, TokenForm};
use jwt::{HeaderFrame, SigningJob, TokenInputs};
use provider_tokens::{MintRequest, ProviderTokens};
use pushlet_model::contract::CredentialFault;
use pushlet_model::contract::manifest::{
    Authentication, ClientCredentials, Credential as CredentialKind, Grant, HeaderPlacement, SignedToken,
    TokenExchange,
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
            Authentication::SignedToken((token, place)) => {
                let frame = HeaderFrame::Prefix(&place.prefix);
                self.signed(exchange, token, (&place.name, frame), now, deadline).await
            }
            Authentication::ExchangedToken((token, place)) => {
                self.exchanged(exchange, token, place, now, deadline).await
            }
            Authentication::SecretHeader((secret, place)) => secret_header(exchange, secret, place),
            Authentication::Vapid(token) => {
                self.signed(exchange, token, ("authorization", HeaderFrame::Vapid), now, deadline).await
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
            Authentication::SignedToken((token, _)) | Authentication::Vapid(token) => signed(token),
            Authentication::ExchangedToken((token, _)) => {
                token_url(exchange, token)?;
                ResolvedGrant::new(&token.grant, exchange)?.form(token.scope.as_deref()).map(drop)
            }
            Authentication::SecretHeader((secret, place)) => secret_header(exchange, secret, place).map(drop),
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
        (name, frame): (&str, HeaderFrame<'_>),
        now: &ClockReading,
        deadline: Instant,
    ) -> Result<Authorization, AuthorizeError> {
        let key = token_key(exchange.credential, &token.key)?;
        let facts = exchange.facts();
        let id = exchange.token_id(|| {
            Ok(DigestParts::of(&[key.fingerprint(), &jwt::digest(token, facts)?, frame.name().as_bytes()]))
        })?;
        let (value, handle) = match self.provider_tokens.current(exchange.tenant, id, token, now)? {
            Some(current) => current,
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
                Box::pin(self.provider_tokens.get(mint, now, deadline)).await?
            }
        };
        header(name, value, Some(handle))
    }

    async fn exchanged(
        &self,
        exchange: AuthorizeRequest<'_>,
        token: &TokenExchange,
        place: &HeaderPlacement,
        now: &ClockReading,
        deadline: Instant,
    ) -> Result<Authorization, AuthorizeError> {
        let url = token_url(exchange, token)?;
        let grant = ResolvedGrant::new(&token.grant, exchange)?;
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
        let form = || grant.form(scope);
        let account = || self.accounts.of(exchange.tenant);
        let refresh_before = Duration::from_millis(token.refresh_before);
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
            prefix,
        };
        let (value, handle) = self.access_tokens.get(fetch, now, deadline).await?;
        header(&place.name, value, Some(handle))
    }
}

impl<'a> AuthorizeRequest<'a> {
    fn token_id(
        &self,
        find: impl FnOnce() -> Result<TokenId, AuthorizeError>,
    ) -> Result<TokenId, AuthorizeError> {
        self.credential.last_token.id(self.kind, self.settings, self.origin, find)
    }

    fn facts(&self) -> TokenInputs<'a> {
        TokenInputs { credential: self.credential, settings: self.settings, origin: self.origin }
    }
}

/// A grant with the secrets that it needs.
enum ResolvedGrant<'a> {
    Assertion { key: &'a Arc<TokenKey>, token: &'a SignedToken, facts: TokenInputs<'a> },
    Client { id: String, secret: Zeroizing<String> },
}

impl<'a> ResolvedGrant<'a> {
    fn new(grant: &'a Grant, exchange: AuthorizeRequest<'a>) -> Result<Self, AuthorizeError> {
        match grant {
            Grant::JwtBearer(token) => {
                let key = token_key(exchange.credential, &token.key)?;
                Ok(Self::Assertion { key, token, facts: exchange.facts() })
            }
            Grant::ClientCredentials(ClientCredentials { id, secret }) => {
                let bytes = exchange.credential.text(secret);
                let bytes = bytes.ok_or_else(|| AuthorizeError::manifest("it is no client secret"))?;
                let secret = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
                Ok(Self::Client { id: exchange.facts().text(id)?, secret })
            }
        }
    }

    fn digest(&self) -> Result<TokenId, AuthorizeError> {
        Ok(match self {
            Self::Assertion { key, token, facts } => {
                DigestParts::of(&[key.fingerprint(), &jwt::digest(token, *facts)?])
            }
            Self::Client { id, secret } => {
                DigestParts::of(&[id.as_bytes(), &text_fingerprint(secret.as_bytes())])
            }
        })
    }

    fn form(&self, scope: Option<&str>) -> Result<TokenForm, AuthorizeError> {
        let plain = |text: &str| Zeroizing::new(text.to_owned());
        let (mut fields, assertion) = match self {
            Self::Assertion { key, token, facts } => (
                vec![("grant_type", plain("urn:ietf:params:oauth:grant-type:jwt-bearer"))],
                Some(SigningJob::new(token, key, *facts)?),
            ),
            Self::Client { id, secret } => (
                vec![
                    ("grant_type", plain("client_credentials")),
                    ("client_id", plain(id)),
                    ("client_secret", secret.clone()),
                ],
                None,
            ),
        };
        fields.extend(scope.map(|scope| ("scope", plain(scope))));
        Ok(TokenForm { fields, assertion })
    }
}

fn certificate(exchange: AuthorizeRequest<'_>) -> Result<Authorization, AuthorizeError> {
    let certificate = exchange.credential.client_certificate();
    let certificate = certificate.ok_or_else(|| AuthorizeError::manifest("it is no certificate"))?;
    Ok(Authorization::ClientCertificate(certificate.clone()))
}

fn token_url(exchange: AuthorizeRequest<'_>, token: &TokenExchange) -> Result<Url, AuthorizeError> {
    let url = exchange.facts().text(&token.token_url)?;
    parse_token_url(&url).ok_or_else(|| AuthorizeError::manifest("a token URL is not https"))
}

fn secret_header(
    exchange: AuthorizeRequest<'_>,
    secret: &str,
    place: &HeaderPlacement,
) -> Result<Authorization, AuthorizeError> {
    let text = exchange.credential.text(secret).ok_or_else(|| AuthorizeError::manifest("it is no text"))?;
    let value = [place.prefix.as_bytes(), text].concat();
    let value = String::from_utf8(value).map_err(|_| AuthorizeError::manifest("the secret is no text"))?;
    header(&place.name, sensitive(value)?, None)
}

fn header(
    name: &str,
    value: HeaderValue,
    token: Option<TokenHandle>,
) -> Result<Authorization, AuthorizeError> {
    let name = HeaderName::from_bytes(name.as_bytes());
    let name = name.map_err(|_| AuthorizeError::manifest("a header name is not valid"))?;
    Ok(Authorization::Header { name, value, token })
}

fn token_key<'a>(credential: &'a Credential, secret: &str) -> Result<&'a Arc<TokenKey>, AuthorizeError> {
    credential.token_key(secret).ok_or_else(|| AuthorizeError::manifest("it is no key that signs"))
}
