//! What the provider is and needs.

use crate::aps::{Form, KEYS};
use crate::push_type::PushType;
use crate::topic::{CERTIFICATE, TOKEN};
use pushlet_provider::manifest::*;

const SETTINGS: &[(&str, &str)] =
    &[("apns_topic", "com.example.app"), ("apns_key_id", "ABC123DEFG"), ("apns_team_id", "DEF123GHIJ")];

/// The whole manifest.
pub fn manifest() -> ProviderManifest {
    ProviderManifest {
        name: "apns".into(),
        title: "Apple Push Notification service".into(),
        vendor: "apple".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        description: "Notifications to Apple devices and broadcasts to Live Activity channels, over the HTTP/2 \
                      provider API. A picture (image) is handed to the app as the key image beside aps, with \
                      mutable_content. data and native go beside aps; their own aps object is merged key by key. A Live Activity's sound \
                      goes into its alert."
            .into(),
        also_answers: Vec::new(),
        settings: settings(),
        credentials: vec![certificate(), token()],
        options: options(),
        targets: vec![TargetKind::Device, TargetKind::Channel],
        endpoints: all_endpoints(),
        targets_per_exchange: 1,
        targets_per_call: 120,
        target_options: Vec::new(),
        environments: both_environments(),
        response_headers: names(&["apns-id", "apns-unique-id", "apns-request-id", "apns-channel-id", "retry-after"]),
        entropy: 16,
        examples: examples(),
    }
}

fn settings() -> Vec<Field> {
    vec![
        field("apns_topic", ValueKind::Text, "The app's bundle id. A certificate tells it itself."),
        field("apns_key_id", ValueKind::Text, "The id of the token signing key, ten characters."),
        field("apns_team_id", ValueKind::Text, "The id of the developer team, ten characters."),
        field(
            "apns_certificate_topics",
            ValueKind::Text,
            "The topics that the certificate covers, with commas.",
        ),
    ]
}

fn certificate() -> Credential {
    let password = Some("apns_p12_pass");
    Credential {
        name: CERTIFICATE.into(),
        secrets: vec![
            secret("apns_pem", SecretFormat::PemIdentity, password, "Push certificate and key as PEM."),
            secret(
                "apns_p12",
                SecretFormat::Pkcs12Identity,
                password,
                "Push certificate and key as PKCS#12.",
            ),
        ],
        authentication: Authentication::ClientCertificate,
        required_settings: Vec::new(),
        derivations: vec![
            Derivation { setting: "apns_topic".into(), property: Property::CertificateSubjectUid },
            Derivation { setting: "apns_certificate_topics".into(), property: Property::CertificateTopics },
        ],
        inline: false,
        companions: Vec::new(),
        connection_settings: Vec::new(),
    }
}

/// Apple takes a token for an hour and wants a new one no more often than every 20 minutes.
fn token() -> Credential {
    let signed = SignedToken {
        key: "apns_p8".into(),
        algorithm: SigningAlgorithm::Es256,
        header: vec![("kid".into(), Source::Setting("apns_key_id".into()))],
        claims: vec![
            ("iss".into(), Source::Setting("apns_team_id".into())),
            ("iat".into(), Source::IssuedAt),
        ],
        lifetime: 3_000_000,
        minimum_age: 1_200_000,
    };
    Credential {
        name: TOKEN.into(),
        secrets: vec![secret("apns_p8", SecretFormat::Pkcs8Key, None, "Token signing key, the .p8 file.")],
        authentication: Authentication::SignedToken((signed, header("authorization", "bearer "))),
        required_settings: names(&["apns_key_id", "apns_team_id"]),
        derivations: Vec::new(),
        inline: false,
        companions: Vec::new(),
        connection_settings: names(&["apns_team_id", "apns_key_id"]),
    }
}

fn options() -> Vec<Field> {
    let mut options = vec![
        choice(
            "push_type",
            &PushType::ALL.map(PushType::name),
            "apns-push-type; by default told by the topic or the content.",
        ),
        field(
            "topic",
            ValueKind::Text,
            "apns-topic, instead of the setting; the push type's suffix may be missing.",
        ),
        field(
            "expiration",
            ValueKind::Integer,
            "apns-expiration in seconds since the epoch, instead of ttl.",
        ),
        field("apns_id", ValueKind::Text, "apns-id, a UUID, instead of the identifier."),
        field(
            "alert",
            ValueKind::Json,
            "A text or Apple's alert dictionary, instead of title, body and the like.",
        ),
        field("launch_image", ValueKind::Text, "The launch image or storyboard, in the alert."),
    ];
    options.extend(KEYS.iter().map(|key| match key.form {
        Form::Text => field(key.option, ValueKind::Text, key.description),
        Form::Choice(choices) => choice(key.option, choices, key.description),
        Form::Flag | Form::Boolean => field(key.option, ValueKind::Boolean, key.description),
        Form::Seconds => field(key.option, ValueKind::Integer, key.description),
        Form::Number => field(key.option, ValueKind::Number, key.description),
        Form::Object | Form::List => field(key.option, ValueKind::Json, key.description),
    }));
    options
}

fn all_endpoints() -> Vec<Endpoint> {
    let push = |name| {
        endpoints(name, Transport::Http2, "https://api.push.apple.com", "https://api.sandbox.push.apple.com")
    };
    let channels = endpoints(
        "channels",
        Transport::Http2,
        "https://api-manage-broadcast.push.apple.com:2196",
        "https://api-manage-broadcast.sandbox.push.apple.com:2195",
    );
    [push("device"), push("broadcast"), channels].into_iter().flatten().collect()
}

fn examples() -> Vec<Example> {
    const DEVICE: &str = "fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9a2";
    let certificate = &[("apns_topic", "com.example.app")];
    vec![
        example(
            CERTIFICATE,
            certificate,
            DEVICE,
            r#"{"body":"Dinner is ready","badge":1,"sound":"default"}"#,
        ),
        example(
            TOKEN,
            SETTINGS,
            DEVICE,
            r#"{"title":"Order 7","body":"On its way","category":"ORDER","thread":"order-7","collapse_key":"order-7","ttl":3600,"priority":"high","data":{"order":7},"interruption_level":"time-sensitive"}"#,
        ),
        example(TOKEN, SETTINGS, DEVICE, r#"{"content_available":true,"data":{"sync":"inbox"}}"#),
        example(
            TOKEN,
            SETTINGS,
            DEVICE,
            r#"{"push_type":"liveactivity","event":"update","content_state":{"score":"2:1"},"stale_date":1800000000,"priority":"high"}"#,
        ),
        example(
            TOKEN,
            SETTINGS,
            DEVICE,
            r#"{"apns":{"aps":{"alert":{"loc-key":"GREETING","loc-args":["Ada"]}}}}"#,
        ),
    ]
}
