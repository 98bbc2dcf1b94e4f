use std::sync::Arc;

use super::access_tokens::Endpoint;
use super::*;
use crate::files::keys::{KeyDer, KeyEncoding};
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
        let exchange = AuthorizeRequest {
            tenant,
            credential,
            kind,
            settings,
            origin,
            token_trust: &Untrusted,
            request: None,
        };
        match self.authorizer.authorize(exchange, now, soon()).await? {
            Authorization::Header { value, token, .. } => {
                Ok((value.to_str().unwrap().to_owned(), token.unwrap()))
            }
            _ => panic!("no header"),
        }
    }

    fn expired(&self, handle: &TokenHandle, now: &ClockReading) -> bool {
        self.authorizer.refused(handle, CredentialFault::Expired, now)
    }
}

/// The step of Apple's tokens: the largest multiple of 20 minutes within 50.
const STEP: u64 = 40 * MINUTE;

/// The last time at which all nodes made a new token.
fn on_a_step() -> ClockReading {
    ClockReading::now().rounded_down(Duration::from_secs(STEP))
}

fn key() -> Vec<u8> {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    workshop.read("key.pem")
}

#[tokio::test]
async fn keeps_a_token_until_the_next_step() {
    let apple = Apple::new(&key());
    let start = on_a_step();
    let (first, _) = apple.token(&start).await;
    assert_eq!(apple.token(&later(&start, STEP - 1)).await.0, first);
    let renewed = later(&start, STEP);
    let (second, _) = apple.token(&renewed).await;
    assert_ne!(second, first);
    assert_eq!(apple.token(&later(&renewed, STEP - 1)).await.0, second);
}

#[tokio::test]
async fn all_nodes_show_the_same_token_without_asking_each_other() {
    let key = key();
    let (one, other) = (Apple::new(&key), Apple::new(&key));
    let start = on_a_step();
    let (first, _) = one.token(&start).await;
    let joined = later(&start, STEP - 1);
    let (same, _) = other.token(&joined).await;
    assert_eq!(same, first, "a node that starts late");
    let next = later(&start, STEP);
    let (second, _) = other.token(&next).await;
    assert_eq!(one.token(&next).await.0, second);
    assert_ne!(second, first, "both change at the same moment");

    // A token that the service calls expired: each node learns that on its own.
    let (one, other) = (Apple::new(&key), Apple::new(&key));
    let refused = later(&start, 25 * MINUTE);
    let (shown, _) = one.token(&refused).await;
    assert_eq!(shown, first);
    assert!(one.expired(&one.token(&refused).await.1, &refused));
    let (third, third_handle) = one.token(&refused).await;
    assert_ne!(third, first);
    let (_, handle_there) = other.token(&refused).await;
    let soon = later(&refused, 5 * MINUTE);
    assert!(other.expired(&handle_there, &soon));
    assert_eq!(other.token(&soon).await.0, third);
    assert!(!one.expired(&third_handle, &soon), "it is 10 minutes old");
    assert_eq!(one.token(&later(&start, STEP)).await.0, second, "the common step again");
}

/// The example key of RFC 6979, appendix A.2.5, as PKCS#8, and the token that PyPI's `cryptography` 50.0.2 signs with it
/// (`ECDSA(SHA256(), deterministic_signing=True)`; header and claims as RFC 7515 writes them).
#[tokio::test]
async fn the_token_is_the_one_that_another_implementation_makes() {
    let parts = [
        "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420",
        "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721a144034200",
        "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6",
        "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
    ];
    let der = hex::decode(parts.concat()).unwrap();
    let token_key =
        TokenKey::parse(&KeyDer::new(KeyEncoding::Pkcs8, der.clone().into()), SigningAlgorithm::Es256)
            .ok()
            .unwrap();
    let signature = |message: &[u8]| hex::encode(token_key.sign(message).unwrap());
    assert_eq!(
        signature(b"sample"),
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
         f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
    );
    assert_eq!(
        signature(b"test"),
        "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367\
         019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083"
    );

    let apple = Apple::new(&der);
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + 39 * MINUTE);
    let (token, _) = apple.token(&ClockReading { wall, ..ClockReading::now() }).await;
    assert_eq!(
        token,
        "bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQzEyM0RFRkcifQ.\
         eyJpc3MiOiJERUYxMjNHSElKIiwiaWF0IjoxODAwMDAwMDAwfQ.\
         0r92MYkMq3MelWyiFL8y9lb6XaPYShR60umaoCkRI_n5_hojqlQjRvrIusv13Oej44U7xAmFO1Gyn_rbmFOWsg"
    );
}

#[tokio::test]
async fn shares_a_token_between_applications_of_one_key() {
    let (one, other) = (key(), key());
    let apple = Apple::new(&one);
    let start = on_a_step();
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
    let start = on_a_step();
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
    let start = on_a_step();
    let (first, handle) = apple.token(&start).await;
    let old = later(&start, 30 * MINUTE);
    assert!(!apple.authorizer.refused(&handle, CredentialFault::Refused, &old));
    assert_eq!(apple.token(&old).await.0, first);
}

/// After a sleep of the machine only the wall clock has gone on.
#[tokio::test]
async fn counts_the_time_that_the_machine_slept() {
    let apple = Apple::new(&key());
    let start = on_a_step();
    let (first, _) = apple.token(&start).await;
    let awake = ClockReading { wall: start.wall + Duration::from_secs(3600), steady: start.steady };
    assert_ne!(apple.token(&awake).await.0, first);
}

/// A wall clock that ran ahead and is corrected leaves a token that is not valid yet.
#[tokio::test]
async fn mints_anew_when_the_clock_is_set_back() {
    let apple = Apple::new(&key());
    let start = on_a_step();
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
    let start = on_a_step();
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
    assert_eq!(tokens.len(), 1);
    assert_eq!(apple.authorizer.counts().minted, 1);
}

#[tokio::test]
async fn gives_up_a_token_before_the_end_that_it_carries() {
    let mut apple = Apple::new(&key());
    if let Authentication::SignedToken((token, _)) = &mut apple.kind.authentication {
        token.claims.push(("exp".to_owned(), Source::ExpiresAt));
        token.lifetime = minutes(60);
    }
    let start = on_a_step();
    let (first, _) = apple.token(&start).await;
    assert_eq!(apple.token(&later(&start, 40 * MINUTE - 1)).await.0, first);
    assert_ne!(apple.token(&later(&start, 40 * MINUTE)).await.0, first);
}

/// The service counts new tokens per key, whoever uses it.
#[tokio::test]
async fn tenants_of_one_key_share_its_token_and_a_flood_of_another_tenant_does_not_evict_it() {
    let (shared, other) = (key(), key());
    let apple = Apple::new(&shared);
    let start = on_a_step();
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
