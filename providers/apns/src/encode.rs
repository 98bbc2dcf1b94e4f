//! Notifications to requests. All devices share one message, all channels another; an exchange adds the path and
//! the id.

use std::borrow::Cow;

use crate::aps::seconds;
use crate::payload::{Payload, check_size};
use crate::push_type::PushType;
use crate::topic;
use pushlet_provider::input::{Options, invalid, unsupported};
use pushlet_provider::reply::{self, index};
use pushlet_provider::{
    Application, Context, Encoded, Exchange, Message, Method, Notification, Priority, Recipient, Refusal,
    Rejection, Target, uuid,
};

/// The most bytes that the payload of a broadcast may have.
const BROADCAST_LIMIT: usize = 5120;
/// Hexadecimal digits of a device token at most. Apple calls the size variable; 64 is usual.
const TOKEN_DIGITS: usize = 200;
/// What stands around and between digits that a caller printed.
const MARKS: [char; 3] = [' ', '<', '>'];
/// Bytes of `apns-collapse-id` at most.
const COLLAPSE_ID: usize = 64;

/// Encodes a notification for devices and channels.
pub fn encode(
    context: &Context,
    application: &Application,
    notification: &Notification,
    recipients: &[Recipient],
) -> Result<Encoded, Rejection> {
    let options = Options::of(notification);
    let payload = Payload::build(notification, options)?;
    let topic = topic::base(application, options)?;
    let id = message_id(notification, options)?;
    let call = Call { context, application, notification, options, payload, topic, id };
    let mut encoded = reply::empty();
    let places = |wanted: fn(&Target) -> bool| -> Vec<usize> {
        (0..recipients.len())
            .filter(|place| recipients.get(*place).is_some_and(|recipient| wanted(&recipient.target)))
            .collect()
    };
    call.add(
        &mut encoded,
        recipients,
        places(|target| matches!(target, Target::Device(_))),
        Call::device_message,
    );
    call.add(
        &mut encoded,
        recipients,
        places(|target| matches!(target, Target::Channel(_))),
        Call::broadcast_message,
    );
    for (place, Recipient { target, .. }) in recipients.iter().enumerate() {
        if !matches!(target, Target::Device(_) | Target::Channel(_)) {
            encoded.refusals.push(Refusal { covers: vec![index(place)], rejection: unsupported(target) });
        }
    }
    Ok(encoded)
}

/// What every part of one encoding looks at.
struct Call<'a> {
    context: &'a Context,
    application: &'a Application,
    notification: &'a Notification,
    options: Options<'a>,
    payload: Payload,
    topic: Option<String>,
    id: Option<String>,
}

