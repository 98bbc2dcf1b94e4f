//! The one error type that all crates share, sorted by who must act; and warnings that are not repeated with
//! every push.
//!
//! Every error has an outer text for the caller ([`Error::message`]) and may have an inner one for the log
//! ([`Error::inner`]). The HTTP status is chosen from [`Error::kind`] in one place, in `pushlet-api`.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::contract::{Fault, Rejection};

/// A warning that repeats is logged at most once in this time.
const PAUSE: Duration = Duration::from_secs(60);

/// Who must act, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The caller: the request is wrong as it stands.
    Invalid,
    /// The caller: no or wrong credentials for Pushlet itself.
    AccessDenied,
    /// The caller: the credentials are right, and do not allow this.
    Forbidden,
    /// The caller: there is no such thing.
    NotFound,
    /// The caller: the request conflicts with one that is in flight.
    Conflict,
    /// The caller: the message or the request is too large.
    TooLarge,
    /// The caller: the content type is not understood.
    UnsupportedMediaType,
    /// The caller: the device token is dead, drop it.
    Gone,
    /// The operator of the application: the push service refuses its credential.
    CredentialRejected,
    /// The caller, later: it is too fast.
    Throttled,
    /// No one; retry later: a limit of this server is reached, or it is stopping.
    Overloaded,
    /// No one; retry later: the push service cannot be reached or is in trouble.
    Unreachable,
    /// No one; retry later: the push service reports a failure of its own.
    Unavailable,
    /// The push service or the component did not answer in time; the push may or may not have arrived.
    TimedOut,
    /// The author of the component: it broke the contract.
    Provider,
    /// The author of the component: a call took too long.
    ProviderTimedOut,
    /// The developers of Pushlet: this is a defect.
    Internal,
}

/// A field of a request that is wrong, in addition to the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `snake_case`.
    pub code: Cow<'static, str>,
    pub message: Cow<'static, str>,
    pub field: Option<String>,
}

/// A failure, for the caller and for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    /// `snake_case`, stable, for programs.
    pub code: Cow<'static, str>,
    /// For people; never holds a secret or another tenant's data.
    pub message: Cow<'static, str>,
    /// The field of the request that is wrong.
    pub field: Option<String>,
    /// What else is wrong with the request, where several fields are. Boxed, since it is nearly always absent.
    pub more: Option<Box<Vec<FieldError>>>,
    /// When a retry makes sense.
    pub retry_after: Option<Duration>,
    /// For the log only. Not a `String`: results carry errors, and stay small.
    pub inner: Option<Box<str>>,
}

impl Error {
    pub fn new(
        kind: Kind,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { kind, code, message, field: None, more: None, retry_after: None, inner: None }
    }

    /// Returns the error for a request that is wrong in one field.
    pub fn field(
        code: impl Into<Cow<'static, str>>,
        field: impl Into<String>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(Kind::Invalid, code, message).about(field)
    }

    /// Returns the error for a defect of Pushlet: the caller learns only that the request was not at fault.
    pub fn internal(inner: impl fmt::Display) -> Self {
        Self::new(
            Kind::Internal,
            "unexpected_error",
            "An unexpected error has occured, please try your request again later",
        )
        .caused_by(inner)
    }

    pub fn about(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Adds what else is wrong with the request.
    pub fn and(mut self, others: impl IntoIterator<Item = FieldError>) -> Self {
        let mut others = others.into_iter().peekable();
        if others.peek().is_some() {
            self.more.get_or_insert_default().extend(others);
        }
        self
    }

    /// Merges errors about fields into one; None: there is no error.
    pub fn merged(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let first = errors.next()?;
        Some(errors.fold(first, |first, Self { code, message, field, more, .. }| {
            let others = more.map(|more| *more).unwrap_or_default();
            first.and([FieldError { code, message, field }].into_iter().chain(others))
        }))
    }

    pub fn after(mut self, retry_after: impl Into<Option<Duration>>) -> Self {
        self.retry_after = retry_after.into();
        self
    }

    pub fn caused_by(mut self, inner: impl fmt::Display) -> Self {
        self.inner = Some(inner.to_string().into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match &self.inner {
            Some(inner) => write!(f, " ({inner})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        let kind = if rejection.code == "payload_too_large" { Kind::TooLarge } else { Kind::Invalid };
        let other =
            |Fault { code, message, field }| FieldError { code: code.into(), message: message.into(), field };
        let error =
            Error::new(kind, rejection.code, rejection.message).and(rejection.more.into_iter().map(other));
        match rejection.field {
            Some(field) => error.about(field),
            None => error,
        }
    }
}

/// Decides for one kind of warning whether it is logged.
#[derive(Default)]
pub struct RepeatedWarning(Mutex<RepeatCount>);

#[derive(Default)]
struct RepeatCount {
    logged_at: Option<Instant>,
    /// Repeats since then.
    counted: u64,
}

impl RepeatedWarning {
    /// Records one more occurrence. If it is to be logged, returns how many were only counted since the last
    /// line.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.logged_at.is_some_and(|at| now < at + PAUSE) {
            state.counted += 1;
            return None;
        }
        state.logged_at = Some(now);
        Some(std::mem::take(&mut state.counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_the_next_are_counted_for_a_while() {
        let (repeats, start) = (RepeatedWarning::default(), Instant::now());
        assert_eq!(repeats.due(start), Some(0));
        for seconds in [0, 1, 59] {
            assert_eq!(repeats.due(start + Duration::from_secs(seconds)), None);
        }
        assert_eq!(repeats.due(start + PAUSE), Some(3));
        assert_eq!(repeats.due(start + PAUSE), None);
        assert_eq!(repeats.due(start + 2 * PAUSE), Some(1));
    }
}
