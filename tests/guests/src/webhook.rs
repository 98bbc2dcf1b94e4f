//! A provider as a team would write one: it posts what a notification says to a chat's incoming webhook.
//! Of two versions the second one traps when it is asked to.

use pushlet_provider::bindings::exports::pushlet::provider::manifest::{
    Authentication, Credential, Example, SecretFormat,
};
use pushlet_provider::manifest::{both_environments, endpoints, example, field, header, secret};
use pushlet_provider::{CredentialFault, input, json, reply};

use crate::{
    Answer, Application, Disposition, Encoded, Exchange, Message, Method, Notification, Outcome,
    ProviderManifest, Recipient, Rejection, Reply, Target, TargetKind, Transport, ValueKind,
};

const TOKEN: &str = "token";

pub fn manifest(version: &str) -> ProviderManifest {
    ProviderManifest {
        name: "webhook".into(),
        title: "Webhook".into(),
        vendor: "example".into(),
        version: version.into(),
        description: "Posts a notification as JSON.".into(),
        also_answers: Vec::new(),
        settings: vec![field("webhook_channel", ValueKind::Text, "Where it appears.")],
        credentials: vec![Credential {
            name: TOKEN.into(),
            secrets: vec![secret("webhook_token", SecretFormat::Text, None, "What the service gave.")],
            authentication: Authentication::Secret((
                "webhook_token".into(),
                header("authorization", "Bearer "),
            )),
            required_settings: vec!["webhook_channel".into()],
            derivations: Vec::new(),
            inline: false,
            companions: Vec::new(),
            connection_settings: Vec::new(),
        }],
        options: vec![field("trap", ValueKind::Boolean, "Fail.")],
        targets: vec![TargetKind::Device],
        endpoints: {
            const ORIGIN: &str = "https://hooks.example";
            endpoints("hook", Transport::Https, ORIGIN, ORIGIN).into()
        },
        targets_per_exchange: 1,
        targets_per_call: 500,
        target_options: Vec::new(),
        environments: both_environments(),
        response_headers: Vec::new(),
        entropy: 0,
        examples: examples(),
    }
}

fn examples() -> Vec<Example> {
    vec![example(TOKEN, &[("webhook_channel", "news")], "someone", r#"{"title":"Hello","body":"world"}"#)]
}

pub fn check_application(application: &Application) -> Result<(), Rejection> {
    match input::setting(application, "webhook_channel") {
        Some(channel) if channel.contains('/') => {
            Err(input::invalid("webhook_channel", "webhook_channel must not hold a slash"))
        }
        _ => Ok(()),
    }
}

pub fn encode(
    version: &str,
    application: &Application,
    notification: &Notification,
    targets: &[Recipient],
) -> Encoded {
    let text = notification.alert.as_ref().and_then(|alert| alert.body.clone()).unwrap_or_default();
    let body = serde_json::json!({ "text": text, "version": version });
    let message = Message {
        endpoint: "hook".into(),
        method: Method::Post,
        headers: vec![("content-type".into(), "application/json".into())],
        body: json::write(&body).into_bytes(),
        authenticate: true,
    };
    let channel = input::setting(application, "webhook_channel").unwrap_or_default();
    let exchanges = targets.iter().enumerate().filter_map(|(place, target)| {
        let Target::Device(name) = &target.target else { return None };
        let path = format!("/{channel}/{name}");
        let covers = vec![reply::index(place)];
        Some(Exchange { covers, message: 0, url: None, path, headers: Vec::new(), idempotent: false })
    });
    Encoded { messages: vec![message], exchanges: exchanges.collect(), refusals: Vec::new() }
}

pub fn decode(answers: &[Answer]) -> Vec<Reply> {
    answers
        .iter()
        .map(|answer| reply::same_for_all(answer.targets.len(), outcome(answer.response.status)))
        .collect()
}

fn outcome(status: u16) -> Outcome {
    let failed = |disposition| reply::failed(disposition, None, None);
    match status {
        200..=299 => reply::delivered(None),
        401 | 403 => failed(Disposition::CredentialRejected(CredentialFault::Refused)),
        404 | 410 => failed(Disposition::Unregistered(None)),
        500.. => failed(Disposition::Unavailable(None)),
        _ => failed(Disposition::Rejected),
    }
}

/// Shall it fail? The option `trap` says so.
pub fn shall_trap(notification: &Notification) -> bool {
    notification.options.iter().any(|(name, value)| name == "trap" && value == "true")
}
