//! Why an exchange cannot be authenticated.

use std::time::Duration;

use pushlet_model::error::Error;

/// Why an exchange cannot be authenticated, sorted by who must act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeError {
    /// The caller: the application lacks a setting.
    #[error("the setting {0} is missing")]
    MissingSetting(String),
    /// The provider's author: its manifest asks for what the credential cannot give.
    #[error("the provider's manifest does not fit the credential: {0}")]
    Manifest(String),
    /// The operator: the token endpoint refuses the credential. The description is the endpoint's own, made harmless.
    #[error("the token endpoint refused the credential: {code}{}", described(description.as_deref()))]
    Refused { code: String, description: Option<String> },
    /// No one: wait. The detail is for the log.
    #[error("the token endpoint is not available: {reason}")]
    Unavailable { reason: String, detail: String, retry_after: Option<Duration> },
    /// The owner of the credential: it names a token endpoint that may not be asked. The detail is for the log.
    #[error("the token endpoint may not be asked: {reason}")]
    Forbidden { reason: String, detail: String },
    /// The operator of the token endpoint.
    #[error("the token endpoint cannot be understood: {0}")]
    Malformed(&'static str),
    /// The caller's deadline came before the token.
    #[error("no token came in time")]
    DeadlineExceeded,
    /// The caller's tenant: its share of the tokens that are kept is in use, and none of them may be replaced yet.
    #[error(
        "this tenant uses as many tokens as its share of this server allows, and push services accept new ones \
         only after a while (limit tokens)"
    )]
    TooManyTokens,
    /// The system gives no random numbers.
    #[error("a token could not be signed")]
    Signing,
    /// The tenant, or this server, has too much work to sign one now.
    #[error("a token could not be signed now: {}", .0.message)]
    NoCapacity(Error),
}

impl AuthorizeError {
    pub(crate) fn manifest(why: &str) -> Self {
        Self::Manifest(why.to_owned())
    }

    pub(crate) fn unavailable(reason: &str, retry_after: Option<Duration>) -> Self {
        Self::Unavailable { reason: reason.to_owned(), detail: String::new(), retry_after }
    }
}

fn described(description: Option<&str>) -> String {
    description.map(|description| format!(" ({description})")).unwrap_or_default()
}
