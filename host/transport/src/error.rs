//! Failures of a send, and what is known about the request.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::request::Origin;

/// How often a request that the peer certainly did not process is sent.
const ATTEMPTS: u32 = 8;
/// Pause before a request that was refused is sent again; it doubles each time.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);
/// When a peer may be free again: pushes take about a second at most.
const PEERS_PAUSE: Duration = Duration::from_secs(1);

/// Most characters of a reason that callers get.
const LONGEST_REASON: usize = 300;

/// What is known about a request without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestState {
    /// The peer has not processed it and never will: it is safe to send again.
    NotSent,
    /// It was handed to the socket whole and no answer came: it may or may not have been processed.
    Unknown,
}

/// Why a send failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailureCause {
    #[error("the request cannot be put on the wire")]
    InvalidRequest,
    #[error("the host name does not resolve")]
    Dns,
    #[error("no connection could be opened")]
    Connect,
    #[error("no connection could be opened in time")]
    ConnectTimeout,
    /// The handshake failed, or the peer does not speak the protocol that was asked for.
    #[error("the TLS handshake failed")]
    Tls,
    #[error("the address is not a public one")]
    ForbiddenAddress,
    /// The wait queue of this origin and identity is full.
    #[error("too many requests are waiting for this peer")]
    Overloaded,
    /// The tenant's requests are in flight to as many origins and identities as its share allows.
    #[error("the tenant sends to too many peers at the same time")]
    TooManyPeers,
    /// The circuit breaker is open: the last connects all failed.
    #[error("the peer is down")]
    PeerDown,
    #[error("the deadline passed")]
    Deadline,
    /// The peer said that it closes the connection (RFC 9113, section 6.8).
    #[error("the peer closed the connection with GOAWAY code {code}{}", reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    GoAway {
        /// Error code of RFC 9113, section 7.
        code: u32,
        /// `reason` of the JSON debug data that APNs sends, else the debug data itself.
        reason: Option<String>,
    },
    /// REFUSED_STREAM (RFC 9113, section 8.7), again and again.
    #[error("the peer refused the stream")]
    Refused,
    /// RST_STREAM with another code.
    #[error("the peer reset the stream with code {0}")]
    Reset(u32),
    #[error("the connection was lost")]
    ConnectionLost,
    #[error("the response is too large")]
    TooLarge,
    /// Of the account that it is on, or of the process.
    #[error("there is no memory left for the response (limit memory_bytes)")]
    OutOfMemory,
    #[error("the peer broke the protocol")]
    Protocol,
    #[error("shutting down")]
    ShuttingDown,
}

impl FailureCause {
    /// Returns true if a dial failed, so that nothing was sent.
    pub(super) fn is_failed_connect(&self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout | Self::Dns | Self::Tls)
    }
}

/// Why no connection came about.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{cause}: {detail}")]
pub(super) struct DialError {
    pub cause: FailureCause,
    pub detail: String,
}

impl DialError {
    pub fn new(cause: FailureCause, detail: impl Into<String>) -> Self {
        DialError { cause, detail: detail.into() }
    }

    /// Returns true if trying again soon will not help.
    pub fn is_lasting(&self) -> bool {
        matches!(self.cause, FailureCause::Tls | FailureCause::ForbiddenAddress)
    }
}

/// A send without an answer.
#[derive(Debug, Clone)]
pub struct SendError {
    pub delivery: RequestState,
    pub cause: FailureCause,
    /// When to try again, where that is known.
    pub retry_after: Option<Duration>,
    /// For the log of the operator, not for callers. Holds no secret.
    pub detail: String,
    /// Why the last connects failed, where the request waited for one in vain.
    pub(super) behind: Option<Box<DialError>>,
}

impl SendError {
    pub(super) fn new(delivery: RequestState, cause: FailureCause, detail: impl Into<String>) -> Self {
        SendError { delivery, cause, retry_after: None, detail: detail.into(), behind: None }
    }

    pub(super) fn not_sent(cause: FailureCause, detail: impl Into<String>) -> Self {
        Self::new(RequestState::NotSent, cause, detail)
    }

    /// No peer could be made for this origin: the tenant's share is in use.
    pub(super) fn too_many_peers(origin: &Origin) -> Self {
        Self::not_sent(FailureCause::TooManyPeers, origin.to_string()).retry_after(PEERS_PAUSE)
    }

    pub(super) fn unknown(cause: FailureCause, detail: impl Into<String>) -> Self {
        Self::new(RequestState::Unknown, cause, detail)
    }

    /// Returns true if the transport may send the request again after this many attempts: only if it is no fault of the
    /// request, and was certainly not processed.
    pub(super) fn may_resend(&self, attempts: u32, deadline: Instant) -> bool {
        attempts < ATTEMPTS
            && Instant::now() < deadline
            && self.delivery == RequestState::NotSent
            && matches!(
                self.cause,
                FailureCause::GoAway { .. } | FailureCause::Refused | FailureCause::ConnectionLost
            )
    }

    /// Waits before the next attempt: not at all, or longer each time where the peer refuses.
    pub(super) async fn pause(&self, attempts: u32, deadline: Instant) {
        if self.cause == FailureCause::Refused {
            sleep_until(deadline.min(Instant::now() + REFUSED_PAUSE * (1 << attempts))).await;
        }
    }

    pub(super) fn behind(self, failure: Option<DialError>) -> Self {
        SendError { behind: failure.map(Box::new), ..self }
    }

    /// At which step it failed, for callers: no address stands in it, for names of targets resolve to what their
    /// senders need not know.
    pub fn reason(&self) -> String {
        match &self.behind {
            Some(behind) => step(&behind.cause, &behind.detail),
            None => step(&self.cause, &self.detail),
        }
    }

    /// Returns true if the peer could not be reached at all.
    pub fn is_unreached(&self) -> bool {
        let step = |cause: &FailureCause| {
            matches!(
                cause,
                FailureCause::Dns
                    | FailureCause::Connect
                    | FailureCause::ConnectTimeout
                    | FailureCause::Tls
                    | FailureCause::ForbiddenAddress
            )
        };
        self.cause == FailureCause::PeerDown
            || step(&self.cause)
            || self.behind.as_ref().is_some_and(|one| step(&one.cause))
    }

    pub(super) fn retry_after(self, retry_after: Duration) -> Self {
        SendError { retry_after: Some(retry_after), ..self }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fate = match self.delivery {
            RequestState::NotSent => "not sent",
            RequestState::Unknown => "outcome unknown",
        };
        write!(f, "{} ({fate})", self.cause)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl std::error::Error for SendError {}

/// Describes the step that failed. The TLS library's message names no address, and says more than that it failed.
fn step(cause: &FailureCause, detail: &str) -> String {
    let said = match cause {
        FailureCause::Tls if !detail.is_empty() => format!("{cause}: {detail}"),
        _ => cause.to_string(),
    };
    // A certificate's names, or the reason of a GOAWAY, are the peer's words.
    said.chars().take(LONGEST_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Why no transport could be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("the system has no root certificates and none are configured")]
    NoRoots,
    #[error("an extra root certificate is invalid")]
    InvalidRoot(#[source] rustls::Error),
    #[error("the TLS provider does not work")]
    Tls(#[source] rustls::Error),
}
