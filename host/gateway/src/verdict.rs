//! What an undelivered push is to the caller: a typed error, whose kind chooses the HTTP status.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::status::Fate;
use pushlet_model::contract::{Disposition, Outcome, Scope};
use pushlet_model::error::{Error, Kind};

impl Fate {
    /// The error that says why the push was not delivered. `provider`: for the messages.
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

    /// Is it possible that the push was delivered, so that another would be a second one?
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

/// `2012-11-27T22:24:07Z`; times outside the years 1970 to 9999 become the nearest of them.
pub fn utc(time: SystemTime) -> impl Display {
    const END_OF_9999: Duration = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(time.clamp(UNIX_EPOCH, UNIX_EPOCH + END_OF_9999))
}

/// The vendors' words for a message that is too long, whatever status they come with.
fn rejected(outcome: &Outcome) -> Kind {
    match outcome.code.as_deref() {
        Some("PayloadTooLarge" | "MessageTooBig") => Kind::TooLarge,
        _ => Kind::Invalid,
    }
}

fn code_of(outcome: &Outcome, kind: Kind, fallback: &'static str, provider: &str) -> Cow<'static, str> {
    let vendors = outcome.code.as_deref().map(snake_case).unwrap_or_default();
    match kind {
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

/// `BadDeviceToken` and `BAD_DEVICE_TOKEN` → `bad_device_token`. At most 64 characters of `[a-z0-9_]`.
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
#[path = "verdict_tests.rs"]
mod tests;
