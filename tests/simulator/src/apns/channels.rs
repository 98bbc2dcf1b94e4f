//! Channel management and broadcasts (iOS 18): `/1/apps/{bundle}/…` and `/4/broadcasts/apps/{bundle}`.
//!
//! A certificate for another topic is `TopicMismatch`; a bundle id that no bundle can have is
//! `TopicDisallowed`. A stored channel that does not exist is `ChannelNotRegistered`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::auth::{self, Credential};
use super::headers::{self, Refusal};
use super::server::ApnsConnection;
use super::{ApnsState, magic};
use crate::Environment;
use crate::answer::Answer;
use crate::state::Verdict;

/// Apple: channels per app and environment.
const MAX_CHANNELS: usize = 10_000;
/// This simulator: apps with channels.
const MAX_APPS: usize = 1000;
const MAX_PAYLOAD: usize = 5120;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Read,
    Delete,
    List,
    Broadcast,
}

/// Channel ids and their storage policy, by bundle id.
#[derive(Default)]
pub(super) struct Channels(Mutex<HashMap<String, BTreeMap<String, u8>>>);

impl Action {
    /// The action of a path and method, with the bundle id; `Err` where there is none.
    pub fn of<'a>(method: &Method, path: &'a str) -> Result<(Action, &'a str), Refusal> {
        let mut actions = None;
        if let Some(bundle) = path.strip_prefix("/4/broadcasts/apps/") {
            actions = Some((bundle, vec![(Method::POST, Action::Broadcast)]));
        } else if let Some(rest) = path.strip_prefix("/1/apps/") {
            actions = match rest.rsplit_once('/') {
                Some((bundle, "channels")) => Some((
                    bundle,
                    vec![
                        (Method::POST, Action::Create),
                        (Method::GET, Action::Read),
                        (Method::DELETE, Action::Delete),
                    ],
                )),
                Some((bundle, "all-channels")) => Some((bundle, vec![(Method::GET, Action::List)])),
                _ => None,
            };
        }
        let (bundle, methods) = actions.filter(|(bundle, _)| is_segment(bundle)).ok_or(Refusal("BadPath"))?;
        let action = methods.into_iter().find(|(allowed, _)| allowed == method);
        action.map(|(_, action)| (action, bundle)).ok_or(Refusal("MethodNotAllowed"))
    }
}

fn is_segment(bundle: &str) -> bool {
    !bundle.is_empty() && !bundle.contains('/')
}

/// Checks a channel or broadcast request and answers it.
pub(super) fn request(
    apns: &ApnsState,
    connection: &ApnsConnection,
    (action, bundle): (Action, &str),
    headers: &HeaderMap,
    body: &[u8],
) -> Verdict {
    let id = headers::message_id(headers, "apns-request-id").ok().flatten();
    let id = id.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let done = perform(apns, connection, (action, bundle), headers, body);
    let answered = match done {
        Ok(answer) => Ok(answer.header("apns-request-id", &id)),
        Err(refusal) => Err(refusal.answer().header("apns-request-id", &id)),
    };
    Verdict::of(None, Some(bundle.to_owned()), answered)
}

