//! `POST /3/device/{token}`.

use std::collections::HashMap;

use http::{HeaderMap, StatusCode};
use serde::de::IgnoredAny;

use super::auth::{self, Credential};
use super::headers::{self, Refusal};
use super::server::ApnsConnection;
use super::{ApnsState, magic};
use crate::Environment;
use crate::answer::Answer;
use crate::state::Verdict;

const MAX_COLLAPSE_ID: usize = 64;
const MAX_PAYLOAD: usize = 4096;
const MAX_VOIP_PAYLOAD: usize = 5120;
/// Apple gives no size for device tokens; this bounds what a request can hold.
const MAX_TOKEN: usize = 512;

/// How the topics of Wallet passes and of MDM begin.
const WALLET: &str = "pass.";
const MDM: &str = "com.apple.mgmt.";

/// Push types and the topic suffix that each one needs.
const PUSH_TYPES: [(&str, &str); 11] = [
    ("alert", ""),
    ("background", ""),
    ("complication", ".complication"),
    ("controls", ".push-type.controls"),
    ("fileprovider", ".pushkit.fileprovider"),
    ("liveactivity", ".push-type.liveactivity"),
    ("location", ".location-query"),
    ("mdm", ""),
    ("pushtotalk", ".voip-ptt"),
    ("voip", ".voip"),
    ("widgets", ".push-type.widgets"),
];

/// Checks a device push and answers it.
pub(super) fn push(
    apns: &ApnsState,
    connection: &ApnsConnection,
    token: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Verdict {
    let id = headers::message_id(headers, "apns-id").ok().flatten();
    let id = id.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let checked = check(apns, connection, token, headers, body);
    let answered = match checked {
        Ok(()) => Ok(accepted(apns, connection, token).header("apns-id", &id)),
        Err(refusal) => Err(refusal.answer().header("apns-id", &id)),
    };
    let token = Some(token.to_owned()).filter(|token| !token.is_empty());
    Verdict::of(token, topic(connection, headers).map(str::to_owned), answered)
}

/// The answer to a push that passed every check.
fn accepted(apns: &ApnsState, connection: &ApnsConnection, token: &str) -> Answer {
    if let Some(magic) = magic::of_token(token) {
        return headers::reason(magic.status, &magic.name, Some(apns.started_ms));
    }
    let answer = Answer::empty(StatusCode::OK).delivered(1);
    match connection.environment {
        Environment::Production => answer,
        Environment::Development => answer.header("apns-unique-id", &uuid::Uuid::new_v4().to_string()),
    }
}

fn check(
    apns: &ApnsState,
    connection: &ApnsConnection,
    token: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Refusal> {
    headers::check_repeated(headers)?;
    headers::message_id(headers, "apns-id")?;
    let credential = auth::check(apns, connection, headers)?;
    connection.authenticated();
    headers::expiration(headers)?;
    let priority = headers::priority(headers)?;
    let suffix = push_type(headers, priority)?;
    if headers::text(headers, "apns-collapse-id").is_some_and(|id| id.len() > MAX_COLLAPSE_ID) {
        return Err(Refusal("BadCollapseId"));
    }
    check_topic(&credential, topic(connection, headers), suffix)?;
    check_token(token)?;
    let voip = headers::text(headers, "apns-push-type") == Some("voip");
    check_payload(body, voip, topic(connection, headers).is_some_and(|topic| topic.starts_with(WALLET)))
}

/// The suffix that the push type wants; without a push type, any topic will do.
fn push_type(headers: &HeaderMap, priority: u8) -> Result<&'static str, Refusal> {
    let Some(value) = headers::text(headers, "apns-push-type") else { return Ok("") };
    let known = PUSH_TYPES.iter().find(|(name, _)| *name == value);
    let (name, suffix) = known.ok_or(Refusal("InvalidPushType"))?;
    // "Using priority 10 is an error", and 10 is what a missing header means.
    if *name == "background" && priority == 10 {
        return Err(Refusal("BadPriority"));
    }
    Ok(suffix)
}

/// The topic that was sent, else the only one of the certificate.
fn topic<'a>(connection: &'a ApnsConnection, headers: &'a HeaderMap) -> Option<&'a str> {
    let only = || match connection.identity.as_ref()?.topics.as_slice() {
        [topic] => Some(topic.as_str()),
        _ => None,
    };
    headers::text(headers, "apns-topic").or_else(only)
}

fn check_topic(credential: &Credential<'_>, topic: Option<&str>, suffix: &str) -> Result<(), Refusal> {
    let topic = topic.ok_or(Refusal("MissingTopic"))?;
    if !headers::is_topic(topic) {
        return Err(Refusal("BadTopic"));
    }
    if !topic.ends_with(suffix) {
        return Err(Refusal("InvalidPushType"));
    }
    match credential {
        Credential::Token if topic.starts_with(MDM) => Err(Refusal("TopicDisallowed")),
        Credential::Certificate(identity) if !identity.topics.iter().any(|allowed| allowed == topic) => {
            Err(Refusal("TopicDisallowed"))
        }
        _ => Ok(()),
    }
}

fn check_token(token: &str) -> Result<(), Refusal> {
    if token.is_empty() {
        return Err(Refusal("MissingDeviceToken"));
    }
    let hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
    match hex && token.len().is_multiple_of(2) && token.len() <= MAX_TOKEN {
        true => Ok(()),
        false => Err(Refusal("BadDeviceToken")),
    }
}

/// `{}` tells Wallet to fetch a pass again; in any other payload there must be something.
fn check_payload(body: &[u8], voip: bool, wallet: bool) -> Result<(), Refusal> {
    if body.len() > if voip { MAX_VOIP_PAYLOAD } else { MAX_PAYLOAD } {
        return Err(Refusal("PayloadTooLarge"));
    }
    let members: Result<HashMap<String, IgnoredAny>, _> = serde_json::from_slice(body);
    match members.is_ok_and(|members| wallet || !members.is_empty()) {
        true => Ok(()),
        false => Err(Refusal("PayloadEmpty")),
    }
}
