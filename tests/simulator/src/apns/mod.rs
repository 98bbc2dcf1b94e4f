//! Apple Push Notification service: the HTTP/2 provider API.
//!
//! `POST /3/device/{token}` (device pushes), `POST /4/broadcasts/apps/{bundle}` (broadcasts) and
//! `/1/apps/{bundle}/channels` with `/1/apps/{bundle}/all-channels` (channel management).
//!
//! Order of the checks of a device push: path, method, repeated headers, `apns-id`, credential,
//! `apns-expiration`, `apns-priority`, `apns-push-type`, `apns-collapse-id`, `apns-topic`, device token, payload.
//!
//! Magic device tokens, for requests that pass all of them:
//!
//! | token starts with | answer |
//! |---|---|
//! | `dead` | 410 `Unregistered`, with the time of the simulator's start |
//! | `bad0` and two digits | the status and reason with that index in `device` of `data/apns_reasons.json` |
//!
//! For broadcast and channel requests with a provider token, a bundle id that ends in `.bad1` and two digits
//! asks for that index in `channel_and_broadcast`. `GET /` of the control API lists all of them.
//!
//! Where Apple's documents are silent: a payload that is not a JSON object, or is `{}` for another topic than a
//! Wallet pass, is `PayloadEmpty`; MDM's topic and push type with a provider token are `TopicDisallowed`, for MDM
//! takes certificates alone; a push type whose topic lacks its suffix is `InvalidPushType`; the scheme of `authorization` must be written
//! `bearer`; an `apns-id` must be in lower case; times may be a minute in the future.

mod auth;
mod channels;
mod device;
mod headers;
mod jwt;
mod magic;
mod reasons;
pub(crate) mod server;
mod settings;

use std::sync::{PoisonError, RwLock};

use rcgen::PublicKeyData;

use crate::clock::unix_millis;
use crate::credentials::{KEY_ID, Material, TEAM_ID};
use crate::error::StartError;
use channels::Channels;
use jwt::ProviderKey;
pub(crate) use magic::help;

/// What APNs knows.
pub(crate) struct ApnsState {
    started_ms: i64,
    keys: RwLock<Vec<ProviderKey>>,
    channels: Channels,
}

impl ApnsState {
    pub fn new(material: &Material) -> ApnsState {
        let public_key = material.provider_public_key.clone();
        let key = ProviderKey { key_id: KEY_ID.to_owned(), team_id: TEAM_ID.to_owned(), public_key };
        ApnsState { started_ms: unix_millis(), keys: RwLock::new(vec![key]), channels: Channels::default() }
    }

    /// Makes and registers a signing key; one with the same id is replaced.
    pub fn issue_key(&self, key_id: &str, team_id: &str) -> Result<String, StartError> {
        let pair = rcgen::KeyPair::generate().map_err(|error| StartError::Make(error.to_string()))?;
        let public_key = pair.der_bytes().to_vec();
        let key = ProviderKey { key_id: key_id.to_owned(), team_id: team_id.to_owned(), public_key };
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|known| known.key_id != key_id);
        keys.push(key);
        Ok(pair.serialize_pem())
    }

    fn key(&self, key_id: &str) -> Option<ProviderKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| key.key_id == key_id).cloned()
    }
}
