//! What the provider is and needs.

use crate::settings::{MOST_IN_FLIGHT, WINDOW};
use pushlet_provider::manifest::*;

/// The secret of the bind request.
pub const PASSWORD: &str = "smpp_password";

/// The whole manifest.
pub fn manifest() -> ProviderManifest {
    ProviderManifest {
        name: "smpp".into(),
        title: "Text messages (SMPP 3.4)".into(),
        vendor: "smpp".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        description: "Text messages through a message centre that speaks SMPP 3.4 over TLS; an operator configures \
                      where it is. title and body are the text; a target is a phone number in international form. \
                      What the message centre accepts counts as delivered: receipts of phones are acknowledged and \
                      not evaluated. badge, sound, data and native have no place in it."
            .into(),
        also_answers: Vec::new(),
        settings: settings(),
        credentials: vec![Credential {
            name: "password".into(),
            secrets: vec![secret(PASSWORD, SecretFormat::Text, None, "The password of the system id; at most 8 bytes.")],
            companions: Vec::new(),
            authentication: Authentication::InStream,
            required_settings: Vec::new(),
            derivations: Vec::new(),
            inline: false,
            connection_settings: Vec::new(),
        }],
        options: vec![
            source_address(),
            choice("alphabet", &["auto", "gsm", "ucs2"], "How characters are written; auto: the shortest way.")
                .by_default("\"auto\""),
        ],
        targets: vec![TargetKind::Device],
        target_options: Vec::new(),
        environments: both_environments(),
        endpoints: configured("push").into(),
        targets_per_exchange: 1,
        targets_per_call: 100,
        response_headers: Vec::new(),
        entropy: 0,
        examples: vec![
            example(
                "password",
                &[("smpp_system_id", "pushlet"), ("smpp_source_address", "Pushlet")],
                "+491700000000",
                r#"{"body":"Hello"}"#,
            ),
            example(
                "password",
                &[("smpp_system_id", "pushlet"), ("smpp_long_messages", "payload")],
                "491700000000",
                r#"{"title":"Grüße","body":"Zehn € und ein 中","ttl":3600,"smpp_source_address":"12345"}"#,
            ),
        ],
    }
}

fn settings() -> Vec<Field> {
    vec![
        field("smpp_system_id", ValueKind::Text, "The name of the account.").required().at_most(15),
        field("smpp_system_type", ValueKind::Text, "What some services want to be told of the client.")
            .at_most(12),
        field("smpp_service_type", ValueKind::Text, "The service of the message centre that messages use.")
            .at_most(5),
        source_address(),
        choice(
            "smpp_bind",
            &["transmitter", "transceiver"],
            "A transceiver is sent receipts too, which it acknowledges.",
        )
        .by_default("\"transmitter\""),
        choice(
            "smpp_long_messages",
            &["parts", "payload"],
            "How a long text goes out: divided here, or as one message_payload that the service divides.",
        )
        .by_default("\"parts\""),
        field("smpp_window", ValueKind::Integer, "Most requests that wait for an answer.")
            .by_default(&WINDOW.to_string())
            .between(1.0, MOST_IN_FLIGHT as f64),
    ]
}

fn source_address() -> Field {
    let description = "Whom the message comes from: a number, or up to 11 letters and digits.";
    field("smpp_source_address", ValueKind::Text, description).at_most(20)
}
