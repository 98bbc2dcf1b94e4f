//! Who pays for signatures, which are not made at all, and what a client shows in place of one.

use std::sync::Arc;

use http::HeaderValue;
use serde_json::json;

use super::access_tokens::{Client, Endpoint};
use super::*;
use pushlet_model::contract::manifest::{ClientAuthentication, ClientCredentials};
use pushlet_quota::account::Work;

fn apple() -> Credential {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    accept(&[token_kind()], &[("apns_p8", &workshop.read("key.pem"))])
}

fn exchange<'a>(
    credential: &'a Credential,
    kind: &'a CredentialKind,
    settings: &'a [(String, String)],
) -> AuthorizeRequest<'a> {
    let (origin, token_trust) = ("https://api.example.com", &Untrusted);
    AuthorizeRequest { tenant: tenant(), credential, kind, settings, origin, token_trust, request: None }
}

fn complete() -> Vec<(String, String)> {
    settings(&[("apns_key_id", "ABC123DEFG"), ("apns_team_id", "DEF123GHIJ")])
}

#[test]
fn a_check_signs_nothing_and_asks_nobody() {
    let authorizer = authorizer(Endpoint::silent());
    let (credential, kind, all) = (apple(), token_kind(), complete());
    assert_eq!(authorizer.check(exchange(&credential, &kind, &all)), Ok(()));
    let missing = authorizer.check(exchange(&credential, &kind, &all[..1]));
    assert_eq!(missing, Err(AuthorizeError::MissingSetting("apns_team_id".into())));

    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {RSA} -out key.pem"));
    let file = service_account(&workshop.read("key.pem")).to_string();
    let (account, kind) =
        (accept(&[account_kind()], &[("fcm_service_account", file.as_bytes())]), account_kind());
    assert_eq!(authorizer.check(exchange(&account, &kind, &[])), Ok(()));
    let other = authorizer.check(exchange(&credential, &kind, &[]));
    assert!(matches!(other, Err(AuthorizeError::Manifest(_))), "{other:?}");
    assert_eq!(authorizer.counts(), TokenCounts { minted: 0, fetches: 0, failed_fetches: 0 });
}

#[tokio::test]
async fn nothing_is_signed_after_the_deadline() {
    let authorizer = authorizer(Endpoint::silent());
    let (credential, kind, all) = (apple(), token_kind(), complete());
    let exchange = exchange(&credential, &kind, &all);
    let late = authorizer.authorize(exchange, &ClockReading::now(), Instant::now()).await.err();
    assert_eq!(late, Some(AuthorizeError::DeadlineExceeded));
    assert_eq!(authorizer.counts().minted, 0);
}

#[tokio::test]
async fn a_signature_is_on_the_tenants_account_and_a_token_that_is_there_is_not() {
    let accounts = Accounts::new(AccountSettings::default()).unwrap();
    let account = accounts.of(tenant());
    let authorizer = Authorizer::new(Arc::new(Client(Endpoint::silent())), accounts);
    let (credential, kind, all) = (apple(), token_kind(), complete());
    let (exchange, now) = (exchange(&credential, &kind, &all), ClockReading::now());
    assert!(authorizer.authorize(exchange, &now, soon()).await.is_ok());
    let signing = |(work, time): (Work, Duration)| (work == Work::Signing).then_some(time);
    assert!(account.work_by_kind().into_iter().find_map(signing).unwrap() > Duration::ZERO);

    account.charge_work(Work::Guest, Duration::from_secs(1000));
    assert!(authorizer.authorize(exchange, &now, soon()).await.is_ok(), "it is there");
    let other = settings(&[("apns_key_id", "ABC123DEFG"), ("apns_team_id", "OTHERTEAM1")]);
    let refused =
        authorizer.authorize(AuthorizeRequest { settings: &other, ..exchange }, &now, soon()).await.err();
    let Some(AuthorizeError::NoCapacity(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.code, "limit_cpu_milliseconds_per_second");
    assert_eq!(authorizer.counts().minted, 1);
}

#[tokio::test]
async fn an_assertion_that_is_not_signed_is_no_request() {
    let accounts = Accounts::new(AccountSettings::default()).unwrap();
    let account = accounts.of(tenant());
    account.charge_work(Work::Guest, Duration::from_secs(1000));
    let authorizer = Authorizer::new(Arc::new(Client(Endpoint::silent())), accounts);
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {RSA} -out key.pem"));
    let file = service_account(&workshop.read("key.pem")).to_string();
    let (google, kind) =
        (accept(&[account_kind()], &[("fcm_service_account", file.as_bytes())]), account_kind());
    let refused =
        authorizer.authorize(exchange(&google, &kind, &[]), &ClockReading::now(), soon()).await.err();
    assert!(matches!(refused, Some(AuthorizeError::NoCapacity(_))), "{refused:?}");
    assert_eq!(authorizer.counts(), TokenCounts { minted: 0, fetches: 0, failed_fetches: 0 });
}

#[tokio::test]
async fn asks_with_client_credentials() {
    let (body, authorization) = client_credentials(ClientAuthentication::Body).await;
    let expected =
        "grant_type=client_credentials&client_id=1234&client_secret=s%26cret%3D1&scope=messaging%3Apush";
    assert_eq!((&*body, authorization), (expected, None));
    // RFC 6749 section 2.3.1: the id and the secret are form-urlencoded, then joined: `1234:s%26cret%3D1`.
    let (body, authorization) = client_credentials(ClientAuthentication::Basic).await;
    assert_eq!(body, "grant_type=client_credentials&scope=messaging%3Apush");
    let authorization = authorization.unwrap();
    assert!(authorization.is_sensitive());
    assert_eq!(authorization.as_bytes(), b"Basic MTIzNDpzJTI2Y3JldCUzRDE=");
}

/// The body and the authorization of a request for a token.
async fn client_credentials(authentication: ClientAuthentication) -> (String, Option<HeaderValue>) {
    let exchange = TokenExchange {
        token_url: vec![Source::Literal("\"https://oauth-login.example.com/oauth2/v3/token\"".to_owned())],
        scope: Some("messaging:push".to_owned()),
        grant: Grant::ClientCredentials(ClientCredentials {
            id: Source::Setting("client_id".to_owned()),
            secret: "client_secret".to_owned(),
            authentication,
        }),
        refresh_before: minutes(5),
        minimum_age: 0,
    };
    let secrets = vec![secret("client_secret", SecretFormat::Text, None)];
    let kind = kind("client", secrets, Authentication::ExchangedToken((exchange, place("Bearer "))));
    check_manifest(std::slice::from_ref(&kind)).unwrap();
    let credential = accept(std::slice::from_ref(&kind), &[("client_secret", b"s&cret=1")]);
    let endpoint = Endpoint::new([(200, json!({"access_token": "token", "expires_in": "3600"}).to_string())]);
    let authorizer = authorizer(endpoint.clone());
    let settings = settings(&[("client_id", "1234")]);
    let exchange = AuthorizeRequest {
        tenant: tenant(),
        credential: &credential,
        kind: &kind,
        settings: &settings,
        origin: "https://push",
        token_trust: &Untrusted,
        request: None,
    };
    assert!(authorizer.authorize(exchange, &ClockReading::now(), soon()).await.is_ok());
    let authorization = endpoint.authorizations()[0].clone();
    (endpoint.requests()[0].1.clone(), authorization)
}
