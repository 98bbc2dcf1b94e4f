//! What the provider is and needs.

use pushlet_provider::manifest::*;

/// Most registration ids in one request.
pub const MOST_IDS: usize = 1000;

/// The whole manifest.
pub fn manifest() -> ProviderManifest {
    ProviderManifest {
        name: "gcm".into(),
        title: "Google Cloud Messaging (legacy HTTP)".into(),
        vendor: "google".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        description: "The legacy HTTP protocol. Google's own servers no longer speak it: configure an endpoint that \
                      does, or register a Firebase service account. data is handed to the app; title, body, image, \
                      badge, sound and category become the notification object. thread and identifier have no \
                      place in it. native is merged into the request, object by object."
            .into(),
        also_answers: Vec::new(),
        settings: Vec::new(),
        credentials: vec![Credential {
            name: "key".into(),
            secrets: vec![secret("gcm_api_key", SecretFormat::Text, None, "The server key.")],
            authentication: Authentication::Secret(("gcm_api_key".into(), header("authorization", "key="))),
            required_settings: Vec::new(),
            derivations: Vec::new(),
            inline: true,
            companions: Vec::new(),
            connection_settings: Vec::new(),
        }],
        options: options(),
        targets: vec![TargetKind::Device, TargetKind::Topic, TargetKind::Condition],
        endpoints: {
            const ORIGIN: &str = "https://android.googleapis.com";
            endpoints("send", Transport::Https, ORIGIN, ORIGIN).into()
        },
        targets_per_exchange: MOST_IDS as u32,
        targets_per_call: MOST_IDS as u32,
        target_options: Vec::new(),
        environments: both_environments(),
        response_headers: names(&["retry-after"]),
        entropy: 0,
        examples: examples(),
    }
}

fn options() -> Vec<Field> {
    vec![
        field("delay_while_idle", ValueKind::Boolean, "Wait until the device is active."),
        field("restricted_package_name", ValueKind::Text, "Only to registrations of this package."),
        field("dry_run", ValueKind::Boolean, "Check the request without delivering it; the answer is valid."),
        field("content_available", ValueKind::Boolean, "Wake an iOS app in the background."),
        field("mutable_content", ValueKind::Boolean, "Let an iOS app change the notification first."),
        field(
            "notification",
            ValueKind::Json,
            "The notification object, merged over what title and the like give.",
        ),
        field(
            "notification_key",
            ValueKind::Boolean,
            "The device tokens are notification keys of device groups; each goes out by itself.",
        ),
    ]
}

fn examples() -> Vec<Example> {
    let device = "APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx";
    vec![
        example("key", &[], device, r#"{"data":{"text":"hello"}}"#),
        example(
            "key",
            &[],
            device,
            r#"{"data":{"score":"5x1","time":"15:10"},"collapse_key":"score_update","ttl":108,"delay_while_idle":true}"#,
        ),
        example(
            "key",
            &[],
            device,
            r#"{"title":"Portugal vs. Denmark","body":"5 to 1","sound":"default","priority":"high","notification":{"icon":"myicon"},"dry_run":true}"#,
        ),
    ]
}
