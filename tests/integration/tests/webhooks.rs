//! Webhooks: what they are told, how it is signed, and what becomes of messages that do not arrive.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pushlet_simulator::{Options, Simulator};
use pushlet_test_support::https::{self, Connection};
use reqwest::RequestBuilder;
use ring::hmac;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::{
    DEVICE, Directory, Harness, expect, expect_error, http_client, pointing_at, wait_until,
};
use crate::program::Program;
use crate::tenants::{ADMIN, admin, make, with_operator};

const DEAD: &str = "dead15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9";

/// A message, as it came.
#[derive(Debug, Clone)]
struct Message {
    path: String,
    id: String,
    timestamp: String,
    signature: String,
    body: String,
}

impl Message {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Is it signed with this secret, as the specification says?
    fn is_signed(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let signed = format!("{}.{}.{}", self.id, self.timestamp, self.body);
        let tag = STANDARD.decode(self.signature.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes(), &tag).is_ok()
    }
}

/// A service that gets messages.
struct Hooks {
    address: SocketAddr,
    messages: Arc<Mutex<Vec<Message>>>,
    /// What the next ones are answered with; then 204.
    statuses: Arc<Mutex<VecDeque<u16>>>,
    directory: Directory,
    task: JoinHandle<()>,
}

impl Hooks {
    async fn start() -> Self {
        let directory = Directory::new();
        let acceptor = https::acceptor(&directory);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let messages = Arc::<Mutex<Vec<Message>>>::default();
        let statuses = Arc::<Mutex<VecDeque<u16>>>::default();
        let (to, answers) = (messages.clone(), statuses.clone());
        let serve = move |connection| serve(connection, to.clone(), answers.clone());
        let task = tokio::spawn(https::listen(listener, acceptor, serve));
        Self { address, messages, statuses, directory, task }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    async fn has(&self, count: usize) {
        wait_until("the messages arrive", async || self.messages().len() >= count).await;
    }

    /// The configuration of a server that may send to this service.
    fn configuration(&self, simulator: &Simulator, settings: &str) -> String {
        let ca = https::authority(&self.directory).display().to_string();
        let settings = with_operator(&format!(
            "webhooks.private_hosts = [\"127.0.0.1\"]\nwebhooks.first_retry = \"20ms\"\n{settings}"
        ));
        let roots = format!("tls.extra_roots = [{ca:?}, ");
        pointing_at(simulator, &settings).replacen("tls.extra_roots = [", &roots, 1)
    }

    async fn harness(&self, settings: &str) -> Harness {
        Harness::configured(|simulator| self.configuration(simulator, settings)).await
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut connection: Connection,
    messages: Arc<Mutex<Vec<Message>>>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
) -> std::io::Result<()> {
    while let Some(request) = https::read_request(&mut connection).await? {
        let header = |name: &str| request.header(name).to_owned();
        messages.lock().unwrap().push(Message {
            path: request.path.clone(),
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
            body: String::from_utf8(request.body.to_vec()).unwrap(),
        });
        let status = statuses.lock().unwrap().pop_front().unwrap_or(204);
        https::respond(&mut connection, status).await?;
    }
    Ok(())
}

/// A server with the tenant `acme`, whose key is returned, and its application `shop`.
async fn acme(harness: &Harness) -> String {
    let key = make(&harness.server, "acme", &json!({})).await;
    let files = harness.simulator.credentials();
    let body = json!({
        "provider": "apns", "apns_p8": String::from_utf8(harness.file(&files.apns_p8)).unwrap(),
        "apns_key_id": files.apns_key_id, "apns_team_id": files.apns_team_id, "apns_topic": files.apns_topic,
    });
    expect(harness.server.put("/v1/applications/shop").bearer_auth(&key).json(&body), 200).await;
    key
}

fn put(harness: &Harness, key: &str, id: &str, body: &Value) -> RequestBuilder {
    harness.server.put(&format!("/v1/webhooks/{id}")).bearer_auth(key).json(body)
}

async fn send(harness: &Harness, key: &str, targets: &[&str]) {
    let body = json!({"application_id": "shop", "notification": {"body": "x"}, "targets": targets});
    expect(harness.server.post("/v1/notifications").bearer_auth(key).json(&body), 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_tokens_are_told_signed_and_to_their_tenant_alone() {
    let hooks = Hooks::start().await;
    let harness = hooks.harness("").await;
    let key = acme(&harness).await;
    let other = make(&harness.server, "other", &json!({})).await;
    expect(put(&harness, &other, "spy", &json!({"url": hooks.url("/spy")})), 201).await;
    let made = expect(put(&harness, &key, "all", &json!({"url": hooks.url("/all?a=b")})), 201).await;
    let secret = made["secret"].as_str().unwrap();
    let some = json!({"url": hooks.url("/limits"), "events": ["limit.reached"]});
    expect(put(&harness, &key, "limits", &some), 201).await;

    send(&harness, &key, &[DEVICE, DEAD]).await;
    hooks.has(1).await;
    let message = hooks.messages().remove(0);
    assert_eq!(message.path, "/all?a=b");
    assert!(message.is_signed(secret), "{message:?}");
    let told = message.json();
    assert_eq!(told["type"], "token.dead");
    assert_eq!(
        (&told["data"]["application_id"], &told["data"]["provider"]),
        (&json!("shop"), &json!("apns"))
    );
    assert_eq!(told["data"]["tokens"][0]["token"], DEAD, "{told}");
    assert_eq!(told["data"]["tokens"].as_array().unwrap().len(), 1);

    // A limit, for both that want to hear of it.
    let limits = json!({"limits": {"pushes_per_second": 1}});
    expect(admin(harness.server.put("/v1/tenants/acme").json(&limits)), 200).await;
    // More than a second's worth goes, and is owed.
    let body =
        json!({"application_id": "shop", "notification": {"body": "x"}, "targets": [DEVICE, "c", "d"]});
    for status in [200, 429] {
        expect(harness.server.post("/v1/notifications").bearer_auth(&key).json(&body), status).await;
    }
    hooks.has(3).await;
    let mut told: Vec<_> = hooks
        .messages()
        .split_off(1)
        .iter()
        .map(|one| (one.path.clone(), one.json()["type"].clone()))
        .collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(
        told,
        [("/all?a=b".to_owned(), json!("limit.reached")), ("/limits".to_owned(), json!("limit.reached"))]
    );
    let path = "/v1/webhooks/all/attempts";
    let attempts = async || {
        let shown = expect(harness.server.get(path).bearer_auth(&key), 200).await;
        shown["attempts"].as_array().unwrap().clone()
    };
    wait_until("both are recorded", async || attempts().await.len() == 2).await;
    let first = &attempts().await[1];
    assert_eq!(
        (&first["event"], &first["status"], &first["attempt"], &first["message"]),
        (&json!("token.dead"), &json!(204), &json!(1), &json!(message.id))
    );
    wait_until("they are counted", async || {
        let metrics = admin(harness.server.get("/metrics")).send().await.unwrap().text().await.unwrap();
        metrics.contains("pushlet_webhook_attempts_total{outcome=\"arrived\"} 3")
            && metrics.contains("pushlet_webhook_messages_waiting 0")
    })
    .await;

    // Who is not its owner sees none of it.
    for path in ["/v1/webhooks/all", path] {
        expect_error(harness.server.get(path).bearer_auth(&other), 404, "webhook_not_found").await;
    }
    let listed = expect(harness.server.get("/v1/webhooks").bearer_auth(&key), 200).await;
    assert!(!listed.to_string().contains("whsec_"), "{listed}");
    assert_eq!(listed["webhooks"].as_array().unwrap().len(), 2);
    // The secret stays with a change, unless another one is wanted.
    let change = json!({"url": hooks.url("/all")});
    assert_eq!(expect(put(&harness, &key, "all", &change), 200).await["secret"], Value::Null);
    let change = json!({"url": hooks.url("/all"), "rotate_secret": true});
    let rotated = expect(put(&harness, &key, "all", &change), 200).await;
    assert!(rotated["secret"].is_string() && rotated["secret"] != secret);
    let gone = harness.server.delete("/v1/webhooks/all").bearer_auth(&key).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    expect_error(harness.server.get("/v1/webhooks/all").bearer_auth(&key), 404, "webhook_not_found").await;
    assert!(hooks.messages().iter().all(|message| message.path != "/spy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_until_it_arrives() {
    let hooks = Hooks::start().await;
    let harness = hooks.harness("").await;
    let key = acme(&harness).await;
    let body = json!({"url": hooks.url("/"), "events": ["token.dead"]});
    let secret = expect(put(&harness, &key, "one", &body), 201).await["secret"].as_str().unwrap().to_owned();
    *hooks.statuses.lock().unwrap() = [500, 302].into();
    send(&harness, &key, &[DEAD]).await;
    hooks.has(3).await;
    let told = hooks.messages();
    let is_same = |one: &Message| one.id == told[0].id && one.body == told[0].body && one.is_signed(&secret);
    assert!(told.iter().all(is_same), "{told:?}");
    wait_until("it has arrived", async || {
        let shown = expect(harness.server.get("/v1/webhooks/one").bearer_auth(&key), 200).await;
        shown["waiting"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_waits_outlives_a_killed_process() {
    let hooks = Hooks::start().await;
    let directory = Directory::new();
    let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
    let (data, registry) = (directory.path().join("data").display().to_string(), "5e".repeat(32));
    let toml =
        hooks.configuration(&simulator, &format!("data_dir = {data:?}\nregistry.key = {registry:?}\n"));
    let toml = toml.replacen("listen = \"127.0.0.1:0\"\n", "", 1);
    let program = Program::serve(&toml).await;
    let client = http_client();
    let made = expect(admin(client.put(program.url("/v1/tenants/acme"))), 201).await;
    let key = made["api_key"].as_str().unwrap();
    let application = json!({
        "provider": "apns",
        "credentials": {"apns_p12": {"base64": STANDARD.encode(std::fs::read(&simulator.credentials().apns_p12).unwrap())}},
    });
    expect(client.put(program.url("/v1/applications/shop")).bearer_auth(key).json(&application), 200).await;
    let hook = json!({"url": hooks.url("/"), "events": ["token.dead"]});
    expect(client.put(program.url("/v1/webhooks/one")).bearer_auth(key).json(&hook), 201).await;
    *hooks.statuses.lock().unwrap() = vec![503; 100_000].into();
    let body = json!({"application_id": "shop", "notification": {"body": "x"}, "target": DEAD});
    expect(client.post(program.url("/v1/notifications")).bearer_auth(key).json(&body), 200).await;
    hooks.has(1).await;
    let waiting = hooks.messages().remove(0);
    drop(program);
    hooks.statuses.lock().unwrap().clear();
    hooks.messages.lock().unwrap().clear();
    let _program = Program::serve(&toml).await;
    hooks.has(1).await;
    let again = hooks.messages().remove(0);
    assert_eq!((again.id, again.body), (waiting.id, waiting.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_gone_or_fails_for_too_long_is_switched_off() {
    let hooks = Hooks::start().await;
    let harness = hooks.harness("webhooks.give_up = \"200ms\"").await;
    let key = acme(&harness).await;
    let watcher = json!({"url": hooks.url("/watcher"), "events": ["webhook.disabled"]});
    expect(put(&harness, &key, "watcher", &watcher), 201).await;
    let is_off = async |id: &str| {
        let shown = expect(harness.server.get(&format!("/v1/webhooks/{id}")).bearer_auth(&key), 200).await;
        shown["disabled"].is_string()
    };
    // 410, and a peer that is not there.
    let unreached = json!({"url": "https://127.0.0.1:9/", "events": ["token.dead"]});
    expect(put(&harness, &key, "unreached", &unreached), 201).await;
    send(&harness, &key, &[DEAD]).await;
    wait_until("it is switched off", async || is_off("unreached").await).await;
    let attempts = expect(harness.server.get("/v1/webhooks/unreached/attempts").bearer_auth(&key), 200).await;
    assert!(attempts["attempts"].as_array().unwrap().len() > 1, "{attempts}");
    assert!(attempts["attempts"][0]["error"].is_string() && attempts["attempts"][0]["status"].is_null());
    hooks.has(1).await;
    assert_eq!(hooks.messages()[0].json()["data"], json!({"webhook_id": "unreached"}));

    let gone = json!({"url": hooks.url("/gone"), "events": ["token.dead"]});
    expect(put(&harness, &key, "gone", &gone), 201).await;
    hooks.statuses.lock().unwrap().push_back(410);
    send(&harness, &key, &[DEAD]).await;
    wait_until("it is switched off", async || is_off("gone").await).await;
    // Switched on again, it gets what waits.
    expect(put(&harness, &key, "gone", &gone), 200).await;
    wait_until("it arrives", async || {
        hooks.messages().iter().filter(|message| message.path == "/gone").count() >= 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_public_addresses_and_https_are_called() {
    let hooks = Hooks::start().await;
    let harness = Harness::with(&with_operator("")).await;
    let key = acme(&harness).await;
    for url in
        ["http://hooks.example/", "https://me:secret@hooks.example/", "https://hooks.example/#a", "hooks"]
    {
        expect_error(put(&harness, &key, "one", &json!({ "url": url })), 400, "invalid_url").await;
    }
    let url = hooks.url("/");
    expect_error(put(&harness, &key, "one", &json!({"url": url, "events": ["all"]})), 400, "invalid_events")
        .await;
    expect_error(put(&harness, &key, "a%2Fb", &json!({ "url": url })), 400, "invalid_webhook_id").await;
    for number in 0..10 {
        expect(put(&harness, &key, &format!("w{number}"), &json!({ "url": url })), 201).await;
    }
    expect_error(put(&harness, &key, "one", &json!({ "url": url })), 409, "too_many_webhooks").await;
    send(&harness, &key, &[DEAD]).await;
    let attempts = async || {
        let shown = expect(harness.server.get("/v1/webhooks/w0/attempts").bearer_auth(&key), 200).await;
        shown["attempts"].as_array().unwrap().clone()
    };
    wait_until("it was tried", async || !attempts().await.is_empty()).await;
    assert!(attempts().await[0]["error"].is_string());
    assert!(hooks.messages().is_empty(), "an address of this machine is not called");
    // The operator has no webhooks of its own.
    let operator = harness.server.get("/v1/webhooks").bearer_auth(ADMIN);
    expect_error(operator, 403, "tenant_required").await;
}
