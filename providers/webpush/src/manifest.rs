//! What the provider is and needs.

use pushlet_provider::input::{invalid, missing, setting};
use pushlet_provider::manifest::*;
use pushlet_provider::{Application, Environment, Rejection};

use crate::encrypt::ENTROPY;

/// The setting that says whom a push service asks about this sender.
const SUBJECT: &str = "vapid_subject";
const PUBLIC_KEY: &str = "vapid_public_key";
const PRIVATE_KEY: &str = "vapid_private_key";
const HOUR: u64 = 3_600_000;

/// The whole manifest.
pub fn manifest() -> ProviderManifest {
    ProviderManifest {
        name: "webpush".into(),
        title: "Web Push".into(),
        vendor: "web".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        description: "Messages to browsers: Chrome, Edge, Firefox, Safari, and whatever speaks RFC 8030. A target is the \
                      subscription's endpoint, with its keys as options. The message is JSON: the typed fields and \
                      data as `{\"notification\", \"data\"}`, or a declarative notification if navigate is given; native is \
                      sent as it is."
            .into(),
        also_answers: Vec::new(),
        settings: vec![
            field(SUBJECT, ValueKind::Text, "mailto: or https: address of the sender, for the push services.")
                .required()
                .at_most(256),
            field(PUBLIC_KEY, ValueKind::Text, "The application server key that browsers subscribe with; the private key tells it.")
                .at_most(100),
        ],
        credentials: vec![vapid()],
        options: options(),
        targets: vec![TargetKind::Url],
        target_options: vec![
            field("p256dh", ValueKind::Text, "The subscription's public key in base64url; needed if there is a message.")
                .at_most(100),
            field("auth", ValueKind::Text, "The subscription's authentication secret in base64url; needed if there is a message.")
                .at_most(32),
        ],
        environments: vec![Environment::Production],
        endpoints: vec![Endpoint {
            name: "push".into(),
            environment: Environment::Production,
            transport: Transport::Https,
            origin: Origin::AnyHttps,
        }],
        targets_per_exchange: 1,
        // Each message is encrypted for itself, in one to two milliseconds.
        targets_per_call: 50,
        response_headers: names(&[
            "location",
            "retry-after",
            "apns-id",
            "x-wns-msg-id",
            "x-wns-status",
            "x-wns-notificationstatus",
            "x-wns-error-description",
        ]),
        entropy: ENTROPY as u32,
        examples: examples(),
    }
}

/// RFC 8292. A service may take a token for 24 hours at most; Apple wants a new one no more often than every hour.
fn vapid() -> Credential {
    let token = SignedToken {
        key: PRIVATE_KEY.into(),
        algorithm: SigningAlgorithm::Es256,
        header: vec![("typ".into(), Source::Literal("\"JWT\"".into()))],
        claims: vec![
            ("aud".into(), Source::TargetOrigin),
            ("exp".into(), Source::ExpiresAt),
            ("sub".into(), Source::Setting(SUBJECT.into())),
        ],
        lifetime: 12 * HOUR,
        minimum_age: HOUR,
    };
    Credential {
        name: "vapid".into(),
        secrets: vec![secret(
            PRIVATE_KEY,
            SecretFormat::P256Key,
            None,
            "The VAPID private key: base64url as Web Push tools print it, or PEM.",
        )],
        companions: Vec::new(),
        authentication: Authentication::Vapid(token),
        required_settings: names(&[SUBJECT]),
        derivations: vec![Derivation { setting: PUBLIC_KEY.into(), property: Property::PublicKey }],
        inline: false,
        connection_settings: Vec::new(),
    }
}

fn options() -> Vec<Field> {
    vec![
        choice("urgency", &["very-low", "low", "normal", "high"], "Urgency, instead of the priority."),
        field("topic", ValueKind::Text, "Topic as it is, instead of one made of the collapse key.")
            .at_most(32),
        field("navigate", ValueKind::Text, "The URL that a tap opens; makes the message declarative.")
            .at_most(2048),
        choice("dir", &["auto", "ltr", "rtl"], "The direction of the text."),
        field("lang", ValueKind::Text, "The language of the text, BCP 47.").at_most(64),
        field("tag", ValueKind::Text, "Replaces a notification of the same tag.").at_most(256),
        field("icon", ValueKind::Text, "The URL of an icon.").at_most(2048),
        field("silent", ValueKind::Boolean, "Make no sound."),
        field("require_interaction", ValueKind::Boolean, "Stay until the user acts."),
        field("renotify", ValueKind::Boolean, "Alert again where it replaces another; needs a tag."),
        field("actions", ValueKind::Json, "A list of buttons."),
        field("mutable", ValueKind::Boolean, "Let a service worker change a declarative message."),
    ]
}

fn examples() -> Vec<Example> {
    let settings = &[(SUBJECT, "mailto:push@example.com")];
    // The subscription of RFC 8291 section 5.
    let keys = || {
        vec![
            (
                "p256dh".into(),
                "\"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4\""
                    .into(),
            ),
            ("auth".into(), "\"BTBZMqHH6r4Tts7J_aSIgg\"".into()),
        ]
    };
    let example = |notification| Example {
        target_options: keys(),
        ..example("vapid", settings, "https://push.example/p/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV", notification)
    };
    vec![
        example(
            r#"{"title":"Order 7","body":"On its way","ttl":3600,"priority":"high","collapse_key":"order-7"}"#,
        ),
        example(
            r#"{"title":"Order 7","body":"On its way","navigate":"https://shop.example/orders/7","data":{"order":7}}"#,
        ),
        example(r#"{"webpush":{"anything":["the","page","understands"]}}"#),
        example("{}"),
    ]
}

/// Apple refuses tokens without an address that could be one.
pub fn check_subject(application: &Application) -> Result<(), Rejection> {
    let subject =
        setting(application, SUBJECT).ok_or_else(|| missing(SUBJECT, format!("{SUBJECT} is required")))?;
    let plain = |text: &str| !text.contains([' ', '<', '>']) && !text.contains("localhost");
    let is_mail = |address: &str| {
        address.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
    };
    let sound = match (subject.strip_prefix("mailto:"), subject.strip_prefix("https://")) {
        (Some(address), _) => is_mail(address),
        (_, Some(rest)) => rest.contains('.'),
        _ => false,
    };
    if sound && plain(subject) {
        return Ok(());
    }
    Err(invalid(
        SUBJECT,
        format!("{SUBJECT} must be mailto: with an address of a real domain, or an https: URL"),
    ))
}
