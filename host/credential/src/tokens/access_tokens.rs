//! Access tokens that the host fetches from a token endpoint (RFC 6749, RFC 7523), one request at a
//! time for each account, cached, and refreshed before the old one expires.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::watch;
use url::Url;

use super::jwt::SigningJob;
use super::token::{AuthorizeError, ClockReading, TokenCache, TokenHandle, TokenId, sensitive};
use super::token_endpoint::{
    self, EndpointDialect, RequestField, RequestFields, TokenClient, TokenHttpError, TokenRequest,
    TokenResponse, TokenTrust,
};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Account;

/// For the whole request; callers wait no longer than their own deadlines.
const FETCH_TIME: Duration = Duration::from_secs(10);
/// A token that was just fetched and is refused would be the same if fetched again.
const MINIMUM_AGE: Duration = Duration::from_secs(30);
/// A refusal is repeated to callers for this long, without another request.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
const FAILED_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How one token is fetched.
pub(crate) struct TokenFetch<'a> {
    pub(crate) tenant: &'a TenantId,
    /// Digest of everything that decides the token.
    pub(crate) id: TokenId,
    pub(crate) url: &'a Url,
    /// Called only when a request is made.
    pub(crate) trust: &'a dyn TokenTrust,
    /// Creates the form; called only when a request is made.
    pub(crate) form: &'a (dyn Fn(&ClockReading) -> Result<TokenForm, AuthorizeError> + Sync),
    /// The account that is charged for signing the form's assertion; called only when a request is made.
    pub(crate) account: &'a (dyn Fn() -> Arc<Account> + Sync),
    pub(crate) refresh_before: Duration,
    /// A younger token is not given up when the service calls it expired.
    pub(crate) minimum_age: Duration,
    /// The text before the token in the header.
    pub(crate) prefix: &'a str,
}

/// A form whose assertion is not signed yet.
pub(crate) struct TokenForm {
    pub(crate) fields: RequestFields,
    pub(crate) assertion: Option<SigningJob>,
    pub(crate) dialect: EndpointDialect,
}

impl TokenForm {
    async fn complete(
        self,
        account: &Arc<Account>,
        now: ClockReading,
        deadline: Instant,
    ) -> Result<(RequestFields, EndpointDialect), AuthorizeError> {
        let Self { mut fields, assertion, dialect } = self;
        if let Some(assertion) = assertion {
            fields.push(RequestField::secret("assertion", assertion.run(account, now, deadline).await?));
        }
        Ok((fields, dialect))
    }
}

/// The access tokens of the process.
pub(crate) struct AccessTokens {
    client: Arc<dyn TokenClient>,
    slots: Arc<TokenCache<FetchSlot>>,
    counts: Arc<FetchCounters>,
}

#[derive(Default)]
struct FetchCounters {
    serials: AtomicU64,
    /// Requests to token endpoints.
    fetches: AtomicU64,
    /// Those among them that gave no token.
    failures: AtomicU64,
}

#[derive(Default)]
struct FetchSlot {
    token: Option<FetchedToken>,
    failure: Option<FetchFailure>,
    /// The request in flight.
    flight: Option<watch::Receiver<Option<FetchResult>>>,
}

type FetchResult = Result<(HeaderValue, u64), AuthorizeError>;

struct FetchedToken {
    value: HeaderValue,
    at: ClockReading,
    serial: u64,
    minimum_age: Duration,
    /// How long it is used, from `at`.
    usable: Duration,
    refresh: Duration,
}

struct FetchFailure {
    error: AuthorizeError,
    at: ClockReading,
    pause: Duration,
}

enum FetchStep {
    Done(FetchResult),
    Wait(watch::Receiver<Option<FetchResult>>),
}

impl AccessTokens {
    pub(crate) fn new(client: Arc<dyn TokenClient>) -> Self {
        Self { client, slots: Arc::new(TokenCache::new()), counts: Arc::default() }
    }

    /// Drops the tokens of a removed tenant.
    pub(super) fn release(&self, tenant: &TenantId) {
        self.slots.release(tenant, |_| false);
    }

