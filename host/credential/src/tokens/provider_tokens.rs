//! Tokens that the host signs itself, shared by all that use the same key.
//!
//! Apple limits how often a key may show a new token (once in 20 minutes) and how old one may be (an
//! hour), so there is one token per key and claims in the whole process: registering the same key
//! again, or in another application, gives the same token. For the same reason a token that is younger than
//! its minimum age is never evicted: a tenant that needs more tokens than its share is refused.
//!
//! The nodes of a fleet make the same token without asking each other: its time of issue is the last common step of
//! all clocks ([`jwt::shared_step`]), its fields have a fixed order, and its signature is deterministic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::jwt::{self, SigningJob};
use super::token::{AuthorizeError, ClockReading, TokenCache, TokenHandle, TokenId, sensitive};
use pushlet_model::contract::manifest::SignedToken;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Account;

/// The tokens of the process.
pub(crate) struct ProviderTokens {
    tokens: Arc<TokenCache<SigningSlot>>,
    serials: Arc<AtomicU64>,
}

#[derive(Default)]
struct SigningSlot {
    minted: Option<MintedToken>,
    /// The token that is being signed.
    flight: Option<watch::Receiver<Option<SignResult>>>,
    /// When the token was issued that the service called expired last, in seconds since the Unix epoch.
    refused: Option<u64>,
}

type SignResult = Result<(HeaderValue, u64), AuthorizeError>;

struct MintedToken {
    value: HeaderValue,
    issued: IssueTime,
    serial: u64,
    /// Stored here because a report of expiry comes without the manifest.
    minimum_age: Duration,
}

/// The time that a token says it was issued at, and how long it is used from then on.
#[derive(Clone, Copy)]
struct IssueTime {
    at: ClockReading,
    used_for: Duration,
}

impl IssueTime {
    /// `refused`: when the token was issued that the service called expired last.
    fn new(token: &SignedToken, now: &ClockReading, refused: Option<u64>) -> Self {
        let Some(step) = jwt::shared_step(token) else {
            return Self { at: *now, used_for: jwt::use_for(token) };
        };
        let start = now.rounded_down(step);
        if refused.is_none_or(|refused| refused < start.unix_seconds()) {
            return Self { at: start, used_for: step };
        }
        // The other nodes get the same refusal, and take the same way out until the step is over.
        let at = now.rounded_down(Duration::from_millis(token.minimum_age));
        Self { at, used_for: step.saturating_sub(at.since(&start)) }
    }
}

/// How one token is minted.
pub(crate) struct MintRequest<'a> {
    /// A digest of key, token and frame.
    pub(crate) id: TokenId,
    pub(crate) token: &'a SignedToken,
    pub(crate) tenant: &'a TenantId,
    /// The tenant's account, which is charged.
    pub(crate) account: Arc<Account>,
    /// Creates the job; called only when a token must be signed.
    pub(crate) job: &'a (dyn Fn() -> Result<SigningJob, AuthorizeError> + Sync),
    /// The text before and after the token in the header.
    pub(crate) frame: (String, String),
}

impl ProviderTokens {
    pub(crate) fn new() -> Self {
        Self { tokens: Arc::new(TokenCache::new()), serials: Arc::default() }
    }

    /// Returns how many tokens were signed.
    pub(crate) fn minted(&self) -> u64 {
        self.serials.load(Ordering::Relaxed)
    }

    /// Returns the current token under `id`, if there is one that has not reached its lifetime.
    pub(crate) fn current(
        &self,
        tenant: &TenantId,
        id: TokenId,
        now: &ClockReading,
    ) -> Result<Option<(HeaderValue, TokenHandle)>, AuthorizeError> {
        let slot = self.slot(tenant, &id, now)?;
        let usable = slot.lock().usable(now);
        Ok(usable.map(|(value, serial)| (value, TokenHandle::minted(id, serial))))
    }

    /// Returns the current token, signed if need be. All callers share one signature; it goes on when a caller goes
    /// away.
    pub(crate) async fn get(
        &self,
        mint: MintRequest<'_>,
        now: &ClockReading,
        deadline: Instant,
    ) -> Result<(HeaderValue, TokenHandle), AuthorizeError> {
        let id = mint.id;
        let done = |(value, serial)| (value, TokenHandle::minted(id, serial));
        while Instant::now() < deadline {
            let slot = self.slot(mint.tenant, &id, now)?;
            let mut flight = {
                let mut state = slot.lock();
                if let Some(current) = state.usable(now) {
                    return Ok(done(current));
                }
                match state.under_way() {
                    Some(flight) => flight,
                    None => self.start(&slot, &mut state, &mint, now, deadline)?,
                }
            };
            let landed = tokio::time::timeout_at(deadline.into(), flight.wait_for(Option::is_some)).await;
            let signed = match landed {
                Err(_) => break,
                Ok(Err(_)) => return Err(AuthorizeError::Signing),
                Ok(Ok(signed)) => signed.clone(),
            };
            match signed {
                Some(Ok(signed)) => return Ok(done(signed)),
                // The deadline of the caller that started the signature; this caller's may be later.
                Some(Err(AuthorizeError::DeadlineExceeded)) | None => {}
                Some(Err(error)) => return Err(error),
            }
        }
        Err(AuthorizeError::DeadlineExceeded)
    }

