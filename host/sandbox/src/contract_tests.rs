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
        targets_per_call: 500,
        target_options: Vec::new(),
        environments: vec![Environment::Production],
        response_headers: Vec::new(),
        entropy: 0,
        examples: vec![],
    }
}

fn endpoint(environment: Environment) -> Endpoint {
    Endpoint { name: "push".into(), environment, transport: Transport::Https, origin: Origin::AnyHttps }
}

/// What is wrong with a manifest whose secret goes into this header.
fn secret_in(header: &str) -> Option<String> {
    check_manifest(&ProviderManifest { credentials: vec![credential(header)], ..manifest() }).err()
}

fn credential(header: &str) -> Credential {
    let place = Placement { place: Place::Header(header.into()), prefix: String::new() };
    let secret = Secret {
        name: "secret".into(),
        format: SecretFormat::Text,
        password: None,
        description: String::new(),
    };
    Credential {
        name: "key".into(),
        secrets: vec![secret],
        authentication: Authentication::Secret(("secret".into(), place)),
        required_settings: vec![],
        derivations: vec![],
        inline: false,
        companions: Vec::new(),
        connection_settings: vec![],
    }
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
    let both = vec![Environment::Production, Environment::Development];
    let endpoints = both.iter().copied().map(endpoint).collect();
    let sound = ProviderManifest { endpoints, environments: both.clone(), ..manifest() };
    assert_eq!(check_manifest(&sound), Ok(()));
    let fault = |environments: &[Environment], endpoints: &[Environment]| {
        let endpoints = endpoints.iter().copied().map(endpoint).collect();
        let environments = environments.to_vec();
        check_manifest(&ProviderManifest { endpoints, environments, ..manifest() }).unwrap_err()
    };
    let development = &both[1..];
    assert!(fault(development, development).starts_with("its environments lack production"));
    let lacks = "endpoint push is not there for development, which is among its environments";
    assert_eq!(fault(&both, &both[..1]), lacks);
    let undeclared = "endpoint push is for an environment that it does not declare";
    assert_eq!(fault(&both[..1], &both), undeclared);
    assert_eq!(fault(&[both[0], both[0]], &both[..1]), "an environment is there twice");
}

#[test]
fn the_manifest_fits_the_world() {
    let stream = |origin: Origin, name: &str| {
        let endpoint = Endpoint {
            name: name.into(),
            transport: Transport::Tls,
            origin,
            ..endpoint(Environment::Production)
        };
        ProviderManifest { endpoints: vec![endpoint], ..manifest() }
    };
    let configured = stream(Origin::Configured, "push");
    assert_eq!(check_world(&configured, true), Ok(()));
    assert_eq!(check_world(&manifest(), false), Ok(()));
    let fault = check_world(&configured, false).unwrap_err();
    assert_eq!(fault, "the transport tls is for the world stream-provider");
    assert!(check_world(&manifest(), true).is_err(), "HTTP in the world stream-provider");
    assert!(check_world(&stream(Origin::AnyHttps, "push"), true).is_err());
    assert!(check_world(&stream(Origin::Configured, "feedback"), true).is_err(), "nowhere to submit to");
    let mut in_header = configured;
    in_header.credentials.push(credential("authorization"));
    assert!(check_world(&in_header, true).is_err());
    in_header.credentials[0].authentication = Authentication::InStream;
    assert_eq!(check_world(&in_header, true), Ok(()));
    let outside = ProviderManifest { endpoints: manifest().endpoints, ..in_header };
    assert!(check_manifest(&outside).is_err(), "a secret in a stream that does not exist");
}

#[test]
fn a_field_agrees_with_itself() {
    let sound = Field {
        name: "ttl".into(),
        kind: ValueKind::Integer,
        required: false,
        choices: vec![],
        default: Some("60".into()),
        minimum: Some(0.0),
        maximum: Some(100.0),
        max_length: None,
        unit: Some("s".into()),
        description: String::new(),
    };
    let fault = |change: fn(&mut Field)| {
        let mut field = sound.clone();
        change(&mut field);
        check_manifest(&ProviderManifest { target_options: vec![field], ..manifest() }).err()
    };
    assert_eq!(fault(|_| ()), None);
    let cases: [(fn(&mut Field), &str); 6] = [
        (|field| field.default = Some("101".into()), "its default: ttl must be from 0 to 100 s"),
        (|field| field.default = Some("{".into()), "its default is not JSON, or too long"),
        (|field| field.minimum = Some(200.0), "its minimum is more than its maximum"),
        (|field| field.maximum = Some(f64::NAN), "its range is not a number"),
        (|field| field.kind = ValueKind::Text, "only a number has a range"),
        (|field| field.max_length = Some(3), "only a text or JSON has a length"),
    ];
    for (change, expected) in cases {
        assert_eq!(fault(change).as_deref(), Some(&*format!("option of a target ttl: {expected}")));
    }
}

#[test]
fn batches_and_headers_are_bounded() {
    let fault = |change: fn(&mut ProviderManifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        check_manifest(&manifest).err().unwrap_or_default()
    };
    assert_eq!(
        fault(|manifest| manifest.targets_per_exchange = 501),
        "targets-per-call must be from targets-per-exchange to 10000"
    );
    assert_eq!(
        fault(|manifest| manifest.response_headers = vec!["Apns-Id".into()]),
        "the response header \"Apns-Id\" is not a name in lower case"
    );
}
