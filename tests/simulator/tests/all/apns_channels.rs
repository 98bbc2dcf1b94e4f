//! Channel management and broadcasts.

use serde_json::json;

use super::apns::golden;
use super::client::{Answer, Apns, Headers, Identity, Running, TOPIC, TokenSpec, start};
use pushlet_simulator::CertificateSpec;

const ID: &str = "eabeae54-14a8-11e5-b60b-1697f925ec7b";
const UPDATE: &str = r#"{"aps":{"event":"update","timestamp":1,"content-state":{}}}"#;

/// A client with a provider token for one bundle id.
struct Client {
    apns: Apns,
    bearer: String,
    bundle: String,
}

impl Client {
    async fn new(simulator: &Running, bundle: &str) -> Client {
        let bearer = TokenSpec::of(simulator).bearer();
        Client { apns: Apns::without(simulator).await, bearer, bundle: bundle.to_owned() }
    }

    async fn channels(&self, method: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.request(method, &format!("/1/apps/{}/channels", self.bundle), headers, body).await
    }

    async fn broadcast(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        self.request("POST", &format!("/4/broadcasts/apps/{}", self.bundle), headers, body).await
    }

    async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("authorization", self.bearer.as_str())];
        all.extend_from_slice(headers);
        self.apns.request(method, path, &all, body.to_owned()).await
    }

    async fn create(&self, policy: u8) -> String {
        let body = json!({"message-storage-policy": policy, "push-type": "LiveActivity"}).to_string();
        let answer = self.channels("POST", &[], &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (201, ""));
        answer.header("apns-channel-id").unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_channel_is_made_read_listed_used_and_removed() {
    let simulator = start().await;
    let client = Client::new(&simulator, TOPIC).await;
    let (first, second) = (client.create(0).await, client.create(1).await);
    let read = client.channels("GET", &[("apns-channel-id", &second), ("apns-request-id", ID)], "").await;
    assert_eq!((read.status, read.header("apns-request-id")), (200, Some(ID)));
    assert_eq!(read.json(), json!({"message-storage-policy": 1, "push-type": "LiveActivity"}));
    let path = format!("/1/apps/{TOPIC}/all-channels");
    let listed = client.request("GET", &path, &[], "").await.json();
    let mut channels: Vec<String> = serde_json::from_value(listed["channels"].clone()).unwrap();
    channels.sort();
    let mut expected = vec![first.clone(), second.clone()];
    expected.sort();
    assert_eq!(channels, expected);

    let headers =
        [("apns-channel-id", second.as_str()), ("apns-push-type", "Liveactivity"), ("apns-expiration", "9")];
    let sent = client.broadcast(&headers, UPDATE).await;
    assert_eq!((sent.status, sent.body.as_str()), (200, ""));
    assert!(sent.header("apns-request-id").is_some() && sent.header("apns-unique-id").is_some());

    let removed = client.channels("DELETE", &[("apns-channel-id", &first)], "").await;
    assert_eq!(removed.status, 204);
    let gone = client.channels("GET", &[("apns-channel-id", &first)], "").await;
    assert_eq!(gone.reason(), (400, "ChannelNotRegistered".into()));
    assert_eq!(client.request("GET", &path, &[], "").await.json(), json!({ "channels": [second] }));
}

#[tokio::test]
async fn wrong_requests_have_their_reason() {
    let simulator = start().await;
    let client = Client::new(&simulator, TOPIC).await;
    let channel = client.create(0).await;
    let bodies = [
        ("", "PayloadEmpty"),
        ("{", "BadRequestPayload"),
        ("[]", "BadRequestPayload"),
        (r#"{"message-storage-policy":1}"#, "MissingPushType"),
        (r#"{"message-storage-policy":1,"push-type":"alert"}"#, "InvalidPushType"),
        (r#"{"push-type":"LiveActivity"}"#, "BadRequestPayload"),
        (r#"{"message-storage-policy":2,"push-type":"LiveActivity"}"#, "BadRequestPayload"),
    ];
    for (body, reason) in bodies {
        assert_eq!(client.channels("POST", &[], body).await.reason(), (400, reason.to_owned()), "{body}");
    }
    let read: [(Headers<'_>, &str); 5] = [
        (&[], "MissingChannelId"),
        (&[("apns-channel-id", "!")], "BadChannelId"),
        (&[("apns-channel-id", "AAAA")], "ChannelNotRegistered"),
        (&[("apns-request-id", "7")], "BadMessageId"),
        (&[("apns-channel-id", "AAAA"), ("apns-channel-id", "AAAA")], "BadRequestParams"),
    ];
    for (headers, reason) in read {
        assert_eq!(
            client.channels("GET", headers, "").await.reason(),
            (400, reason.to_owned()),
            "{headers:?}"
        );
    }
    let live = ("apns-push-type", "liveactivity");
    let id = ("apns-channel-id", channel.as_str());
    let broadcast: [(Headers<'_>, &str, u16, &str); 8] = [
        (&[id], UPDATE, 400, "MissingPushType"),
        (&[id, ("apns-push-type", "alert")], UPDATE, 400, "InvalidPushType"),
        (&[live], UPDATE, 400, "MissingChannelId"),
        (&[live, ("apns-channel-id", "AAAA")], UPDATE, 400, "ChannelNotRegistered"),
        (&[live, id, ("apns-expiration", "9")], UPDATE, 400, "BadExpirationDate"),
        (&[live, id, ("apns-priority", "3")], UPDATE, 400, "BadPriority"),
        (&[live, id], "", 400, "PayloadEmpty"),
        (&[live, id], &format!(r#"{{"a":"{}"}}"#, "x".repeat(5113)), 413, "PayloadTooLarge"),
    ];
    for (headers, body, status, reason) in broadcast {
        assert_eq!(
            client.broadcast(headers, body).await.reason(),
            (status, reason.to_owned()),
            "{headers:?}"
        );
    }
    let largest = format!(r#"{{"a":"{}"}}"#, "x".repeat(5112));
    assert_eq!(client.broadcast(&[live, id, ("apns-expiration", "0")], &largest).await.status, 200);
}

#[tokio::test]
async fn paths_methods_and_credentials() {
    let simulator = start().await;
    let client = Client::new(&simulator, TOPIC).await;
    let cases = [
        ("PUT", format!("/1/apps/{TOPIC}/channels"), 405, "MethodNotAllowed"),
        ("POST", format!("/1/apps/{TOPIC}/all-channels"), 405, "MethodNotAllowed"),
        ("GET", format!("/4/broadcasts/apps/{TOPIC}"), 405, "MethodNotAllowed"),
        ("GET", format!("/1/apps/{TOPIC}/everything"), 404, "BadPath"),
        ("GET", "/1/apps//channels".into(), 404, "BadPath"),
        ("POST", "/4/broadcasts/apps/".into(), 404, "BadPath"),
        ("GET", "/1/apps/com.example%20app/channels".into(), 400, "TopicDisallowed"),
    ];
    for (method, path, status, reason) in cases {
        let answer = client.request(method, &path, &[], "").await;
        assert_eq!(answer.reason(), (status, reason.to_owned()), "{method} {path}");
    }
    let path = format!("/1/apps/{TOPIC}/channels");
    let nobody = client.apns.request("GET", &path, &[], "").await;
    assert_eq!(nobody.reason(), (403, "MissingProviderToken".into()));
    let issued = simulator.issue_certificate(&CertificateSpec::for_topic("org.example.other")).unwrap();
    let identity = Identity { certificate: issued.certificate_pem, key: issued.key_pem };
    let other = Apns::connect(&simulator, Some(identity)).await.unwrap();
    assert_eq!(other.request("GET", &path, &[], "").await.reason(), (403, "TopicMismatch".into()));
    let list = other.request("GET", "/1/apps/org.example.other/all-channels", &[], "").await;
    assert_eq!(list.json(), json!({"channels": []}));
}

#[tokio::test]
async fn every_documented_pair_has_a_bundle_id() {
    let simulator = start().await;
    let pairs = golden("channel_and_broadcast");
    assert_eq!(pairs.len(), 28);
    let mut client = Client::new(&simulator, "").await;
    for (index, pair) in pairs.into_iter().enumerate() {
        client.bundle = format!("com.example.bad1{index:02}");
        assert_eq!(client.channels("GET", &[], "").await.reason(), pair);
        assert_eq!(client.broadcast(&[], UPDATE).await.reason(), pair);
    }
}
