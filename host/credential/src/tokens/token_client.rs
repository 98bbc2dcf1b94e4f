//! How requests reach token endpoints.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use url::Url;
use zeroize::Zeroizing;

use crate::secret::Secret;
use pushlet_model::tenant::TenantId;

/// A form to be posted to a token endpoint.
pub struct TokenRequest {
    /// The tenant that needs the token.
    pub tenant: TenantId,
    pub url: Url,
    /// `application/x-www-form-urlencoded`; holds secrets.
    pub body: Zeroizing<String>,
    pub deadline: Instant,
    /// The URL came with an upload: only a public address may be behind it.
    pub guarded: bool,
}

/// What a token endpoint answered.
pub struct TokenResponse {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// At most [`TokenResponse::LARGEST_BODY`] bytes.
    pub body: Secret,
}

impl TokenResponse {
    /// A larger answer is no answer of a token endpoint; the client stops reading there.
    pub const LARGEST_BODY: usize = 64 << 10;
}

/// The token endpoint did not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason} ({detail})")]
pub struct TokenHttpError {
    /// At which step it failed, for the caller: no address stands in it.
    pub reason: String,
    /// For the log.
    pub detail: String,
    /// The endpoint may not be asked at all, so that trying again does not help.
    pub forbidden: bool,
}

impl TokenHttpError {
    pub(crate) fn new(reason: &str) -> Self {
        Self { reason: reason.to_owned(), detail: String::new(), forbidden: false }
    }
}

/// Says which token endpoints may have private addresses.
pub trait TokenTrust: Send + Sync {
    fn trusts(&self, url: &Url) -> bool;
}

/// How requests reach token endpoints. URLs come from manifests and uploads: the client must check
/// them as it checks any target that it was not configured with, and follow no redirects.
pub trait TokenClient: Send + Sync {
    fn post_form(&self, request: TokenRequest) -> BoxFuture<'static, Result<TokenResponse, TokenHttpError>>;
}

/// The URL of a token endpoint: `https`, no user, no fragment.
pub(crate) fn parse_token_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let sound = url.scheme() == "https"
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    sound.then_some(url)
}

/// The fields of a form.
pub(crate) type FormFields = Vec<(&'static str, Zeroizing<String>)>;
