//! The OAuth token endpoint.

use serde_json::{Value, json};

use super::client::{assertion, claims, exchange, now, post_form, send, service_account, start, web};
use pushlet_simulator::{Script, Service};

const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT"})
}

#[tokio::test]
async fn a_signed_assertion_gets_a_token() {
    let simulator = start().await;
    let kid = service_account(&simulator)["private_key_id"].clone();
    for header in [header(), json!({"alg": "RS256", "typ": "JWT", "kid": kid})] {
        let answer = exchange(&simulator, &assertion(&simulator, &header, &claims(&simulator))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body = answer.json();
        assert_eq!((&body["expires_in"], &body["token_type"]), (&json!(3599), &json!("Bearer")));
        assert!(!body["access_token"].as_str().unwrap().is_empty());
    }
    // Google's libraries name Google's endpoint whatever the account's file says.
    let mut google = claims(&simulator);
    google["aud"] = json!("https://oauth2.googleapis.com/token");
    assert_eq!(exchange(&simulator, &assertion(&simulator, &header(), &google)).await.status, 200);
    let mut platform = claims(&simulator);
    platform["scope"] = json!("openid https://www.googleapis.com/auth/cloud-platform");
    assert_eq!(exchange(&simulator, &assertion(&simulator, &header(), &platform)).await.status, 200);
    assert_eq!(simulator.counts().oauth.requests, 4);
    assert_eq!(simulator.counts().oauth.accepted, 4);
}

#[tokio::test]
async fn wrong_claims_have_their_error() {
    let simulator = start().await;
    let cases = [
        ("iss", json!("nobody@example.com"), "invalid_grant", "account not found"),
        ("aud", json!("https://oauth2.example.com/token"), "invalid_grant", "audience"),
        ("exp", json!(now() + 3700), "invalid_grant", "short-lived"),
        ("exp", json!(now() - 120), "invalid_grant", "short-lived"),
        ("iat", json!(now() + 120), "invalid_grant", "short-lived"),
        ("iat", json!("now"), "invalid_grant", "three base64url parts"),
        ("scope", json!("https://www.googleapis.com/auth/drive"), "invalid_scope", "scope"),
        ("scope", json!(""), "invalid_scope", "scope"),
    ];
    for (name, value, error, part) in cases {
        let mut wrong = claims(&simulator);
        wrong[name] = value.clone();
        let answer = exchange(&simulator, &assertion(&simulator, &header(), &wrong)).await;
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(error)), "{name} {value}");
        let description = answer.json()["error_description"].as_str().unwrap().to_owned();
        assert!(description.contains(part), "{name} {value}: {description}");
    }
    assert_eq!(simulator.counts().oauth.accepted, 0);
}

#[tokio::test]
async fn wrong_signatures_and_forms_have_their_error() {
    let simulator = start().await;
    let good = assertion(&simulator, &header(), &claims(&simulator));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = assertion(&simulator, &header(), &json!({"iss": "x"}));
    let foreign = other.rsplit_once('.').unwrap().1;
    let hs = assertion(&simulator, &json!({"alg": "HS256"}), &claims(&simulator));
    let kid = assertion(&simulator, &json!({"alg": "RS256", "kid": "other"}), &claims(&simulator));
    for wrong in [format!("{signed}.{foreign}"), hs, kid] {
        let answer = exchange(&simulator, &wrong).await;
        let body = json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."});
        assert_eq!((answer.status, answer.json()), (400, body), "{wrong}");
    }
    let cases = [
        (format!("grant_type={GRANT}&assertion={signed}.{signature}%3D%3D"), "invalid_grant"),
        (format!("grant_type={GRANT}&assertion=x"), "invalid_grant"),
        (format!("grant_type={GRANT}"), "invalid_request"),
        (format!("assertion={good}"), "invalid_request"),
        (format!("grant_type=client_credentials&assertion={good}"), "unsupported_grant_type"),
    ];
    for (form, error) in cases {
        let answer = post_form(&simulator, &form).await;
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(error)), "{form}");
    }
    let url = format!("{}/token", simulator.google_url());
    let json = web(&simulator).post(&url).header("content-type", "application/json").body("{}");
    assert_eq!(send(json).await.json()["error"], "invalid_request");
    assert_eq!(send(web(&simulator).get(&url)).await.status, 404);
}

#[tokio::test]
async fn the_endpoint_can_be_scripted() {
    let simulator = start().await;
    let body = Some(json!({"error": "invalid_grant", "error_description": "Account deleted"}));
    let script = Script { status: Some(400), body, times: Some(1), ..Script::new(Service::Oauth) };
    simulator.script(script).unwrap();
    let good = assertion(&simulator, &header(), &claims(&simulator));
    let answer = exchange(&simulator, &good).await;
    assert_eq!((answer.status, &answer.json()["error_description"]), (400, &json!("Account deleted")));
    assert_eq!(exchange(&simulator, &good).await.status, 200);
}
