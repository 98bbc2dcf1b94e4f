#![allow(clippy::unwrap_used)]
use std::sync::OnceLock;

use tokio::sync::Semaphore;

use super::*;
use pushlet_model::contract::manifest::Authentication;
use pushlet_model::contract::{self, Environment};
use pushlet_registry::FeedbackList;

fn kind(name: &str, connection_settings: &[&str]) -> CredentialKind {
    CredentialKind {
        name: name.to_owned(),
        secrets: Vec::new(),
        authentication: Authentication::ClientCertificate,
        derivations: Vec::new(),
        required_settings: Vec::new(),
        inline: false,
        companions: Vec::new(),
        connection_settings: connection_settings.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn application(provider: &str, settings: &[(&str, &str)]) -> RegisteredApplication {
    let setting = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    RegisteredApplication {
        record: contract::Application {
            id: "app".to_owned(),
            environment: Environment::Production,
            settings: settings.iter().map(setting).collect(),
            credential: None,
        },
        provider: provider.to_owned(),
        credential: None,
        feedback: Arc::new(FeedbackList::new(1)),
        places: Arc::new(Semaphore::new(1)),
        identity: OnceLock::new(),
        unreached: pushlet_model::error::RepeatedWarning::default(),
    }
}

/// Tenant, provider, credential, and settings.
type Of<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

#[test]
fn identities_whose_parts_concatenate_equally_differ() {
    let of: [Of<'_>; 8] = [
        ("acme", "apns", "token", &[("a", "x:y"), ("b", "z")]),
        ("acme", "apns", "token", &[("a", "x"), ("b", "y:z")]),
        ("acme", "apns", "token", &[("a", "x:y:z"), ("b", "")]),
        ("acme", "apns", "token", &[("a", "x:yz")]),
        ("acmea", "pns", "token", &[("a", "x:y"), ("b", "z")]),
        ("acme", "apnst", "oken", &[("a", "x:y"), ("b", "z")]),
        ("acme", "apns", "tokena", &[("", "x:y"), ("b", "z")]),
        ("other", "apns", "token", &[("a", "x:y"), ("b", "z")]),
    ];
    let mut digests: Vec<[u8; 32]> = Vec::new();
    for (tenant, provider, credential, settings) in of {
        let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
        let tenant = TenantId::new(tenant);
        let of = || connection_digest(&tenant, &application(provider, settings), &kind(credential, &names));
        assert_eq!(of(), of(), "the same parts are the same identity");
        digests.push(of());
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), of.len());
}

#[test]
fn only_connection_settings_count_and_a_new_version_may_name_others() {
    let tenant = TenantId::new("acme");
    let application = application("apns", &[("team", "T"), ("topic", "one")]);
    let by_team = connection_digest(&tenant, &application, &kind("token", &["team"]));
    let by_topic = connection_digest(&tenant, &application, &kind("token", &["topic"]));
    assert_ne!(by_team, by_topic);
    assert_eq!(by_team, connection_digest(&tenant, &application, &kind("token", &["team"])));
    let other = self::application("apns", &[("team", "T"), ("topic", "two")]);
    assert_eq!(by_team, connection_digest(&tenant, &other, &kind("token", &["team"])));
}

fn placed(path: &str, body: &str, place: Place, value: &str) -> Result<(String, String), String> {
    let value = HeaderValue::from_str(value).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let mut parts = RequestParts { path: path.parse().unwrap(), headers: Vec::new(), body };
    match parts.place(vec![(place, value)]) {
        Ok(()) => Ok((parts.path.to_string(), String::from_utf8(parts.body.to_vec()).unwrap())),
        Err(error) => {
            assert_eq!(error.code, "provider_bad_output");
            Err(error.message.into_owned())
        }
    }
}

#[test]
fn secrets_stand_where_the_manifest_says() {
    let secret = "a/b c&d\"";
    let path = |path: &str| placed(path, "", Place::Path(":token".into()), secret).map(|parts| parts.0);
    assert_eq!(path("/bot:token/send?x=1").unwrap(), "/bota%2Fb%20c%26d%22/send?x=1");
    assert!(path("/bot/send?x=:token").is_err() && path("/:token/:token").is_err());
    let query = |path: &str| placed(path, "", Place::Query("key".into()), secret).map(|parts| parts.0);
    assert_eq!(query("/send").unwrap(), "/send?key=a%2Fb%20c%26d%22");
    assert_eq!(query("/send?x=1").unwrap(), "/send?x=1&key=a%2Fb%20c%26d%22");
    assert!(query("/send?x=1&k%65y=2").is_err(), "the component wrote its own");
    let form = |body: &str| placed("/", body, Place::FormField("key".into()), secret).map(|parts| parts.1);
    assert_eq!(form("").unwrap(), "key=a%2Fb%20c%26d%22");
    assert_eq!(form("user=1").unwrap(), "user=1&key=a%2Fb%20c%26d%22");
    assert!(form("key=1").is_err());
    let json = |body: &str| placed("/", body, Place::JsonField("key".into()), secret).map(|parts| parts.1);
    assert_eq!(json(" {} ").unwrap(), "{\"key\":\"a/b c&d\\\"\"} ");
    assert_eq!(json("{\"a\":1}").unwrap(), "{\"key\":\"a/b c&d\\\"\",\"a\":1}");
    assert!(json("{\"key\":1}").is_err() && json("[]").is_err() && json("{\"k\\u0065y\":1}").is_err());
}
