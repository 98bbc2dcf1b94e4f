use std::sync::Arc;

use super::access_tokens::Endpoint;
use super::*;
use pushlet_model::contract::CredentialFault;

const MINUTE: u64 = 60;

struct Apple {
    authorizer: Authorizer,
    credential: Credential,
    kind: CredentialKind,
    settings: Vec<(String, String)>,
}

impl Apple {
    fn new(key: &[u8]) -> Self {
        Self {
            authorizer: authorizer(Endpoint::silent()),
            credential: accept(&[token_kind()], &[("apns_p8", key)]),
            kind: token_kind(),
            settings: settings(&[("apns_key_id", "ABC123DEFG"), ("apns_team_id", "DEF123GHIJ")]),
        }
    }

    async fn token(&self, now: &ClockReading) -> (String, TokenHandle) {
        self.token_of(&self.credential, &self.settings, now).await
    }

    async fn token_of(
        &self,
        credential: &Credential,
        settings: &[(String, String)],
        now: &ClockReading,
    ) -> (String, TokenHandle) {
        self.try_token(&TenantId::default_tenant(), credential, settings, now).await.unwrap()
    }

    async fn try_token(
        &self,
        tenant: &TenantId,
        credential: &Credential,
        settings: &[(String, String)],
        now: &ClockReading,
    ) -> Result<(String, TokenHandle), AuthorizeError> {
        let kind = &self.kind;
        let origin = "https://api.example.com";
        let exchange =
            AuthorizeRequest { tenant, credential, kind, settings, origin, token_trust: &Untrusted };
        match self.authorizer.authorize(exchange, now, soon()).await? {
            Authorization::Header { value, token, .. } => {
                Ok((value.to_str().unwrap().to_owned(), token.unwrap()))
            }
            Authorization::ClientCertificate(_) => panic!("no header"),
        }
    }

    fn expired(&self, handle: &TokenHandle, now: &ClockReading) -> bool {
        self.authorizer.refused(handle, CredentialFault::Expired, now)
    }
}

fn key() -> Vec<u8> {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    workshop.read("key.pem")
}

#[tokio::test]
async fn keeps_a_token_for_its_lifetime() {
    let apple = Apple::new(&key());
    let start = ClockReading::now();
    let (first, _) = apple.token(&start).await;
    assert_eq!(apple.token(&later(&start, 50 * MINUTE - 1)).await.0, first);
    let renewed = later(&start, 50 * MINUTE);
    let (second, _) = apple.token(&renewed).await;
    assert_ne!(second, first);
    assert_eq!(apple.token(&later(&renewed, 50 * MINUTE - 1)).await.0, second);
}

#[tokio::test]
async fn shares_a_token_between_applications_of_one_key() {
    let (one, other) = (key(), key());
    let apple = Apple::new(&one);
    let start = ClockReading::now();
    let (first, handle) = apple.token(&start).await;
    let again = accept(&[token_kind()], &[("apns_p8", &one)]);
    let registered_anew = apple.token_of(&again, &apple.settings, &later(&start, 1)).await;
    assert_eq!(registered_anew, (first.clone(), handle), "the service counts tokens per key");
    let another_key = accept(&[token_kind()], &[("apns_p8", &other)]);
    assert_ne!(apple.token_of(&another_key, &apple.settings, &start).await.0, first);
    let another_team = settings(&[("apns_key_id", "ABC123DEFG"), ("apns_team_id", "OTHERTEAM1")]);
    assert_ne!(apple.token_of(&again, &another_team, &start).await.0, first);
    let more =
        settings(&[("apns_key_id", "ABC123DEFG"), ("apns_team_id", "DEF123GHIJ"), ("apns_topic", "a")]);
    assert_eq!(
        apple.token_of(&again, &more, &start).await.0,
        first,
        "settings outside the token do not count"
    );
}

#[tokio::test]
async fn mints_anew_after_expiry_if_the_token_is_old_enough() {
    let apple = Apple::new(&key());
    let start = ClockReading::now();
    let (first, handle) = apple.token(&start).await;
    let early = later(&start, 20 * MINUTE - 1);
    assert!(!apple.expired(&handle, &early), "a second new token within 20 minutes would be refused too");
    assert_eq!(apple.token(&early).await.0, first);
    let due = later(&start, 20 * MINUTE);
    assert!(apple.expired(&handle, &due));
    let (second, new_handle) = apple.token(&due).await;
    assert_ne!(second, first);
    assert!(apple.expired(&handle, &later(&due, 1)), "it was replaced meanwhile: try again");
    assert_eq!(apple.token(&later(&due, 1)).await.0, second, "but nothing new is minted for that");
    assert!(!apple.expired(&new_handle, &later(&due, 2)), "a fresh token that is called expired: give up");
}

