//! Notifications to requests: one for each subscription, since each has a body of its own.

use crate::encrypt::{ENTROPY, Keys, text};
use crate::payload;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pushlet_provider::input::{Options, all, invalid, missing, rejection, unsupported};
use pushlet_provider::reply::{self, index};
use pushlet_provider::{
    Context, Encoded, Exchange, Message, Method, Notification, Priority, Recipient, Refusal, Rejection,
    Target,
};
use sha2::{Digest, Sha256};

/// Four weeks, the longest that Google keeps a message.
const LONGEST_TTL: u32 = 2_419_200;
/// Bytes of the digest of a collapse key: 32 characters of base64url, which is what a topic may have.
const TOPIC: usize = 24;

/// Encodes a notification for subscriptions.
pub fn encode(
    context: &Context,
    notification: &Notification,
    recipients: &[Recipient],
) -> Result<Encoded, Rejection> {
    let call = Call {
        message: payload::message(notification)?,
        ttl: notification.time_to_live.unwrap_or(LONGEST_TTL),
        headers: headers(notification)?,
    };
    let mut encoded = reply::empty();
    for (place, recipient) in recipients.iter().enumerate() {
        let covers = vec![index(place)];
        let entropy = context.entropy.get(place * ENTROPY..(place + 1) * ENTROPY).unwrap_or_default();
        match call.request(recipient, entropy) {
            Ok((url, message)) => {
                encoded.exchanges.push(Exchange {
                    covers,
                    message: index(encoded.messages.len()),
                    url: Some(url),
                    path: "/".into(),
                    headers: Vec::new(),
                    idempotent: false,
                });
                encoded.messages.push(message);
            }
            Err(rejection) => encoded.refusals.push(Refusal { covers, rejection }),
        }
    }
    Ok(encoded)
}

/// What all requests of one encoding have in common.
struct Call {
    message: Option<Vec<u8>>,
    ttl: u32,
    headers: Vec<(String, String)>,
}

impl Call {
    fn request(&self, recipient: &Recipient, entropy: &[u8]) -> Result<(String, Message), Rejection> {
        let Target::Url(url) = &recipient.target else { return Err(unsupported(&recipient.target)) };
        let host = host(url);
        if host == "permanently-removed.invalid" || url.starts_with("https://android.googleapis.com/gcm/send")
        {
            let message = "the browser has no push service any more: drop the subscription";
            return Err(rejection("dead_subscription", message, Some("url")));
        }
        let mut headers = self.headers.clone();
        // Microsoft refuses a TTL of 0 whose cache policy is another.
        if host.ends_with(".notify.windows.com") {
            let policy = if self.ttl == 0 { "no-cache" } else { "cache" };
            headers.push(("x-wns-cache-policy".into(), policy.into()));
        }
        let mut body = Vec::new();
        if let Some(message) = &self.message {
            let keys = keys(recipient)?;
            let encrypted = keys.encrypt(message, entropy);
            body = encrypted.ok_or_else(|| rejection("no_key", "the random bytes hold no key", None))?;
            headers.push(("content-encoding".into(), "aes128gcm".into()));
            headers.push(("content-type".into(), "application/octet-stream".into()));
        }
        let endpoint = "push".into();
        Ok((url.clone(), Message { endpoint, method: Method::Post, headers, body, authenticate: true }))
    }
}

/// The subscription's keys, or everything that is wrong with them.
fn keys(recipient: &Recipient) -> Result<Keys, Rejection> {
    let option = |name: &str| {
        let (_, json) = recipient.options.iter().find(|(known, _)| known == name)?;
        text(json)
    };
    match (option("p256dh"), option("auth")) {
        (Some(p256dh), Some(auth)) => Keys::read(&p256dh, &auth),
        (p256dh, auth) => {
            let given = [("p256dh", p256dh.is_some()), ("auth", auth.is_some())];
            let absent = given.into_iter().filter(|(_, given)| !given);
            let faults =
                absent.map(|(name, _)| missing(name, format!("{name} of the subscription is required")));
            all(faults).and_then(|()| Err(invalid("auth", "the subscription has no keys")))
        }
    }
}

fn headers(notification: &Notification) -> Result<Vec<(String, String)>, Rejection> {
    let options = Options::of(notification);
    let ttl = notification.time_to_live.unwrap_or(LONGEST_TTL);
    let mut headers = vec![("ttl".to_string(), ttl.to_string())];
    let urgency =
        options.text("urgency")?.or_else(|| notification.priority.map(|priority| urgency(priority).into()));
    headers.extend(urgency.map(|urgency| ("urgency".to_string(), urgency)));
    let topic = match options.text("topic")? {
        Some(topic) => Some(checked_topic(topic)?),
        None => notification.collapse_key.as_deref().map(topic),
    };
    headers.extend(topic.map(|topic| ("topic".to_string(), topic)));
    Ok(headers)
}

fn urgency(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
    }
}

/// A digest has the length and the letters that every service takes.
fn topic(collapse_key: &str) -> String {
    let digest = Sha256::digest(collapse_key.as_bytes());
    URL_SAFE_NO_PAD.encode(digest.get(..TOPIC).unwrap_or_default())
}

/// Apple refuses what is not base64url, such as five letters.
fn checked_topic(topic: String) -> Result<String, Rejection> {
    let letters = topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if letters && (1..=32).contains(&topic.len()) && topic.len() % 4 != 1 {
        return Ok(topic);
    }
    Err(invalid("topic", "topic must be 1 to 32 letters of base64url, of a length that base64url has"))
}

fn host(url: &str) -> &str {
    let rest = url.strip_prefix("https://").unwrap_or_default();
    rest.split(['/', '?', ':']).next().unwrap_or_default()
}
