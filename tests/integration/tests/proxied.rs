//! Push services that are only reached through a proxy: the direct way leads to a closed port.

use std::sync::{Arc, Mutex};

use pushlet_simulator::Simulator;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{DEVICE, Harness, Pushlet, expect};

/// The port that all endpoints are configured with: nobody listens there.
const CLOSED: &str = "127.0.0.1:1";

/// A proxy that opens a tunnel to the port at which the host that it is asked for really is.
struct Proxy {
    address: String,
    /// The heads of all requests.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `authorization`: what it demands.
    async fn start(target: String, authorization: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(tunnel(stream, target.clone(), authorization, seen.clone()));
            }
        });
        Self { address, requests }
    }
}

async fn tunnel(stream: TcpStream, target: String, authorization: &str, seen: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).await.unwrap(), 0);
    }
    let is_allowed = head.contains(&format!("Proxy-Authorization: {authorization}\r\n"));
    seen.lock().unwrap().push(head);
    if !is_allowed {
        let denied = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
        return stream.write_all(denied).await.unwrap();
    }
    let mut there = TcpStream::connect(target).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut there).await;
}

/// A harness whose APNs is behind the proxy.
async fn behind(proxy: impl AsyncFnOnce(&Simulator) -> String) -> Harness {
    let mut harness = Harness::new().await;
    let ca = harness.simulator.credentials().ca_pem.display().to_string();
    let delivery = proxy(&harness.simulator).await;
    let toml = format!(
        "listen = \"127.0.0.1:0\"\ntls.extra_roots = [{ca:?}]\n\
         endpoints.apns = {{ production = \"https://{CLOSED}\", development = \"https://{CLOSED}\" }}\n{delivery}"
    );
    let server = Pushlet::start(&toml).await;
    harness.server = server;
    harness.register_apns("shop").await;
    harness
}

async fn send(harness: &Harness) -> serde_json::Value {
    let body = json!({"application_id": "shop", "notification": {"body": "x"}, "targets": [DEVICE]});
    expect(harness.server.post("/v1/notifications").json(&body), 200).await["results"][0].clone()
}

fn apns(simulator: &Simulator) -> String {
    simulator.apns_url().trim_start_matches("https://").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_to_apple_goes_through_the_proxy_with_its_password() {
    let mut seen = None;
    let harness = behind(async |simulator| {
        // "me:secret"
        let proxy = Proxy::start(apns(simulator), "Basic bWU6c2VjcmV0").await;
        seen = Some(proxy.requests.clone());
        format!("delivery.proxy = \"http://me:secret@{}\"\n", proxy.address)
    })
    .await;
    assert_eq!(send(&harness).await["status"], "delivered");
    assert_eq!(harness.simulator.counts().apns.delivered, 1);
    let requests = seen.unwrap().lock().unwrap().clone();
    assert!(requests[0].starts_with(&format!("CONNECT {CLOSED} HTTP/1.1\r\n")), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_proxy_or_its_password_nothing_arrives_and_the_reason_is_told() {
    let direct = behind(async |_| "delivery.proxy = \"none\"\n".to_owned()).await;
    assert_eq!(send(&direct).await["status"], "unavailable", "the direct way is closed");
    let mut seen = None;
    let wrong = behind(async |simulator| {
        let proxy = Proxy::start(apns(simulator), "Basic bWU6c2VjcmV0").await;
        seen = Some(proxy.requests.clone());
        format!("delivery.proxy = \"http://me:wrong@{}\"\n", proxy.address)
    })
    .await;
    let result = send(&wrong).await;
    assert_eq!(result["status"], "unavailable", "{result}");
    assert!(!result.to_string().contains("wrong"), "{result}");
    assert!(!seen.unwrap().lock().unwrap().is_empty(), "the proxy refused it");
    let excepted = behind(async |simulator| {
        let proxy = Proxy::start(apns(simulator), "").await;
        format!("delivery.proxy = \"http://{}\"\ndelivery.no_proxy = [\"127.0.0.0/8\"]\n", proxy.address)
    })
    .await;
    assert_eq!(send(&excepted).await["status"], "unavailable", "it is reached directly");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_come_from_the_address_that_is_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let bound =
        "delivery.bind = [\"127.0.0.7\"]\ndelivery.address_family = \"ipv4\"\ndelivery.proxy = \"none\"\n";
    let url = format!("https://127.0.0.1:{port}");
    let endpoints = format!("endpoints.gcm = {{ production = {url:?}, development = {url:?} }}\n{bound}");
    let harness = behind(async |_| endpoints).await;
    let form = [("device_token", "device"), ("data", r#"{"text":"x"}"#), ("gcm_api_key", "a key")];
    let sending = tokio::spawn(harness.server.post("/send_notification").form(&form).send());
    let (_, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.7");
    sending.abort();
}
