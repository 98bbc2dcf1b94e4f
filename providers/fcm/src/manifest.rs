//! What the provider is and needs.

use pushlet_provider::manifest::*;

/// The setting that names the Firebase project.
pub const PROJECT: &str = "fcm_project_id";
const ACCOUNT: &str = "fcm_service_account";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// The whole manifest.
pub fn manifest() -> ProviderManifest {
    ProviderManifest {
        name: "fcm".into(),
        title: "Firebase Cloud Messaging".into(),
        vendor: "google".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        description: "The HTTP v1 API. The typed fields go to Android, Apple and web clients alike; android, \
                      android_v2, apns, webpush and fcm_options are merged over them, and native, a raw message \
                      object, over everything. Values of data become texts as they are written in JSON, null \
                      among them. Legacy requests (type gcm) are translated, their answers too; a key of a legacy \
                      notification that is not known reaches Apple devices as gcm.notification.KEY, as it did."
            .into(),
        also_answers: names(&["gcm"]),
        settings: vec![field(PROJECT, ValueKind::Text, "The Firebase project. The service account tells it itself.")],
        credentials: vec![service_account()],
        options: options(),
        targets: vec![TargetKind::Device, TargetKind::Topic, TargetKind::Condition],
        endpoints: {
            const ORIGIN: &str = "https://fcm.googleapis.com";
            endpoints("send", Transport::Https, ORIGIN, ORIGIN).into()
        },
        targets_per_exchange: 1,
        targets_per_call: 120,
        target_options: Vec::new(),
        environments: both_environments(),
        response_headers: names(&["retry-after"]),
        entropy: 0,
        examples: examples(),
    }
}

/// RFC 7523, as Google's "Using OAuth 2.0 for server to server applications" describes it.
fn service_account() -> Credential {
    let property = |name: &str| Source::SecretProperty((ACCOUNT.into(), name.into()));
    let literal = |text: &str| Source::Literal(format!("\"{text}\""));
    let assertion = SignedToken {
        key: ACCOUNT.into(),
        algorithm: SigningAlgorithm::Rs256,
        header: vec![("typ".into(), literal("JWT")), ("kid".into(), property("private_key_id"))],
        claims: vec![
            ("iss".into(), property("client_email")),
            ("scope".into(), literal(SCOPE)),
            ("aud".into(), property("token_uri")),
            ("iat".into(), Source::IssuedAt),
            ("exp".into(), Source::ExpiresAt),
        ],
        lifetime: 3_600_000,
        minimum_age: 0,
    };
    let exchange = TokenExchange {
        token_url: vec![property("token_uri")],
        scope: Some(SCOPE.into()),
        grant: Grant::JwtBearer(assertion),
        refresh_before: 300_000,
        minimum_age: 30_000,
    };
    Credential {
        name: "service-account".into(),
        secrets: vec![secret(
            ACCOUNT,
            SecretFormat::ServiceAccount,
            None,
            "The service account's JSON file.",
        )],
        authentication: Authentication::ExchangedToken((exchange, header("authorization", "Bearer "))),
        required_settings: names(&[PROJECT]),
        derivations: vec![Derivation {
            setting: PROJECT.into(),
            property: Property::ServiceAccountProperty("project_id".into()),
        }],
        inline: false,
        companions: Vec::new(),
        connection_settings: Vec::new(),
    }
}

fn options() -> Vec<Field> {
    vec![
        field("android", ValueKind::Json, "AndroidConfig; names in camelCase or snake_case."),
        field("android_v2", ValueKind::Json, "AndroidConfigV2, instead of android."),
        field("apns", ValueKind::Json, "ApnsConfig: headers, payload, live_activity_token, fcm_options."),
        field("webpush", ValueKind::Json, "WebpushConfig: headers, data, notification, fcm_options."),
        field("fcm_options", ValueKind::Json, "FcmOptions: analytics_label."),
        field(
            "validate_only",
            ValueKind::Boolean,
            "Check the message without delivering it; the answer is valid.",
        ),
        field("fid", ValueKind::Boolean, "The device tokens are Firebase installation ids."),
        field("notification", ValueKind::Json, "The notification object in legacy or v1 names."),
        field("content_available", ValueKind::Boolean, "Wake an Apple app in the background."),
        field("mutable_content", ValueKind::Boolean, "Let an Apple app change the notification first."),
        field("restricted_package_name", ValueKind::Text, "Only to registrations of this package."),
        field("dry_run", ValueKind::Boolean, "The legacy name of validate_only."),
        field(
            "delay_while_idle",
            ValueKind::Boolean,
            "Legacy; Google ignores it, and so does this provider.",
        ),
    ]
}

fn examples() -> Vec<Example> {
    const DEVICE: &str = "bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1";
    let settings = &[(PROJECT, "example-project")];
    let example = |notification| example("service-account", settings, DEVICE, notification);
    vec![
        example(r#"{"title":"Dinner","body":"It is ready","data":{"table":4}}"#),
        example(
            r#"{"body":"On its way","badge":1,"sound":"default","collapse_key":"order-7","ttl":3600,"priority":"high","android":{"notification":{"channel_id":"orders"}}}"#,
        ),
        example(r#"{"data":{"sync":"inbox"},"content_available":true}"#),
        example(
            r#"{"notification":{"title":"Legacy","body":"names","icon":"bell","click_action":"OPEN"},"dry_run":true}"#,
        ),
    ]
}
