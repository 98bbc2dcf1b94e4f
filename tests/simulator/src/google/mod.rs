//! Google: FCM HTTP v1, the OAuth token endpoint and legacy GCM, on one listener.
//!
//! - `POST /v1/projects/{project}/messages:send`, see [`fcm`];
//! - `POST /token`, see [`oauth`];
//! - `POST /gcm/send` and `POST /fcm/send`, see [`gcm`];
//! - anything else is the HTML 404 of Google's front end.

mod discovery;
pub mod fcm;
mod fcm_values;
pub mod gcm;
mod gcm_message;
mod json;
pub mod oauth;
mod scheme;
pub(crate) mod server;

use std::time::Duration;

use oauth::AccessTokens;

/// What Google knows.
pub(crate) struct GoogleState {
    token_uri: String,
    pub access_tokens: AccessTokens,
}

impl GoogleState {
    pub fn new(token_uri: String, access_token_lifetime: Duration) -> GoogleState {
        GoogleState { token_uri, access_tokens: AccessTokens::new(access_token_lifetime) }
    }
}
