//! The result of a target, the status that all providers share, and the error for a caller whose only target
//! failed.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::capture::CapturedSend;
use pushlet_model::contract::{ConnectionHint, Disposition, Outcome, Scope};
use pushlet_model::error::{Error, Kind};

/// The result of one target.
#[derive(Debug, Clone)]
pub enum DeliveryResult {
    /// The provider decoded the service's answer; or the request was sent and no answer came
    /// (`Disposition::Unknown`).
    Settled(Outcome),
    /// The push was certainly not delivered: this server, the provider or the transport refused it before it
    /// was sent, or could not send it.
    Failed(Error),
    /// The request was sent, and the provider could not decode the answer: the push may or may not have been
    /// delivered.
    Lost(Error),
    /// The request could be sent, and was not because the caller asked for a dry run; or the service checked
    /// it and delivered nothing, because the caller asked for that.
    Valid,
    /// The target was not sent to, because it repeats the target with this index.
    Duplicate(usize),
}

/// The result of one target of a send or a stream, with the target's place in it.
#[derive(Debug, Clone)]
pub struct IndexedResult {
    /// Counts the targets of the send, or the lines of the stream, from 0.
    pub index: usize,
    pub result: DeliveryResult,
    /// How many times the push was tried; 0 if it was never sent.
    pub attempts: u32,
    /// What was done, for the caller of a stream that asked for it.
    pub captured: Option<Box<CapturedSend>>,
}

impl IndexedResult {
    /// Returns the result of a target that was never tried.
    pub fn untried(index: usize, result: DeliveryResult) -> Self {
        Self { index, result, attempts: 0, captured: None }
    }
}

/// The results of a send, a batch or an exchange.
pub(crate) struct BatchResults {
    pub results: Vec<IndexedResult>,
    /// The service's own answer, if it was requested and there is one: a JSON text.
    pub native: Option<String>,
}

/// The results of one try: one per target that the exchange covers.
pub(crate) struct ExchangeResult {
    pub results: Vec<DeliveryResult>,
    pub native: Option<String>,
    /// The token was refused, and a new one can be had.
    pub new_token: bool,
}

/// The status of a target, sorted by who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Delivered,
    /// Drop the token.
    Unregistered,
    /// Delivered; store the new token.
    Replaced,
    /// The message or the token is wrong.
    Rejected,
    /// The operator of the application must act.
    CredentialRejected,
    Throttled,
    Unavailable,
    /// Sent, but it is not known whether the push was delivered.
    Unknown,
    /// The provider component or this server is broken.
    Failed,
    /// The push could be sent, and was not because the request said `validate_only`.
    Valid,
    /// The push was not sent, because it repeats an earlier target of the same request.
    Duplicate,
}

impl Status {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Delivered,
        Self::Unregistered,
        Self::Replaced,
        Self::Rejected,
        Self::CredentialRejected,
        Self::Throttled,
        Self::Unavailable,
        Self::Unknown,
        Self::Failed,
        Self::Valid,
        Self::Duplicate,
    ];

    /// Returns the name that is written in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Unregistered => "unregistered",
            Self::Replaced => "replaced",
            Self::Rejected => "rejected",
            Self::CredentialRejected => "credential_rejected",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::Valid => "valid",
            Self::Duplicate => "duplicate",
        }
    }

    /// Returns true if nothing has to be done.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Delivered | Self::Replaced | Self::Valid | Self::Duplicate)
    }
}

/// How many targets of a send or stream have which status, and the most frequent reasons: for the log.
#[derive(Debug, Clone, Default)]
pub struct SendTally {
    counts: [u64; Status::ALL.len()],
    tries: u64,
    /// The services' reasons and ours.
    codes: Vec<(String, u64)>,
}

/// Different reasons that a [`SendTally`] counts.
const TALLIED_CODES: usize = 16;
/// Reasons that are logged, the most frequent ones.
const TOP_CODES: usize = 3;
/// Characters of a reason in the log.
const LOGGED_CODE: usize = 64;

impl SendTally {
    pub fn count(&mut self, result: &IndexedResult) {
        self.counts[result.result.status() as usize] += 1;
        self.tries += u64::from(result.attempts);
        if let Some(code) = result.result.code() {
            self.add_code(code, 1);
        }
    }