fn perform(
    apns: &ApnsState,
    connection: &ApnsConnection,
    (action, bundle): (Action, &str),
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Refusal> {
    headers::check_repeated(headers).map_err(|_| Refusal("BadRequestParams"))?;
    headers::message_id(headers, "apns-request-id")?;
    let credential = auth::check(apns, connection, headers)?;
    connection.authenticated();
    if !headers::is_topic(bundle) {
        return Err(Refusal("TopicDisallowed"));
    }
    if let Credential::Certificate(identity) = credential
        && !identity.topics.iter().any(|topic| topic == bundle)
    {
        return Err(Refusal("TopicMismatch"));
    }
    if let Some(magic) = magic::of_bundle(bundle) {
        return Ok(headers::reason(magic.status, &magic.name, None));
    }
    let channels = &apns.channels;
    match action {
        Action::Create => channels.create(bundle, body),
        Action::Read => channels.read(bundle, channel_id(headers)?),
        Action::Delete => channels.delete(bundle, channel_id(headers)?),
        Action::List => Ok(channels.list(bundle)),
        Action::Broadcast => channels.broadcast(connection.environment, bundle, headers, body),
    }
}

fn channel_id(headers: &HeaderMap) -> Result<&str, Refusal> {
    let id = headers::text(headers, "apns-channel-id").ok_or(Refusal("MissingChannelId"))?;
    match STANDARD.decode(id) {
        Ok(bytes) if !bytes.is_empty() => Ok(id),
        _ => Err(Refusal("BadChannelId")),
    }
}

impl Channels {
    fn create(&self, bundle: &str, body: &[u8]) -> Result<Answer, Refusal> {
        let policy = new_channel(body)?;
        let mut apps = self.lock();
        if !apps.contains_key(bundle) && apps.len() >= MAX_APPS {
            return Err(Refusal("CannotCreateChannelConfig"));
        }
        let channels = apps.entry(bundle.to_owned()).or_default();
        if channels.len() >= MAX_CHANNELS {
            return Err(Refusal("CannotCreateChannelConfig"));
        }
        let id = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        let answer = Answer::empty(StatusCode::CREATED).header("apns-channel-id", &id);
        channels.insert(id, policy);
        Ok(answer)
    }

    fn read(&self, bundle: &str, id: &str) -> Result<Answer, Refusal> {
        let policy = self.policy(bundle, id)?;
        Ok(Answer::json(
            StatusCode::OK,
            &json!({"message-storage-policy": policy, "push-type": "LiveActivity"}),
        ))
    }

    fn delete(&self, bundle: &str, id: &str) -> Result<Answer, Refusal> {
        let removed = self.lock().get_mut(bundle).and_then(|channels| channels.remove(id));
        removed.map(|_| Answer::empty(StatusCode::NO_CONTENT)).ok_or(Refusal("ChannelNotRegistered"))
    }

    fn list(&self, bundle: &str) -> Answer {
        let apps = self.lock();
        let ids: Vec<&String> =
            apps.get(bundle).map(|channels| channels.keys().collect()).unwrap_or_default();
        Answer::json(StatusCode::OK, &json!({ "channels": ids }))
    }

    fn broadcast(
        &self,
        environment: Environment,
        bundle: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answer, Refusal> {
        let push_type = headers::text(headers, "apns-push-type").ok_or(Refusal("MissingPushType"))?;
        if !push_type.eq_ignore_ascii_case("liveactivity") {
            return Err(Refusal("InvalidPushType"));
        }
        let policy = self.policy(bundle, channel_id(headers)?)?;
        let expiration = headers::expiration(headers)?;
        if policy == 0 && expiration.is_some_and(|seconds| seconds != 0) {
            return Err(Refusal("BadExpirationDate"));
        }
        headers::priority(headers)?;
        if body.len() > MAX_PAYLOAD {
            return Err(Refusal("PayloadTooLarge"));
        }
        object(body)?;
        let answer = Answer::empty(StatusCode::OK).delivered(1);
        Ok(match environment {
            Environment::Production => answer,
            Environment::Development => answer.header("apns-unique-id", &uuid::Uuid::new_v4().to_string()),
        })
    }

    fn policy(&self, bundle: &str, id: &str) -> Result<u8, Refusal> {
        let apps = self.lock();
        let policy = apps.get(bundle).and_then(|channels| channels.get(id));
        policy.copied().ok_or(Refusal("ChannelNotRegistered"))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The storage policy of a request for a new channel: 0 keeps nothing, 1 keeps the newest message.
fn new_channel(body: &[u8]) -> Result<u8, Refusal> {
    let request = object(body)?;
    match request.get("push-type").map(|value| value.as_str()) {
        None => return Err(Refusal("MissingPushType")),
        Some(Some(value)) if value.eq_ignore_ascii_case("liveactivity") => {}
        Some(_) => return Err(Refusal("InvalidPushType")),
    }
    match request.get("message-storage-policy").and_then(Value::as_u64) {
        Some(0) => Ok(0),
        Some(1) => Ok(1),
        _ => Err(Refusal("BadRequestPayload")),
    }
}

fn object(body: &[u8]) -> Result<serde_json::Map<String, Value>, Refusal> {
    if body.is_empty() {
        return Err(Refusal("PayloadEmpty"));
    }
    serde_json::from_slice(body).map_err(|_| Refusal("BadRequestPayload"))
}