    /// Returns the current token, fetched if need be. All callers share one request and its result; it goes on
    /// when a caller goes away. After a failure there is a short pause before the next request.
    pub(crate) async fn get(
        &self,
        fetch: TokenFetch<'_>,
        now: &ClockReading,
        deadline: Instant,
    ) -> Result<(HeaderValue, TokenHandle), AuthorizeError> {
        let id = fetch.id;
        // A request in flight holds its slot; any other token can be fetched again.
        let slot = self.slots.entry(fetch.tenant, &id, |_| true)?;
        let fetched = match self.step(&slot, &fetch, now)? {
            FetchStep::Done(fetched) => fetched,
            FetchStep::Wait(mut flight) => {
                let landed = tokio::time::timeout_at(deadline.into(), flight.wait_for(Option::is_some));
                // Few callers wait, so this future is boxed: every send holds the room for what is inline.
                let landed = Box::pin(landed).await;
                match landed {
                    Err(_) => Err(AuthorizeError::DeadlineExceeded),
                    Ok(Err(_)) => Err(AuthorizeError::unavailable("the request for a token was lost", None)),
                    Ok(Ok(fetched)) => fetched.clone().unwrap_or(Err(AuthorizeError::DeadlineExceeded)),
                }
            }
        };
        fetched.map(|(value, serial)| (value, TokenHandle::fetched(id, serial)))
    }

    /// Returns how many requests there were, and how many of them gave no token.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let FetchCounters { fetches, failures, .. } = &*self.counts;
        (fetches.load(Ordering::Relaxed), failures.load(Ordering::Relaxed))
    }

    /// Drops a token that the service refused as expired. Returns true if another try has a chance.
    pub(crate) fn expired(&self, id: &TokenId, serial: u64, now: &ClockReading) -> bool {
        let Some(slot) = self.slots.get(id) else { return true };
        let mut slot = slot.lock();
        match &slot.token {
            Some(token) if token.serial == serial => {
                let old_enough = now.since(&token.at) >= token.minimum_age.max(MINIMUM_AGE);
                if old_enough {
                    slot.token = None;
                }
                old_enough
            }
            _ => true,
        }
    }

    fn step(
        &self,
        slot: &Arc<Mutex<FetchSlot>>,
        fetch: &TokenFetch<'_>,
        now: &ClockReading,
    ) -> Result<FetchStep, AuthorizeError> {
        let mut state = slot.lock();
        let pausing = state.failure.as_ref().filter(|failure| now.since(&failure.at) < failure.pause);
        let usable = state.token.as_ref().filter(|token| now.since(&token.at) < token.usable);
        if let Some(token) = usable {
            let current = Ok((token.value.clone(), token.serial));
            // While a failed refresh pauses, the old token is used: not every push must try again.
            let due = now.since(&token.at) >= token.refresh && pausing.is_none();
            if due && state.flight.is_none() {
                self.start(slot, &mut state, fetch, now)?;
            }
            return Ok(FetchStep::Done(current));
        }
        if let Some(flight) = &state.flight {
            return Ok(FetchStep::Wait(flight.clone()));
        }
        if let Some(failure) = pausing {
            return Ok(FetchStep::Done(Err(failure.error.clone())));
        }
        Ok(FetchStep::Wait(self.start(slot, &mut state, fetch, now)?))
    }

    /// Sends the request in a task of its own, which leaves the result in the slot.
    fn start(
        &self,
        slot: &Arc<Mutex<FetchSlot>>,
        state: &mut FetchSlot,
        fetch: &TokenFetch<'_>,
        now: &ClockReading,
    ) -> Result<watch::Receiver<Option<FetchResult>>, AuthorizeError> {
        let (form, account) = ((fetch.form)(now)?, (fetch.account)());
        let deadline = Instant::now() + FETCH_TIME;
        let place = (fetch.tenant.clone(), fetch.url.clone(), !fetch.trust.trusts(fetch.url));
        let client = self.client.clone();
        let (landed, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let landing = FetchCompletion {
            slots: self.slots.clone(),
            id: fetch.id,
            slot: slot.clone(),
            counts: self.counts.clone(),
            serial: self.counts.serials.fetch_add(1, Ordering::Relaxed),
            at: *now,
            refresh_before: fetch.refresh_before,
            minimum_age: fetch.minimum_age,
            prefix: fetch.prefix.to_owned(),
        };
        tokio::spawn(async move {
            let answer = match form.complete(&account, landing.at, deadline).await {
                Ok((fields, dialect)) => {
                    landing.counts.fetches.fetch_add(1, Ordering::Relaxed);
                    let answer = post(&*client, place, (&fields, &dialect), deadline).await;
                    token_endpoint::read_response(answer, &fields, dialect.answer.as_ref())
                }
                Err(error) => Err(error),
            };
            let fetched = landing.land(answer);
            // All waiters may have gone; the slot keeps the result in any case.
            let _ = landed.send(Some(fetched));
        });
        Ok(flight)
    }
}