impl Call<'_> {
    /// Adds one message and the exchanges of the targets at `places`, or their refusals.
    fn add(
        &self,
        encoded: &mut Encoded,
        recipients: &[Recipient],
        places: Vec<usize>,
        message: fn(&Self) -> Result<Message, Rejection>,
    ) {
        if places.is_empty() {
            return;
        }
        match message(self) {
            Ok(message) => encoded.messages.push(message),
            Err(rejection) => {
                let covers = places.into_iter().map(index).collect();
                return encoded.refusals.push(Refusal { covers, rejection });
            }
        }
        let message = index(encoded.messages.len() - 1);
        for (place, recipient) in places.into_iter().filter_map(|place| Some((place, recipients.get(place)?)))
        {
            let covers = vec![index(place)];
            match self.address(place, &recipient.target) {
                Ok((path, headers)) => {
                    encoded.exchanges.push(Exchange {
                        covers,
                        message,
                        url: None,
                        path,
                        headers,
                        idempotent: true,
                    });
                }
                Err(rejection) => encoded.refusals.push(Refusal { covers, rejection }),
            }
        }
    }

    /// The path and headers of one target.
    fn address(&self, place: usize, target: &Target) -> Result<(String, Headers), Rejection> {
        let id = self.id.clone().or_else(|| uuid::random(&self.context.entropy, place));
        match target {
            Target::Device(token) => {
                let headers = id.map(|id| ("apns-id".to_string(), id)).into_iter().collect();
                Ok((["/3/device/", &device_token(token)?].concat(), headers))
            }
            Target::Channel(channel) => {
                let mut headers = vec![("apns-channel-id".to_string(), channel_id(channel)?)];
                headers.extend(id.map(|id| ("apns-request-id".to_string(), id)));
                Ok((format!("/4/broadcasts/apps/{}", topic::bundle(self.topic.as_deref())?), headers))
            }
            other => Err(unsupported(other)),
        }
    }

    /// The common part of all pushes to devices.
    fn device_message(&self) -> Result<Message, Rejection> {
        let names = PushType::ALL.map(PushType::name);
        let given = self.options.choice("push_type", &names)?.and_then(|name| PushType::named(&name));
        let told = || self.topic.as_deref().and_then(PushType::of_topic);
        let kind = given.or_else(told).unwrap_or_else(|| self.payload.infer());
        let topic = topic::full(self.application, self.topic.clone(), kind)?;
        // "Send an empty JSON dictionary": Wallet fetches the pass anew, whatever the type.
        let pass = self.topic.as_deref().is_some_and(topic::is_pass) && self.payload.says_nothing();
        let mut headers = Vec::new();
        if !pass || given.is_some() {
            headers.push(("apns-push-type".to_string(), kind.name().to_string()));
        }
        headers.extend(topic.map(|topic| ("apns-topic".to_string(), topic)));
        headers.extend(self.expiration()?.map(|seconds| ("apns-expiration".to_string(), seconds)));
        headers.extend(self.priority(kind)?.map(|priority| ("apns-priority".to_string(), priority)));
        headers.extend(self.collapse_id()?.map(|key| ("apns-collapse-id".to_string(), key)));
        let body = if pass { b"{}".to_vec() } else { self.payload.finish(kind, self.context.now)? };
        check_size(&body, kind.limit(), self.notification)?;
        Ok(post("device", headers, body))
    }

    /// The common part of all broadcasts. They update Live Activities and nothing else.
    fn broadcast_message(&self) -> Result<Message, Rejection> {
        let kind = PushType::LiveActivity;
        if self.options.text("push_type")?.is_some_and(|name| name != kind.name()) {
            return Err(invalid("push_type", "a broadcast must be a liveactivity"));
        }
        if self.payload.starts_activity() {
            return Err(invalid("event", "a broadcast cannot start a Live Activity"));
        }
        if self.notification.collapse_key.is_some() {
            return Err(invalid("collapse_key", "broadcasts cannot be collapsed"));
        }
        topic::bundle(self.topic.as_deref())?;
        // 0, one attempt, is the only expiration that channels of both storage policies take.
        let expiration = self.expiration()?.unwrap_or_else(|| "0".into());
        let mut headers = vec![
            ("apns-push-type".to_string(), kind.name().to_string()),
            ("apns-expiration".to_string(), expiration),
        ];
        headers.extend(self.priority(kind)?.map(|priority| ("apns-priority".to_string(), priority)));
        let body = self.payload.finish(kind, self.context.now)?;
        check_size(&body, BROADCAST_LIMIT, self.notification)?;
        Ok(post("broadcast", headers, body))
    }

    /// Seconds since the epoch; 0: one attempt, not stored.
    fn expiration(&self) -> Result<Option<String>, Rejection> {
        match seconds("expiration", self.options)? {
            Some(seconds) if seconds < 0 => Err(invalid("expiration", "expiration must not be negative")),
            Some(seconds) => Ok(Some(seconds.to_string())),
            None => Ok(self.notification.time_to_live.map(|seconds| match seconds {
                0 => "0".into(),
                seconds => (self.context.now / 1000).saturating_add(seconds.into()).to_string(),
            })),
        }
    }

    fn priority(&self, kind: PushType) -> Result<Option<String>, Rejection> {
        let value = match (kind, self.notification.priority) {
            (PushType::Background, None | Some(Priority::Normal)) => "5",
            (PushType::Background, Some(_)) => {
                return Err(invalid("priority", "a background notification must have the priority normal"));
            }
            (_, None) => return Ok(None),
            (_, Some(Priority::High)) => "10",
            (_, Some(Priority::Normal)) => "5",
            (_, Some(Priority::Low)) => "1",
        };
        Ok(Some(value.into()))
    }

    fn collapse_id(&self) -> Result<Option<String>, Rejection> {
        let Some(key) = &self.notification.collapse_key else { return Ok(None) };
        if key.is_empty() || key.len() > COLLAPSE_ID || !key.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            let message = format!("collapse_key must have 1 to {COLLAPSE_ID} bytes of printable ASCII");
            return Err(invalid("collapse_key", message));
        }
        Ok(Some(key.clone()))
    }
}

type Headers = Vec<(String, String)>;

fn post(endpoint: &str, headers: Headers, body: Vec<u8>) -> Message {
    // The same request twice carries the same id.
    Message { endpoint: endpoint.into(), method: Method::Post, headers, body, authenticate: true }
}

/// The id that the caller gives the message, as the UUID that Apple wants.
fn message_id(notification: &Notification, options: Options) -> Result<Option<String>, Rejection> {
    match options.text("apns_id")? {
        Some(id) if uuid::is_uuid(&id) => Ok(Some(id.to_ascii_lowercase())),
        Some(_) => Err(invalid("apns_id", "apns_id must be a UUID: 8-4-4-4-12 hexadecimal digits")),
        None => Ok(notification.identifier.as_deref().filter(|id| !id.is_empty()).map(uuid::for_identifier)),
    }
}

/// A token in lower-case digits. Old callers send it as `NSData` prints it, `<fe15a27d 5df3c347 …>`.
fn device_token(given: &str) -> Result<Cow<'_, str>, Rejection> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    // Without an early end many bytes are looked at together.
    let token = match given.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        true => Cow::Borrowed(given),
        false => Cow::Owned(given.to_ascii_lowercase().replace(MARKS, "")),
    };
    let is_valid = matches!(token, Cow::Borrowed(_)) || token.bytes().all(is_plain);
    if token.is_empty() || token.len() > TOKEN_DIGITS || token.len() % 2 == 1 || !is_valid {
        return Err(invalid("device_token", "device_token must be an even number of hexadecimal digits"));
    }
    Ok(token)
}

/// A channel id as Apple hands it out: base64.
pub fn channel_id(channel: &str) -> Result<String, Rejection> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
    if channel.is_empty() || channel.len() > 255 || !channel.bytes().all(sound) {
        return Err(invalid("channel", "channel must be a channel id in base64"));
    }
    Ok(channel.to_string())
}