    /// Adds the targets of another part of the same send.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.tries += other.tries;
        other.codes.iter().for_each(|(code, count)| self.add_code(code, *count));
    }

    pub fn with(&self, status: Status) -> u64 {
        self.counts[status as usize]
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns how many times a push was tried, of all targets together.
    pub fn tries(&self) -> u64 {
        self.tries
    }

    /// Returns the most frequent reasons with their counts, as `BadDeviceToken=2,Unregistered=1`.
    pub fn top_codes(&self) -> Option<String> {
        let mut codes: Vec<_> = self.codes.iter().collect();
        codes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let top: Vec<_> =
            codes.iter().take(TOP_CODES).map(|(code, count)| format!("{code}={count}")).collect();
        (!top.is_empty()).then(|| top.join(","))
    }

    fn add_code(&mut self, code: &str, more: u64) {
        let code = code.char_indices().nth(LOGGED_CODE).map_or(code, |(end, _)| &code[..end]);
        if let Some((_, count)) = self.codes.iter_mut().find(|(known, _)| known == code) {
            *count += more;
        } else if self.codes.len() < TALLIED_CODES {
            self.codes.push((code.to_owned(), more));
        }
    }
}

impl DeliveryResult {
    /// Returns the service's reason, or ours, if the push was not delivered.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Settled(outcome) => outcome.code.as_deref(),
            Self::Failed(error) | Self::Lost(error) => Some(&error.code),
            Self::Valid | Self::Duplicate(_) => None,
        }
    }

    pub fn status(&self) -> Status {
        match self {
            Self::Settled(outcome) => settled(outcome),
            Self::Failed(error) => failed(error),
            Self::Lost(_) => Status::Unknown,
            Self::Valid => Status::Valid,
            Self::Duplicate(_) => Status::Duplicate,
        }
    }

    /// Returns the error that says why the push was not delivered, if it was not. `provider`: its name, for
    /// the messages.
    pub fn into_error(self, provider: &str) -> Result<(), Error> {
        let outcome = match self {
            Self::Settled(outcome) => outcome,
            Self::Failed(error) | Self::Lost(error) => return Err(error),
            Self::Valid => return Ok(()),
            Self::Duplicate(_) => return Err(Error::internal("the only target is a duplicate")),
        };
        let (kind, code, text, retry_after): (_, _, Cow<'static, str>, _) = match &outcome.disposition {
            Disposition::Delivered | Disposition::Replaced(_) => return Ok(()),
            Disposition::Unregistered(None) => {
                (Kind::Gone, "unregistered", "the device token is dead".into(), None)
            }
            Disposition::Unregistered(Some(since)) => {
                let since = utc(UNIX_EPOCH.checked_add(Duration::from_millis(*since)).unwrap_or(UNIX_EPOCH));
                (Kind::Gone, "unregistered", format!("the device token is dead since {since}").into(), None)
            }
            Disposition::Rejected => (rejected(&outcome), "rejected", "the push was rejected".into(), None),
            Disposition::CredentialRejected(_) => {
                (Kind::CredentialRejected, "", "the application's credential was rejected".into(), None)
            }
            Disposition::Throttled(throttle) => {
                let whom = match throttle.scope {
                    Scope::Target => "this device token",
                    Scope::Application => "this application",
                    Scope::Provider => "this server",
                };
                (
                    Kind::Throttled,
                    "throttled",
                    format!("too many pushes for {whom}").into(),
                    throttle.retry_after,
                )
            }
            Disposition::Unavailable(wait) => {
                (Kind::Unavailable, "unavailable", "the service is in trouble".into(), *wait)
            }
            Disposition::Unknown => {
                let text = "the answer cannot be understood, the push may or may not have arrived";
                (Kind::TimedOut, "delivery_unknown", text.into(), None)
            }
        };
        let code = code_of(&outcome, kind, code, provider);
        let message = message_of(outcome, provider, &text);
        Err(Error::new(kind, code, message).after(retry_after.map(Duration::from_millis)))
    }

    /// Returns true if the push may have been delivered, so that another one would be a second delivery.
    pub fn may_have_been_delivered(&self) -> bool {
        match self {
            Self::Settled(outcome) => matches!(
                outcome.disposition,
                Disposition::Delivered | Disposition::Replaced(_) | Disposition::Unknown
            ),
            Self::Lost(_) => true,
            Self::Failed(_) | Self::Valid | Self::Duplicate(_) => false,
        }
    }
}

