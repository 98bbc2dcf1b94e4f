//! Providers that send to the URLs that targets name.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Receiver, settings, upload};
use crate::guests::fixture::component;
use crate::harness::{Pushlet, expect};

/// A server whose requests of the provider `origins` go to the receiver, and an application of it.
async fn ready(receiver: &Receiver) -> Pushlet {
    let elsewhere = format!("https://{}/prefix", receiver.address);
    let endpoints = format!(
        "endpoints.\"default/origins\" = {{ production = {elsewhere:?}, development = {elsewhere:?} }}"
    );
    let server = Pushlet::start(&settings(receiver, &endpoints)).await;
    expect(upload(&server, "origins", component("origins")), 200).await;
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let body = json!({"provider": "origins", "credentials": {"origins_p8": key}});
    expect(server.put("/v1/applications/app").json(&body), 200).await;
    server
}

async fn send(server: &Pushlet, urls: &[&str]) -> Vec<Value> {
    let targets: Vec<Value> = urls.iter().map(|url| json!({ "url": url })).collect();
    let body = json!({"application_id": "app", "notification": {"body": "x"}, "targets": targets});
    let answer = expect(server.post("/v1/notifications").json(&body), 200).await;
    answer["results"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_token_names_the_targets_own_origin_wherever_it_is_sent() {
    let receiver = Receiver::start().await;
    let server = ready(&receiver).await;
    let urls = ["https://push.example:8443/send/1", "https://other.example/2?a=b"];
    for result in send(&server, &urls).await {
        assert_eq!(result["status"], "delivered", "{result}");
    }
    let audience = |authorization: &str| {
        let claims = authorization.strip_prefix("Bearer ").unwrap().split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        claims["aud"].as_str().unwrap().to_owned()
    };
    let posts = receiver.posts();
    let mut told: Vec<(&str, String)> =
        posts.iter().map(|post| (post.path.as_str(), audience(&post.authorization))).collect();
    told.sort();
    let expected = [("/prefix/2", "https://other.example"), ("/prefix/send/1", "https://push.example:8443")];
    assert_eq!(told, expected.map(|(path, audience)| (path, audience.to_owned())));
}

#[tokio::test]
async fn a_url_that_no_push_can_go_to_is_the_targets_fault() {
    let receiver = Receiver::start().await;
    let server = ready(&receiver).await;
    let wrong = [
        ("http://push.example/1", "it must begin with https://"),
        ("push.example/1", "it is not a URL"),
        ("https://", "it is not a URL"),
        ("https://user:word@push.example/", "it must not hold a user name or a password"),
    ];
    let mut urls: Vec<&str> = wrong.iter().map(|(url, _)| *url).collect();
    urls.push("https://push.example/1");
    let results = send(&server, &urls).await;
    for (number, (url, rule)) in wrong.iter().enumerate() {
        let result = &results[number];
        assert_eq!((&result["status"], &result["code"]), (&json!("rejected"), &json!("invalid_target")));
        assert_eq!(result["message"], format!("the target's URL: {rule}"), "{url}");
        assert_eq!(result["field"], format!("targets[{number}]"));
    }
    assert_eq!(results[4]["status"], "delivered", "{results:?}");
    assert_eq!(receiver.posts().len(), 1);
}
