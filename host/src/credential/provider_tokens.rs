//! Tokens that the host signs itself, shared by all that use the same key.
//!
//! Apple limits how often a key may show a new token (once in 20 minutes) and how old one may be (an
//! hour), so there is one token per key and claims in the whole process: registering the same key
//! again, or in another application, gives the same token.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

use super::authorizer::{AuthorizeError, TokenHandle, sensitive};
use super::cache::{Cache, Key, lock};
use super::jwt::Template;
use super::key::TokenKey;
use super::moment::Moment;

const MOST_TOKENS: usize = 16 << 10;

/// The tokens of the process.
pub(super) struct ProviderTokens {
    tokens: Mutex<Cache<Mutex<Option<Minted>>>>,
    serials: AtomicU64,
}

struct Minted {
    value: HeaderValue,
    at: Moment,
    serial: u64,
    /// Kept here because a report of expiry comes without the manifest.
    minimum_age: std::time::Duration,
}

impl ProviderTokens {
    pub(super) fn new() -> Self {
        Self { tokens: Mutex::new(Cache::new(MOST_TOKENS)), serials: AtomicU64::new(0) }
    }

    /// The current token under `id`, which stands for key, template and frame; minted anew when it has
    /// reached its lifetime, or when the wall clock was set back so that it seems to come from the
    /// future. `frame` makes the header value of a token.
    pub(super) fn get(
        &self,
        id: Key,
        key: &TokenKey,
        template: &Template,
        frame: impl FnOnce(&str) -> String,
        now: &Moment,
    ) -> Result<(HeaderValue, TokenHandle), AuthorizeError> {
        let entry = lock(&self.tokens).entry(&id);
        // Held while signing: whoever comes second waits for the first one's token.
        let mut minted = lock(&entry);
        if let Some(token) = &*minted
            && now.since(&token.at) < template.use_for()
            && !now.precedes(&token.at)
        {
            return Ok((token.value.clone(), TokenHandle::minted(id, token.serial)));
        }
        let value = sensitive(frame(&template.mint(key, now)?))?;
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        *minted = Some(Minted { value: value.clone(), at: *now, serial, minimum_age: template.minimum_age });
        Ok((value, TokenHandle::minted(id, serial)))
    }

    /// The service called this token expired. Answers whether another try has a chance: the token was
    /// replaced meanwhile, or is old enough to be replaced now. A token younger than its minimum age
    /// stays: the service would refuse a second new one as well, and a fresh token that counts as
    /// expired means that this machine's clock is wrong.
    pub(super) fn expired(&self, id: &Key, serial: u64, now: &Moment) -> bool {
        let Some(entry) = lock(&self.tokens).get(id) else { return true };
        let mut minted = lock(&entry);
        match &*minted {
            Some(token) if token.serial == serial => {
                let old_enough = now.since(&token.at) >= token.minimum_age || now.precedes(&token.at);
                if old_enough {
                    *minted = None;
                }
                old_enough
            }
            _ => true,
        }
    }
}
