//! What the provider is and needs.

use crate::gateway::{LEAST_SETTLE, LONGEST_SETTLE, SETTLE};
use pushlet_provider::manifest::*;

/// The name of the only credential.
const CERTIFICATE: &str = "certificate";

/// The endpoint of the feedback service.
pub const FEEDBACK: &str = "feedback";

/// The whole manifest.
pub fn manifest() -> ProviderManifest {
    ProviderManifest {
        name: "apns-binary".into(),
        title: "Apple push, the binary protocol".into(),
        vendor: "apple".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        description: "The binary provider protocol (commands 1 and 2) and its feedback service. Apple's own servers \
                      no longer speak it: an operator must configure one that does. The protocol says nothing of \
                      what succeeds: a push counts as delivered if no error came within settle_time, or if an error \
                      names a later one. data goes beside aps; collapse_key and identifier have no place; native is \
                      a whole payload."
            .into(),
        also_answers: Vec::new(),
        settings: vec![
            field("settle_time", ValueKind::Integer, "How long after it was written a push without an error counts as delivered.")
                .by_default(&SETTLE.to_string())
                .between(LEAST_SETTLE as f64, LONGEST_SETTLE as f64)
                .in_unit("ms"),
            choice("command", &["1", "2"], "The form of a notification: 1, enhanced; 2, framed.").by_default("\"2\""),
        ],
        credentials: vec![certificate()],
        options: vec![
            field("content_available", ValueKind::Boolean, "Wake the app in the background."),
            field("mutable_content", ValueKind::Boolean, "Hand it to the notification service extension first."),
        ],
        targets: vec![TargetKind::Device],
        target_options: Vec::new(),
        environments: both_environments(),
        endpoints: ["push", FEEDBACK].into_iter().flat_map(configured).collect(),
        targets_per_exchange: 1,
        targets_per_call: 100,
        response_headers: Vec::new(),
        entropy: 0,
        examples: examples(),
    }
}

fn certificate() -> Credential {
    let password = Some("apns_binary_p12_pass");
    let pem = "The app's push certificate and its key as PEM.";
    let p12 = "The app's push certificate and its key as PKCS#12.";
    Credential {
        name: CERTIFICATE.into(),
        secrets: vec![
            secret("apns_binary_pem", SecretFormat::PemIdentity, password, pem),
            secret("apns_binary_p12", SecretFormat::Pkcs12Identity, password, p12),
        ],
        companions: Vec::new(),
        authentication: Authentication::ClientCertificate,
        required_settings: Vec::new(),
        derivations: Vec::new(),
        inline: false,
        connection_settings: Vec::new(),
    }
}

fn examples() -> Vec<Example> {
    let token = "fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9a2";
    vec![
        example(CERTIFICATE, &[], token, r#"{"body":"hello","badge":1,"sound":"default"}"#),
        example(
            CERTIFICATE,
            &[("command", "1")],
            token,
            r#"{"title":"Order 7","body":"On its way","ttl":3600,"data":{"order":7}}"#,
        ),
    ]
}