fn settled(outcome: &Outcome) -> Status {
    match outcome.disposition {
        Disposition::Delivered => Status::Delivered,
        Disposition::Unregistered(_) => Status::Unregistered,
        Disposition::Replaced(_) => Status::Replaced,
        Disposition::Rejected => Status::Rejected,
        Disposition::CredentialRejected(_) => Status::CredentialRejected,
        Disposition::Throttled(_) => Status::Throttled,
        Disposition::Unavailable(_) => Status::Unavailable,
        Disposition::Unknown => Status::Unknown,
    }
}

fn failed(error: &Error) -> Status {
    match error.kind {
        Kind::Throttled => Status::Throttled,
        Kind::Internal | Kind::Provider | Kind::ProviderTimedOut => Status::Failed,
        Kind::CredentialRejected => Status::CredentialRejected,
        Kind::Gone => Status::Unregistered,
        Kind::Overloaded | Kind::Unreachable | Kind::Unavailable | Kind::TimedOut => Status::Unavailable,
        _ => Status::Rejected,
    }
}

/// Returns the error for a push whose deadline passed before it could be sent.
pub(crate) fn deadline_exceeded() -> Error {
    Error::new(Kind::TimedOut, "deadline_exceeded", "it could not be sent in time")
}

/// Returns the outcome of a push that was sent and may or may not have been delivered.
pub(crate) fn unknown(message: &str) -> Outcome {
    Outcome {
        disposition: Disposition::Unknown,
        id: None,
        code: None,
        message: Some(message.to_owned()),
        connection: ConnectionHint::Keep,
    }
}

/// `2012-11-27T22:24:07Z`; times outside the years 1970 to 9999 become the nearest of them.
pub fn utc(time: SystemTime) -> impl Display {
    const END_OF_9999: Duration = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(time.clamp(UNIX_EPOCH, UNIX_EPOCH + END_OF_9999))
}

/// Returns the kind of a rejection: the vendors' codes for a message that is too long count, whatever the
/// status.
fn rejected(outcome: &Outcome) -> Kind {
    match outcome.code.as_deref() {
        Some("PayloadTooLarge" | "MessageTooBig") => Kind::TooLarge,
        _ => Kind::Invalid,
    }
}

fn code_of(outcome: &Outcome, kind: Kind, fallback: &'static str, provider: &str) -> Cow<'static, str> {
    let vendors = outcome.code.as_deref().map(snake_case).unwrap_or_default();
    match kind {
        // One code for every unknown outcome: a vendor's code would read like a certain failure.
        Kind::TimedOut => fallback.into(),
        _ if !vendors.is_empty() => vendors.into(),
        Kind::CredentialRejected => format!("invalid_{}_credentials", snake_case(provider)).into(),
        _ => fallback.into(),
    }
}

fn message_of(outcome: Outcome, provider: &str, text: &str) -> String {
    match (outcome.message, outcome.code) {
        (Some(message), _) if !message.is_empty() => message,
        (_, Some(code)) => format!("{provider}: {text}: {code}"),
        (_, None) => format!("{provider}: {text}"),
    }
}

/// Turns `BadDeviceToken` and `BAD_DEVICE_TOKEN` into `bad_device_token`. At most 64 characters of
/// `[a-z0-9_]`.
fn snake_case(code: &str) -> String {
    let mut output = String::new();
    let mut before = None;
    let mut rest = code.chars().take(64).peekable();
    while let Some(c) = rest.next() {
        if !c.is_ascii_alphanumeric() {
            before = None;
        } else {
            let next_is_lower = rest.peek().is_some_and(char::is_ascii_lowercase);
            let starts_word = match before {
                None => true,
                Some(p) => c.is_ascii_uppercase() && (!char::is_ascii_uppercase(&p) || next_is_lower),
            };
            if starts_word && !output.is_empty() {
                output.push('_');
            }
            output.push(c.to_ascii_lowercase());
            before = Some(c);
        }
    }
    output.truncate(64);
    output
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
