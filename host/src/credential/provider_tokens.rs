//! Tokens that the host signs itself, shared by all that use the same key.
//!
//! Apple limits how often a key may show a new token (once in 20 minutes) and how old one may be (an
//! hour), so there is one token per key and claims in the whole process: registering the same key
//! again, or in another application, gives the same token. For the same reason a token that is younger than
//! its minimum age is never evicted: a tenant that needs more tokens than its share is refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;

use super::authorizer::{AuthorizeError, TokenHandle};
use super::cache::{Cache, Key, lock};
use super::jwt;
use super::moment::Moment;
use crate::contract::manifest::SignedToken;
use crate::tenant::TenantId;

/// The tokens of the process.
pub(super) struct ProviderTokens {
    tokens: Cache<Option<Minted>>,
    serials: AtomicU64,
}

struct Minted {
    value: HeaderValue,
    at: Moment,
    serial: u64,
    /// Kept here because a report of expiry comes without the manifest.
    minimum_age: Duration,
}

impl ProviderTokens {
    pub(super) fn new() -> Self {
        Self { tokens: Cache::new(), serials: AtomicU64::new(0) }
    }

    /// How many were signed.
    pub(super) fn minted(&self) -> u64 {
        self.serials.load(Ordering::Relaxed)
    }

    /// The current token under `id`, which stands for key, token and frame; minted anew when it has
    /// reached its lifetime, or when the wall clock was set back so that it seems to come from the
    /// future. `mint` makes the header value.
    pub(super) fn get(
        &self,
        tenant: &TenantId,
        id: Key,
        token: &SignedToken,
        mint: impl FnOnce() -> Result<HeaderValue, AuthorizeError>,
        now: &Moment,
    ) -> Result<(HeaderValue, TokenHandle), AuthorizeError> {
        let may_go = |minted: &Option<Minted>| minted.as_ref().is_none_or(|token| token.may_be_replaced(now));
        let entry = self.tokens.entry(tenant, &id, may_go)?;
        // Held while signing: whoever comes second waits for the first one's token.
        let mut minted = lock(&entry);
        if let Some(current) = &*minted
            && now.since(&current.at) < jwt::use_for(token)
            && !now.precedes(&current.at)
        {
            return Ok((current.value.clone(), TokenHandle::minted(id, current.serial)));
        }
        let value = mint()?;
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        let minimum_age = Duration::from_millis(token.minimum_age);
        *minted = Some(Minted { value: value.clone(), at: *now, serial, minimum_age });
        drop(minted);
        self.tokens.stored(&id, value.len());
        Ok((value, TokenHandle::minted(id, serial)))
    }

    /// The service called this token expired. Answers whether another try has a chance: the token was
    /// replaced meanwhile, or is old enough to be replaced now. A token younger than its minimum age
    /// stays: the service would refuse a second new one as well, and a fresh token that counts as
    /// expired means that this machine's clock is wrong.
    pub(super) fn expired(&self, id: &Key, serial: u64, now: &Moment) -> bool {
        let Some(entry) = self.tokens.get(id) else { return true };
        let mut minted = lock(&entry);
        match &*minted {
            Some(token) if token.serial == serial => {
                let old_enough = token.may_be_replaced(now);
                if old_enough {
                    *minted = None;
                }
                old_enough
            }
            _ => true,
        }
    }
}

impl Minted {
    /// Whether the service accepts a new token in place of this one.
    fn may_be_replaced(&self, now: &Moment) -> bool {
        now.since(&self.at) >= self.minimum_age || now.precedes(&self.at)
    }
}