#[tokio::test]
async fn does_not_retry_a_refused_key() {
    let apple = Apple::new(&key());
    let start = ClockReading::now();
    let (first, handle) = apple.token(&start).await;
    let old = later(&start, 30 * MINUTE);
    assert!(!apple.authorizer.refused(&handle, CredentialFault::Refused, &old));
    assert_eq!(apple.token(&old).await.0, first);
}

/// After a sleep of the machine only the wall clock has gone on.
#[tokio::test]
async fn counts_the_time_that_the_machine_slept() {
    let apple = Apple::new(&key());
    let start = ClockReading::now();
    let (first, _) = apple.token(&start).await;
    let awake = ClockReading { wall: start.wall + Duration::from_secs(3600), steady: start.steady };
    assert_ne!(apple.token(&awake).await.0, first);
}

/// A wall clock that ran ahead and is corrected leaves a token that is not valid yet.
#[tokio::test]
async fn mints_anew_when_the_clock_is_set_back() {
    let apple = Apple::new(&key());
    let start = ClockReading::now();
    let (first, _) = apple.token(&start).await;
    let at = |back: u64| ClockReading {
        wall: start.wall - Duration::from_secs(back),
        steady: start.steady + Duration::from_secs(5),
    };
    assert_eq!(apple.token(&at(30)).await.0, first, "a small correction");
    let (second, _) = apple.token(&at(7200)).await;
    assert_ne!(second, first);
    assert_eq!(apple.token(&at(7200)).await.0, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mints_once_for_many_callers() {
    let apple = Arc::new(Apple::new(&key()));
    let start = ClockReading::now();
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let apple = apple.clone();
            tokio::spawn(async move { apple.token(&start).await.0 })
        })
        .collect();
    let mut tokens = std::collections::HashSet::new();
    for caller in callers {
        tokens.insert(caller.await.unwrap());
    }
    // ES256 signatures are random: two mints are two tokens.
    assert_eq!(tokens.len(), 1);
}

#[tokio::test]
async fn gives_up_a_token_before_the_end_that_it_carries() {
    let mut apple = Apple::new(&key());
    if let Authentication::SignedToken((token, _)) = &mut apple.kind.authentication {
        token.claims.push(("exp".to_owned(), Source::ExpiresAt));
        token.lifetime = minutes(60);
    }
    let start = ClockReading::now();
    let (first, _) = apple.token(&start).await;
    assert_eq!(apple.token(&later(&start, 50 * MINUTE - 1)).await.0, first);
    assert_ne!(apple.token(&later(&start, 50 * MINUTE)).await.0, first);
}

/// The service counts new tokens per key, whoever uses it.
#[tokio::test]
async fn tenants_of_one_key_share_its_token_and_a_flood_of_another_tenant_does_not_evict_it() {
    let (shared, other) = (key(), key());
    let apple = Apple::new(&shared);
    let start = ClockReading::now();
    let (first, _) = apple.token(&start).await;
    let partner = TenantId::new("partner");
    assert_eq!(apple.try_token(&partner, &apple.credential, &apple.settings, &start).await.unwrap().0, first);

    let flood = TenantId::new("flood");
    let credential = accept(&[token_kind()], &[("apns_p8", &other)]);
    let mut refused = None;
    for number in 0..40_000 {
        let team = format!("TEAM{number:06}");
        let settings = settings(&[("apns_key_id", "ABC123DEFG"), ("apns_team_id", &team)]);
        if let Err(error) = apple.try_token(&flood, &credential, &settings, &start).await {
            refused = Some((error, settings));
            break;
        }
    }
    let (error, last) = refused.expect("no tenant may fill the cache");
    assert_eq!(error, AuthorizeError::TooManyTokens);
    assert_eq!(apple.token(&later(&start, 1)).await.0, first);
    let old = later(&start, 20 * MINUTE);
    assert!(apple.try_token(&flood, &credential, &last, &old).await.is_ok(), "the oldest may go now");
    assert_eq!(apple.token(&old).await.0, first);
    assert_eq!(apple.try_token(&partner, &apple.credential, &apple.settings, &old).await.unwrap().0, first);
}
