//! Google: FCM HTTP v1, the OAuth token endpoint and legacy GCM, on one listener.
//!
//! - `POST /v1/projects/{project}/messages:send`, see [`fcm`];
//! - `…/registrations/{registration}/topicSubscriptions`, see [`subscriptions`];
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
pub mod subscriptions;

use std::time::Duration;

use oauth::AccessTokens;

/// What Google knows.
pub(crate) struct GoogleState {
    token_uri: String,
    pub access_tokens: AccessTokens,
    pub subscriptions: subscriptions::Subscriptions,
}

impl GoogleState {
    pub fn new(token_uri: String, access_token_lifetime: Duration) -> GoogleState {
        let access_tokens = AccessTokens::new(access_token_lifetime);
        GoogleState { token_uri, access_tokens, subscriptions: subscriptions::Subscriptions::default() }
    }
}