async fn post(
    client: &dyn TokenClient,
    (tenant, url, guarded): (TenantId, Url, bool),
    (fields, dialect): (&RequestFields, &EndpointDialect),
    deadline: Instant,
) -> Result<TokenResponse, TokenHttpError> {
    let (content_type, body) = dialect.write(fields);
    let authorization = dialect.authorization.clone();
    let request = TokenRequest { tenant, url, content_type, body, authorization, deadline, guarded };
    let answer = client.post(request);
    let answer = tokio::time::timeout_at(deadline.into(), answer).await;
    answer.unwrap_or_else(|_| Err(TokenHttpError::new("it did not answer in time")))
}

/// Stores the result of a token request.
struct FetchCompletion {
    slots: Arc<TokenCache<FetchSlot>>,
    id: TokenId,
    slot: Arc<Mutex<FetchSlot>>,
    counts: Arc<FetchCounters>,
    serial: u64,
    at: ClockReading,
    refresh_before: Duration,
    minimum_age: Duration,
    prefix: String,
}

impl FetchCompletion {
    fn land(&self, answer: Result<token_endpoint::AccessToken, AuthorizeError>) -> FetchResult {
        let token = answer.and_then(|token| {
            let value = sensitive([self.prefix.as_str(), &token.text].concat())?;
            Ok((value, token.expires_in))
        });
        let mut slot = self.slot.lock();
        slot.flight = None;
        match token {
            Ok((value, expires_in)) => {
                slot.failure = None;
                // It must not end on its way to the service.
                let usable = expires_in - (expires_in / 10).min(Duration::from_secs(30));
                let early = expires_in.saturating_sub(self.refresh_before);
                // A token that lives no longer than `refresh_before` would be refreshed with every call.
                let refresh = if early.is_zero() { usable / 2 } else { early.min(usable) };
                let (at, serial, minimum_age) = (self.at, self.serial, self.minimum_age);
                slot.token =
                    Some(FetchedToken { value: value.clone(), at, serial, minimum_age, usable, refresh });
                drop(slot);
                self.slots.stored(&self.id, value.len());
                Ok((value, serial))
            }
            Err(error) => {
                // Without an assertion no request was made, so no fetch has failed.
                let is_fetch = !matches!(error, AuthorizeError::NoCapacity(_) | AuthorizeError::Signing);
                self.counts.failures.fetch_add(u64::from(is_fetch), Ordering::Relaxed);
                let pause = match &error {
                    // Another tenant with the same account must not wait for this one's time.
                    AuthorizeError::NoCapacity(_) => FAILED_PAUSE,
                    AuthorizeError::Unavailable { retry_after, .. } => {
                        retry_after.unwrap_or(FAILED_PAUSE).clamp(FAILED_PAUSE, LONGEST_PAUSE)
                    }
                    _ => REFUSED_PAUSE,
                };
                slot.failure = Some(FetchFailure { error: error.clone(), at: self.at, pause });
                Err(error)
            }
        }
    }
}
