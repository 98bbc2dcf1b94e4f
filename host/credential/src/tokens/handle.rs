//! What names a token, and the header value that it becomes.

use http::HeaderValue;
use zeroize::Zeroizing;

use super::error::AuthorizeError;

/// A digest of everything that decides the token.
pub(crate) type TokenId = [u8; 32];

/// Identifies the token that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHandle {
    pub(crate) origin: TokenSource,
    pub(crate) id: TokenId,
    pub(crate) serial: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenSource {
    Minted,
    Fetched,
}

impl TokenHandle {
    pub(crate) fn minted(id: TokenId, serial: u64) -> Self {
        Self { origin: TokenSource::Minted, id, serial }
    }

    pub(crate) fn fetched(id: TokenId, serial: u64) -> Self {
        Self { origin: TokenSource::Fetched, id, serial }
    }
}

/// A header value that is never shown. Its text is wiped.
pub(crate) fn sensitive(text: String) -> Result<HeaderValue, AuthorizeError> {
    let text = Zeroizing::new(text);
    let mut value = HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| AuthorizeError::manifest("the token makes no header value"))?;
    value.set_sensitive(true);
    Ok(value)
}
