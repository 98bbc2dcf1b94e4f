//! What the provider is and needs.

use pushlet_provider::Environment;
use pushlet_provider::manifest::*;

/// The credential of the API v3.
pub const SERVICE_ACCOUNT: &str = "service-account";
/// The application's id, in the paths of the API v1.
pub const APP_ID: &str = "hms_app_id";
/// The project's id, in the paths of the API v3.
pub const PROJECT_ID: &str = "hms_project_id";
/// The activity that a badge belongs to.
pub const BADGE_CLASS: &str = "hms_badge_class";
/// The title of notifications that have none.
pub const TITLE: &str = "hms_title";
/// Most tokens in one request.
pub const MOST_TOKENS: usize = 1000;

const CLIENT_SECRET: &str = "hms_client_secret";
const ACCOUNT: &str = "hms_service_account";
const PUSH: &str = "https://push-api.cloud.huawei.com";
const TOKENS: &str = "https://oauth-login.cloud.huawei.com";
const TOKEN_URL: &str = "\"https://oauth-login.cloud.huawei.com/oauth2/v3/token\"";
const HOUR: u64 = 3_600_000;

/// The whole manifest.
pub fn manifest() -> ProviderManifest {
    ProviderManifest {
        name: "hms".into(),
        title: "Huawei Push Kit".into(),
        vendor: "huawei".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        description: "HMS Core on Android (API v1, with an app's client secret) and HarmonyOS 5 and later (API v3, with \
                      a service account). Up to 1,000 tokens go out in one request. Huawei tells of most dead tokens by \
                      receipts to an address of the app's owner, not in its answers: delivered means accepted. native \
                      is merged over the message (v1) or is the payload (v3)."
            .into(),
        also_answers: Vec::new(),
        settings: settings(),
        credentials: vec![client(), service_account()],
        options: options(),
        targets: vec![TargetKind::Device, TargetKind::Topic, TargetKind::Condition],
        target_options: Vec::new(),
        environments: vec![Environment::Production],
        endpoints: vec![endpoint("push", PUSH), endpoint("token", TOKENS)],
        targets_per_exchange: MOST_TOKENS as u32,
        targets_per_call: MOST_TOKENS as u32,
        response_headers: names(&["retry-after"]),
        entropy: 0,
        examples: examples(),
    }
}

fn endpoint(name: &str, origin: &str) -> Endpoint {
    Endpoint {
        name: name.into(),
        environment: Environment::Production,
        transport: Transport::Https,
        origin: Origin::Fixed(origin.into()),
    }
}

fn settings() -> Vec<Field> {
    vec![
        field(APP_ID, ValueKind::Text, "The app's id in AppGallery Connect; needed with a client secret.")
            .at_most(64),
        field(PROJECT_ID, ValueKind::Text, "The project's id. The service account tells it itself.")
            .at_most(64),
        field(
            TITLE,
            ValueKind::Text,
            "The title of notifications that have a body alone, which Huawei would refuse.",
        )
        .at_most(256),
        field(
            BADGE_CLASS,
            ValueKind::Text,
            "The full name of the app's entry activity, without which Android takes no badge.",
        )
        .at_most(256),
    ]
}

/// RFC 6749 section 4.4.
fn client() -> Credential {
    let client = ClientCredentials {
        id: Source::Setting(APP_ID.into()),
        secret: CLIENT_SECRET.into(),
        authentication: ClientAuthentication::Body,
    };
    let exchange = TokenExchange {
        token_url: vec![Source::Literal(TOKEN_URL.into())],
        scope: None,
        grant: Grant::ClientCredentials(client),
        refresh_before: 300_000,
        minimum_age: 30_000,
    };
    Credential {
        name: "client".into(),
        secrets: vec![secret(
            CLIENT_SECRET,
            SecretFormat::Text,
            None,
            "The app's client secret, for the API v1.",
        )],
        companions: Vec::new(),
        authentication: Authentication::ExchangedToken((exchange, header("authorization", "Bearer "))),
        required_settings: names(&[APP_ID]),
        derivations: Vec::new(),
        inline: false,
        connection_settings: Vec::new(),
    }
}

/// A token that is signed here and sent as it is. Huawei refuses one that lives for more than a day.
fn service_account() -> Credential {
    let property = |name: &str| Source::SecretProperty((ACCOUNT.into(), name.into()));
    let token = SignedToken {
        key: ACCOUNT.into(),
        algorithm: SigningAlgorithm::Ps256,
        header: vec![("kid".into(), property("key_id")), ("typ".into(), Source::Literal("\"JWT\"".into()))],
        claims: vec![
            ("aud".into(), Source::Literal(TOKEN_URL.into())),
            ("iss".into(), property("sub_account")),
            ("iat".into(), Source::IssuedAt),
            ("exp".into(), Source::ExpiresAt),
        ],
        lifetime: HOUR,
        minimum_age: 60_000,
    };
    Credential {
        name: SERVICE_ACCOUNT.into(),
        secrets: vec![secret(
            ACCOUNT,
            SecretFormat::ServiceAccount,
            None,
            "The service account's JSON file, for the API v3.",
        )],
        companions: Vec::new(),
        authentication: Authentication::SignedToken((token, header("authorization", "Bearer "))),
        required_settings: names(&[PROJECT_ID]),
        derivations: vec![Derivation {
            setting: PROJECT_ID.into(),
            property: Property::ServiceAccountProperty("project_id".into()),
        }],
        inline: false,
        connection_settings: Vec::new(),
    }
}

fn options() -> Vec<Field> {
    vec![
        field(
            "android",
            ValueKind::Json,
            "AndroidConfig of the API v1, merged over what the other fields give.",
        ),
        field(
            "click_action",
            ValueKind::Json,
            "What a tap does; opens the app if it is not given. In the terms of the API: clickAction of v3.",
        ),
        field("channel_id", ValueKind::Text, "The notification channel (v1).").at_most(256),
        field("receipt_id", ValueKind::Text, "Which of the app's receipt addresses is told.").at_most(64),
        field("test_message", ValueKind::Boolean, "A test message: Huawei allows few, with other limits."),
        field("validate_only", ValueKind::Boolean, "Check the message without delivering it; v1 alone."),
        field("push_type", ValueKind::Integer, "push-type of the API v3; 0, or 6 where there is data alone.")
            .between(0.0, 99.0),
    ]
}

fn examples() -> Vec<Example> {
    const TOKEN: &str = "IQAAAACy0PlXAAA8yr4Vw_Jk3dmAo0Yf1sfZ1lTyFqVnOO0Jqg";
    let android = &[(APP_ID, "100000001"), (BADGE_CLASS, "com.example.app.MainActivity"), (TITLE, "Shop")];
    let harmony = &[(PROJECT_ID, "388421841222012345"), (TITLE, "Shop")];
    vec![
        example(
            "client",
            android,
            TOKEN,
            r#"{"title":"Order 7","body":"On its way","badge":1,"ttl":3600,"priority":"high","category":"EXPRESS"}"#,
        ),
        example("client", android, TOKEN, r#"{"data":{"order":7},"collapse_key":"7"}"#),
        example(
            "client",
            android,
            TOKEN,
            r#"{"body":"Hello","receipt_id":"RCP0000001","test_message":true}"#,
        ),
        example(
            SERVICE_ACCOUNT,
            harmony,
            TOKEN,
            r#"{"title":"Order 7","body":"On its way","category":"EXPRESS","data":{"order":7},"badge":1}"#,
        ),
        example(SERVICE_ACCOUNT, harmony, TOKEN, r#"{"data":{"order":7}}"#),
    ]
}
