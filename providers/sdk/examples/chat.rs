//! A whole provider: it posts what a notification says to a chat's incoming webhook.
//!
//! As a crate of its own it has `crate-type = ["cdylib"]` in `[lib]`, and is built with
//! `cargo build --release --target wasm32-wasip2`.

use pushlet_provider::bindings::exports::pushlet::provider::manifest::{
    Authentication, Credential, ProviderManifest, SecretFormat, TargetKind, Transport, ValueKind,
};
use pushlet_provider::manifest::{both_environments, endpoints, example, field, header, secret};
use pushlet_provider::{
    Answer, Application, Context, CredentialFault, Disposition, Encoded, Exchange, Message, Method,
    Notification, Provider, Recipient, Rejection, Reply, Scope, Target, Throttle, input, reply, time,
};
use serde_json::json;

pub struct Chat;

impl Provider for Chat {
    fn describe() -> ProviderManifest {
        ProviderManifest {
            name: "chat".into(),
            title: "Chat".into(),
            vendor: "example".into(),
            version: "1".into(),
            description: "Posts a notification to a room.".into(),
            also_answers: Vec::new(),
            settings: Vec::new(),
            credentials: vec![Credential {
                name: "token".into(),
                secrets: vec![secret("chat_token", SecretFormat::Text, None, "The token of the robot.")],
                companions: Vec::new(),
                authentication: Authentication::Secret((
                    "chat_token".into(),
                    header("authorization", "Bearer "),
                )),
                required_settings: Vec::new(),
                derivations: Vec::new(),
                inline: false,
                connection_settings: Vec::new(),
            }],
            options: vec![field("silent", ValueKind::Boolean, "Without a sound.")],
            targets: vec![TargetKind::Device],
            target_options: Vec::new(),
            environments: both_environments(),
            endpoints: endpoints("api", Transport::Https, "https://chat.example", "https://dev.chat.example")
                .into(),
            targets_per_exchange: 1,
            targets_per_call: 500,
            response_headers: vec!["retry-after".into()],
            entropy: 0,
            examples: vec![example("token", &[], "room-1", r#"{"title":"Hello","body":"World"}"#)],
        }
    }

    fn check_application(_: &Application) -> Result<(), Rejection> {
        Ok(())
    }

    fn encode(
        _: &Context,
        _: &Application,
        notification: &Notification,
        recipients: &[Recipient],
    ) -> Result<Encoded, Rejection> {
        let alert = notification.alert.as_ref();
        let text = |part: Option<&String>| part.cloned().unwrap_or_default();
        let body = json!({
            "title": text(alert.and_then(|alert| alert.title.as_ref())),
            "text": text(alert.and_then(|alert| alert.body.as_ref())),
            "silent": input::Options::of(notification).boolean("silent")?.unwrap_or(false),
        });
        let mut encoded = reply::empty();
        for (place, recipient) in recipients.iter().enumerate() {
            let covers = vec![reply::index(place)];
            let Target::Device(room) = &recipient.target else { continue };
            if room.len() > 100 {
                let rejection = input::invalid("device_token", "a room has at most 100 characters");
                encoded.refusals.push(pushlet_provider::Refusal { covers, rejection });
                continue;
            }
            let path = format!("/rooms/{}", escaped(room));
            let exchange =
                Exchange { covers, message: 0, url: None, path, headers: Vec::new(), idempotent: false };
            encoded.exchanges.push(exchange);
        }
        if !encoded.exchanges.is_empty() {
            encoded.messages.push(Message {
                endpoint: "api".into(),
                method: Method::Post,
                headers: vec![("content-type".into(), "application/json".into())],
                body: pushlet_provider::json::write(&body).into_bytes(),
                authenticate: true,
            });
        }
        Ok(encoded)
    }

    fn decode(context: &Context, _: &Application, answer: &Answer, _: bool) -> Reply {
        let wait = time::retry_after(&answer.response, context.now);
        let failed = |disposition| reply::failed(disposition, None, None);
        let outcome = match answer.response.status {
            200..=299 => reply::delivered(None),
            401 | 403 => failed(Disposition::CredentialRejected(CredentialFault::Refused)),
            410 => failed(Disposition::Unregistered(None)),
            429 => failed(Disposition::Throttled(Throttle { scope: Scope::Application, retry_after: wait })),
            400..=499 => failed(Disposition::Rejected),
            500.. => failed(Disposition::Unavailable(wait)),
            _ => failed(Disposition::Unknown),
        };
        reply::same_for_all(answer.targets.len(), outcome)
    }
}

/// Everything but letters and digits is percent-encoded, so that a room cannot leave its place in the path.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |path, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => path + &char::from(byte).to_string(),
        _ => path + &format!("%{byte:02X}"),
    })
}

pushlet_provider::export!(Chat);
