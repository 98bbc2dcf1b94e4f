//! Tokens that are still to be signed: everything that a signature needs, so that it can be made on another thread.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::error::AuthorizeError;
use super::jwt::{TokenInputs, TokenTemplate};
use super::moment::ClockReading;
use crate::files::key::TokenKey;
use pushlet_model::contract::manifest::SignedToken;
use pushlet_quota::account::{Account, Work};

/// One token to be signed. An RSA signature takes milliseconds, and whoever wrote the provider's manifest decides how
/// many there are: so they are made on the threads for heavy work, on the tenant's account.
pub(crate) struct SigningJob {
    template: TokenTemplate,
    key: Arc<TokenKey>,
}

impl SigningJob {
    /// Finds all values of the token; signs nothing.
    pub(crate) fn new(
        token: &SignedToken,
        key: &Arc<TokenKey>,
        facts: TokenInputs<'_>,
    ) -> Result<Self, AuthorizeError> {
        Ok(Self { template: TokenTemplate::new(token, facts)?, key: key.clone() })
    }

    /// Signs the token when it is the tenant's turn, unless the deadline has passed by then.
    pub(crate) async fn run(
        self,
        account: &Arc<Account>,
        now: ClockReading,
        deadline: Instant,
    ) -> Result<Zeroizing<String>, AuthorizeError> {
        let sign = move || match Instant::now() < deadline {
            true => self.template.mint(&self.key, &now),
            false => Err(AuthorizeError::DeadlineExceeded),
        };
        account.run_heavy(Work::Signing, sign).await.map_err(AuthorizeError::NoCapacity)?
    }
}

/// The text around a token in the header.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HeaderFrame<'a> {
    Prefix(&'a str),
    /// RFC 8292 section 3: `vapid t=TOKEN, k=KEY`.
    Vapid,
}

impl HeaderFrame<'_> {
    /// Tells frames apart.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Prefix(prefix) => prefix,
            Self::Vapid => "vapid",
        }
    }

    /// What stands before and behind a token that this key signs.
    pub(crate) fn parts(&self, key: &TokenKey) -> (String, String) {
        match self {
            Self::Prefix(prefix) => ((*prefix).to_owned(), String::new()),
            Self::Vapid => {
                ("vapid t=".to_owned(), format!(", k={}", URL_SAFE_NO_PAD.encode(key.public_key())))
            }
        }
    }
}
