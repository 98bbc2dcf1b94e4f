//! The provider acme: turns notifications into requests of a webhook, and its answers into outcomes.
//!
//! Pure functions: no clock, no socket, no secret. The server adds the credential and sends.

/// What wit-bindgen makes of `wit/provider.wit`.
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "http-provider", pub_export_macro: true });
}

use bindings::exports::pushlet::provider::codec::{
    self, Answer, Encoded, Exchange, Message, Method, Refusal, Reply, Response,
};
use bindings::exports::pushlet::provider::manifest::{
    self, Authentication, Credential, Endpoint, Example, Field, Origin, Place, Placement, ProviderManifest,
    Secret, SecretFormat, TargetKind, Transport, ValueKind,
};
use bindings::pushlet::provider::types::{
    Application, ConnectionHint, Context, CredentialFault, Disposition, Environment, Notification, Outcome,
    Recipient, Rejection, Scope, Target, Throttle,
};
use serde_json::json;
use std::time::UNIX_EPOCH;

struct Provider;

impl manifest::Guest for Provider {
    /// What the provider is and needs. The server asks once, and refuses what is not declared here.
    fn describe() -> ProviderManifest {
        let endpoint = |environment, origin: &str| Endpoint {
            name: "push".into(),
            environment,
            transport: Transport::Https,
            origin: Origin::Fixed(origin.into()),
        };
        ProviderManifest {
            name: "acme".into(),
            title: "Acme".into(),
            vendor: "acme".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "Posts notifications to Acme's webhook.".into(),
            also_answers: Vec::new(),
            settings: vec![field("acme_channel", ValueKind::Text, "The channel in which it appears.")],
            credentials: vec![Credential {
                name: "token".into(),
                secrets: vec![Secret {
                    name: "acme_token".into(),
                    format: SecretFormat::Text,
                    password: None,
                    description: "The token that Acme gave.".into(),
                }],
                companions: Vec::new(),
                authentication: Authentication::Secret((
                    "acme_token".into(),
                    Placement { place: Place::Header("authorization".into()), prefix: "Bearer ".into() },
                )),
                required_settings: vec!["acme_channel".into()],
                derivations: Vec::new(),
                inline: false,
                connection_settings: Vec::new(),
            }],
            options: vec![field("pinned", ValueKind::Boolean, "Keep the message at the top.")],
            target_options: Vec::new(),
            environments: vec![Environment::Production, Environment::Development],
            targets: vec![TargetKind::Device],
            endpoints: vec![
                endpoint(Environment::Production, "https://push.acme.example"),
                endpoint(Environment::Development, "https://sandbox.acme.example"),
            ],
            targets_per_exchange: 1,
            targets_per_call: 500,
            // Answers are shown with these headers alone.
            response_headers: vec!["retry-after".into()],
            entropy: 0,
            examples: vec![Example {
                settings: vec![("acme_channel".into(), "news".into())],
                credential: Some("token".into()),
                notification: r#"{"title":"Hello","body":"World"}"#.into(),
                target: "device-1".into(),
                target_options: Vec::new(),
            }],
        }
    }
}

impl codec::Guest for Provider {
    /// Called when an application is registered: refuse here what would fail with each send.
    fn check_application(application: Application) -> Result<(), Rejection> {
        match setting(&application, "acme_channel") {
            Some(channel) if channel.contains('/') => {
                Err(invalid("acme_channel", "acme_channel must not hold a slash"))
            }
            _ => Ok(()),
        }
    }

    /// One request for each target; what they have in common stands in one message.
    fn encode(
        _: Context,
        application: Application,
        notification: Notification,
        recipients: Vec<Recipient>,
    ) -> Encoded {
        let mut encoded = Encoded { messages: Vec::new(), exchanges: Vec::new(), refusals: Vec::new() };
        if !recipients.is_empty() {
            encoded.messages.push(message(&notification));
        }
        let channel = percent_encoded(setting(&application, "acme_channel").unwrap_or("default"));
        for (place, recipient) in (0..).zip(&recipients) {
            match &recipient.target {
                Target::Device(device) if device.len() <= 1000 => encoded.exchanges.push(Exchange {
                    covers: vec![place],
                    message: 0,
                    url: None,
                    path: format!("/v1/{channel}/{}", percent_encoded(device)),
                    headers: Vec::new(),
                    // True if the service recognises a second delivery of the same request.
                    idempotent: false,
                }),
                // A bad target gets a refusal of its own, and costs the others nothing.
                _ => encoded.refusals.push(Refusal {
                    covers: vec![place],
                    rejection: invalid("device_token", "a device of Acme has at most 1000 characters"),
                }),
            }
        }
        encoded
    }

