use super::*;
use pushlet_model::contract::manifest::{Secret, SecretFormat, TargetKind, Transport};

fn manifest() -> ProviderManifest {
    ProviderManifest {
        name: "test".into(),
        title: String::new(),
        vendor: "nobody".into(),
        version: "1".into(),
        description: String::new(),
        also_answers: vec![],
        settings: vec![],
        credentials: vec![],
        options: vec![],
        targets: vec![TargetKind::Url],
        endpoints: vec![endpoint(Environment::Production)],
        targets_per_exchange: 1,
        entropy: 0,
        examples: vec![],
    }
}

fn endpoint(environment: Environment) -> Endpoint {
    Endpoint { name: "push".into(), environment, transport: Transport::Https, origin: Origin::AnyHttps }
}

/// What is wrong with a manifest whose secret goes into this header.
fn secret_in(header: &str) -> Option<String> {
    let place = HeaderPlacement { name: header.into(), prefix: String::new() };
    let secret = Secret {
        name: "secret".into(),
        format: SecretFormat::Text,
        password: None,
        description: String::new(),
    };
    let credential = Credential {
        name: "key".into(),
        secrets: vec![secret],
        authentication: Authentication::SecretHeader(("secret".into(), place)),
        required_settings: vec![],
        derivations: vec![],
        inline: false,
        connection_settings: vec![],
    };
    check_manifest(&ProviderManifest { credentials: vec![credential], ..manifest() }).err()
}

#[test]
fn a_secrets_header_says_which_rule_it_breaks() {
    assert_eq!(secret_in("x-webhook-secret"), None);
    assert_eq!(secret_in("authorization"), None);
    let told = |header: &str| secret_in(header).unwrap_or_default();
    let of = "credential key: a credential cannot become the header";
    assert_eq!(
        told("X-Webhook-Secret"),
        format!("{of} \"X-Webhook-Secret\": the name must be in lower case")
    );
    assert_eq!(told("x secret"), format!("{of} \"x secret\": the name cannot be one of HTTP"));
    assert_eq!(told("host"), "credential key: a credential must not become the header \"host\"");
}

#[test]
fn applications_in_production_have_an_endpoint() {
    assert_eq!(check_manifest(&manifest()), Ok(()));
    let both = [Environment::Production, Environment::Development].map(endpoint).to_vec();
    assert_eq!(check_manifest(&ProviderManifest { endpoints: both, ..manifest() }), Ok(()));
    let development = vec![endpoint(Environment::Development)];
    let fault = check_manifest(&ProviderManifest { endpoints: development, ..manifest() }).unwrap_err();
    assert!(fault.starts_with("it has no endpoint for production"), "{fault}");
}