    /// Signs the token in a task of its own, which stores it in the slot.
    fn start(
        &self,
        slot: &Arc<Mutex<SigningSlot>>,
        state: &mut SigningSlot,
        mint: &MintRequest<'_>,
        now: &ClockReading,
        deadline: Instant,
    ) -> Result<watch::Receiver<Option<SignResult>>, AuthorizeError> {
        let job = (mint.job)()?;
        let (landed, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let (tokens, id) = (self.tokens.clone(), mint.id);
        let (slot, serials) = (slot.clone(), self.serials.clone());
        let issued = IssueTime::new(mint.token, now, state.refused);
        let (account, (before, behind)) = (mint.account.clone(), mint.frame.clone());
        let minimum_age = Duration::from_millis(mint.token.minimum_age);
        tokio::spawn(async move {
            let token = job.run(&account, issued.at, deadline).await;
            let value = token.and_then(|token| sensitive([&before, token.as_str(), &behind].concat()));
            let signed = value.map(|value| (value, serials.fetch_add(1, Ordering::Relaxed)));
            let mut state = slot.lock();
            state.flight = None;
            if let Ok((value, serial)) = &signed {
                state.minted =
                    Some(MintedToken { value: value.clone(), issued, serial: *serial, minimum_age });
            }
            drop(state);
            if let Ok((value, _)) = &signed {
                tokens.stored(&id, value.len());
            }
            // All waiters may have gone; the slot keeps the token in any case.
            let _ = landed.send(Some(signed));
        });
        Ok(flight)
    }

    /// Drops the tokens of a removed tenant, except for a few that cannot be replaced yet.
    pub(super) fn release(&self, tenant: &TenantId, now: &ClockReading) {
        let is_young =
            |slot: &SigningSlot| slot.minted.as_ref().is_some_and(|token| !token.may_be_replaced(now));
        self.tokens.release(tenant, is_young);
    }

    fn slot(
        &self,
        tenant: &TenantId,
        id: &TokenId,
        now: &ClockReading,
    ) -> Result<Arc<Mutex<SigningSlot>>, AuthorizeError> {
        let may_go = |slot: &SigningSlot| slot.minted.as_ref().is_none_or(|token| token.may_be_replaced(now));
        self.tokens.entry(tenant, id, may_go)
    }

    /// Drops a token that the service called expired. Returns true if another try has a chance: the token was
    /// replaced meanwhile, or is old enough to be replaced now. A token younger than its minimum age
    /// stays: the service would refuse a second new one as well, and a fresh token that counts as
    /// expired means that this machine's clock is wrong.
    pub(crate) fn expired(&self, id: &TokenId, serial: u64, now: &ClockReading) -> bool {
        let Some(slot) = self.tokens.get(id) else { return true };
        let mut slot = slot.lock();
        match &slot.minted {
            Some(token) if token.serial == serial => {
                let old_enough = token.may_be_replaced(now);
                if old_enough {
                    slot.refused = Some(token.issued.at.unix_seconds());
                    slot.minted = None;
                }
                old_enough
            }
            _ => true,
        }
    }
}

impl MintedToken {
    /// Returns true if the service accepts a new token in place of this one.
    fn may_be_replaced(&self, now: &ClockReading) -> bool {
        now.since(&self.issued.at) >= self.minimum_age || now.precedes(&self.issued.at)
    }
}

impl SigningSlot {
    /// Returns the token and its serial; None when its time is over, or when the wall clock was set back so that it
    /// seems to come from the future.
    fn usable(&self, now: &ClockReading) -> Option<(HeaderValue, u64)> {
        let current = self.minted.as_ref()?;
        let IssueTime { at, used_for } = &current.issued;
        let usable = now.since(at) < *used_for && !now.precedes(at);
        usable.then(|| (current.value.clone(), current.serial))
    }

    /// Returns the token that is being signed, unless its task was lost.
    fn under_way(&self) -> Option<watch::Receiver<Option<SignResult>>> {
        self.flight.clone().filter(|flight| flight.has_changed().is_ok())
    }
}