    fn decode(context: Context, _: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        let reply = |answer: &Answer| {
            let outcome = outcome(&context, &answer.response);
            Reply { outcomes: vec![outcome; answer.targets.len()], native: None }
        };
        answers.iter().map(reply).collect()
    }
}

fn message(notification: &Notification) -> Message {
    let alert = notification.alert.as_ref();
    let title = alert.and_then(|alert| alert.title.as_deref());
    let text = alert.and_then(|alert| alert.body.as_deref());
    let mut body = json!({ "title": title, "text": text });
    for (name, value) in &notification.options {
        if name == "pinned" {
            body["pinned"] = json!(value == "true");
        }
    }
    // `data` is JSON already, and stays as the caller wrote it.
    if let Some(Ok(data)) = notification.data.as_deref().map(serde_json::from_str::<serde_json::Value>) {
        body["data"] = data;
    }
    Message {
        endpoint: "push".into(),
        method: Method::Post,
        headers: vec![("content-type".into(), "application/json".into())],
        body: body.to_string().into_bytes(),
        authenticate: true,
    }
}

/// What became of a target. Say `unregistered` only when the service says that the target is gone: callers delete it.
fn outcome(context: &Context, response: &Response) -> Outcome {
    let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    let wait = retry_after(response, context.now);
    let disposition = match response.status {
        200..=299 => Disposition::Delivered,
        401 | 403 => Disposition::CredentialRejected(CredentialFault::Refused),
        404 | 410 => Disposition::Unregistered(None),
        429 => Disposition::Throttled(Throttle { scope: Scope::Application, retry_after: wait }),
        400..=499 => Disposition::Rejected,
        500..=599 => Disposition::Unavailable(wait),
        _ => Disposition::Unknown,
    };
    Outcome {
        disposition,
        id: text("id"),
        code: text("error"),
        message: text("message"),
        connection: ConnectionHint::Keep,
    }
}

/// `Retry-After` in milliseconds: it is in seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(response: &Response, now: u64) -> Option<u64> {
    let (_, value) = response.headers.iter().find(|(name, _)| name == "retry-after")?;
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return seconds.checked_mul(1000);
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(date.as_secs().saturating_mul(1000).saturating_sub(now))
}

fn setting<'a>(application: &'a Application, name: &str) -> Option<&'a str> {
    application.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn field(name: &str, kind: ValueKind, description: &str) -> Field {
    Field {
        name: name.into(),
        kind,
        required: false,
        choices: Vec::new(),
        default: None,
        minimum: None,
        maximum: None,
        max_length: None,
        unit: None,
        description: description.into(),
    }
}

fn invalid(field: &str, message: &str) -> Rejection {
    Rejection { code: format!("invalid_{field}"), message: message.into(), field: Some(field.into()), more: Vec::new() }
}

/// Everything but letters, digits, `-` and `_` as `%XX`: a text stays in its place in a path.
fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The component's export. Native tests link without it.
#[cfg(target_arch = "wasm32")]
mod component {
    use super::{Provider, bindings};
    bindings::export!(Provider with_types_in bindings);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16) -> Response {
        Response { status, headers: vec![("retry-after".into(), "2".into())], body: Vec::new() }
    }

    #[test]
    fn answers_become_outcomes() {
        let context = Context { now: 0, entropy: Vec::new() };
        let outcome = |status| outcome(&context, &response(status)).disposition;
        assert!(matches!(outcome(200), Disposition::Delivered));
        assert!(matches!(outcome(410), Disposition::Unregistered(None)));
        assert!(matches!(outcome(400), Disposition::Rejected));
        assert!(matches!(outcome(503), Disposition::Unavailable(Some(2000))));
        assert!(matches!(outcome(302), Disposition::Unknown));
    }

    #[test]
    fn a_text_stays_in_its_place() {
        assert_eq!(percent_encoded("../é?"), "%2E%2E%2F%C3%A9%3F");
    }
}
