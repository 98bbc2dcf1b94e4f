//! Three servers and one registry in a real NATS server: they act as one.

use std::collections::BTreeSet;

use pushlet_registry::FileStorage;
use pushlet_simulator::{Options, Script, Service, Simulator};
use pushlet_test_support::Nats;
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::guests::fixture::component;
use crate::harness::{DEVICE, Directory, Pushlet, expect, expect_error, pointing_at, wait_until};
use crate::tenants::{ADMIN, admin, change, make};
use crate::upload::{PROGRAM, Receiver, upload};

/// A token that the simulator calls dead.
const DEAD: &str = "dead15a27d5df3c34778defb1f4f3880";

pub struct Fleet {
    pub nodes: Vec<Pushlet>,
    /// What all nodes are configured with, apart from their data.
    settings: String,
    pub nats: Nats,
    pub simulator: Simulator,
    directory: Directory,
}

impl Fleet {
    pub async fn new() -> Self {
        Self::with(|simulator| pointing_at(simulator, "")).await
    }

    pub async fn with(settings: impl FnOnce(&Simulator) -> String) -> Self {
        let directory = Directory::new();
        let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
        let settings = settings(&simulator);
        let mut fleet = Self { nodes: Vec::new(), settings, nats: Nats::single(""), simulator, directory };
        for number in 0..3 {
            let node = fleet.start(number).await;
            fleet.nodes.push(node);
        }
        let three = async || {
            let mut all = true;
            for node in &fleet.nodes {
                let nodes = expect(admin(node.get("/v1/nodes")), 200).await;
                all &= nodes["nodes"].as_array().unwrap().len() == 3;
            }
            all
        };
        wait_until("three nodes know each other", three).await;
        wait_until("the metric says so", async || {
            let metrics = admin(fleet.nodes[0].get("/metrics")).send().await.unwrap().text().await.unwrap();
            let line = metrics.lines().find(|line| line.starts_with("pushlet_fleet_nodes{node=")).unwrap();
            line.ends_with(" 3.0")
        })
        .await;
        fleet
    }

    async fn start(&self, number: usize) -> Pushlet {
        let data = self.directory.path().join(format!("node{number}"));
        Pushlet::start(&format!(
            "{}\ndata_dir = {data:?}\nadmin.key = {ADMIN:?}\ndelivery.retries = 0\n\
             providers.compiler = {PROGRAM:?}\nregistry = {{ url = {:?}, key = {:?}, replicas = 1 }}\n",
            self.settings,
            self.nats.url(),
            "5e".repeat(32)
        ))
        .await
    }

    /// Ends a node, and starts it again with its data.
    pub async fn restart(&mut self, number: usize) {
        self.nodes.remove(number).stop().await;
        let data = self.directory.path().join(format!("node{number}"));
        wait_until("its snapshot is free", async || FileStorage::open_snapshot(&data).is_ok()).await;
        let again = self.start(number).await;
        self.nodes.insert(number, again);
    }

    pub fn pushes(&self) -> usize {
        self.simulator.received().iter().filter(|received| received.service == Service::Apns).count()
    }

    pub fn register(&self, node: usize, key: &str, id: &str) -> RequestBuilder {
        let files = self.simulator.credentials();
        let form = Form::new()
            .part("apns_p12", Part::bytes(std::fs::read(&files.apns_p12).unwrap()))
            .text("application_id", id.to_owned());
        self.nodes[node].post("/register_application").bearer_auth(key).multipart(form)
    }

    fn send(&self, node: usize, key: &str, target: &str) -> RequestBuilder {
        let body = json!({"application_id": "app", "notification": {"body": "hello"}, "target": target});
        self.nodes[node].post("/v1/notifications").bearer_auth(key).json(&body)
    }

    /// Creates a tenant; returns its API key once every node knows it.
    pub async fn tenant(&self, id: &str) -> String {
        let key = make(&self.nodes[0], id, &json!({})).await;
        for node in &self.nodes {
            let is_known = async || status(node.get("/v1/applications").bearer_auth(&key)).await == 200;
            wait_until("the key is known", is_known).await;
        }
        key
    }
}

pub async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

fn tokens(page: &Value) -> Vec<String> {
    let list = page.get("dead_tokens").or(page.get("response")).unwrap().as_array().unwrap();
    list.iter().map(|dead| dead["device_token"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_is_told_all_nodes_know() {
    let fleet = Fleet::new().await;
    let key = fleet.tenant("acme").await;
    expect(fleet.register(0, &key, "app"), 200).await;
    for node in [1, 2, 0] {
        expect(fleet.send(node, &key, DEVICE), 200).await;
    }
    assert_eq!(fleet.pushes(), 3);
    expect_error(
        fleet.nodes[1].get("/v1/applications/other").bearer_auth(&key),
        404,
        "application_not_found",
    )
    .await;

    // A stream on one node ends when another suspends its tenant.
    change(&fleet.nodes[1], "acme", &json!({"suspended": true})).await;
    for node in 0..3 {
        wait_until("it is suspended", async || status(fleet.send(node, &key, DEVICE)).await == 403).await;
    }
    change(&fleet.nodes[2], "acme", &json!({"suspended": false})).await;
    wait_until("it goes on", async || status(fleet.send(0, &key, DEVICE)).await == 200).await;

    let more = expect(admin(fleet.nodes[0].post("/v1/tenants/acme/keys").json(&json!({}))), 201).await;
    let (id, second) = (more["id"].as_str().unwrap(), more["api_key"].as_str().unwrap());
    wait_until("the second key is known", async || status(fleet.send(2, second, DEVICE)).await == 200).await;
    let path = format!("/v1/tenants/acme/keys/{id}");
    wait_until("the key is revoked", async || status(admin(fleet.nodes[2].delete(&path))).await == 204).await;
    wait_until("and not valid elsewhere", async || status(fleet.send(0, second, DEVICE)).await == 401).await;

    assert_eq!(status(fleet.nodes[1].delete("/v1/applications/app").bearer_auth(&key)).await, 204);
    for node in 0..3 {
        wait_until("it is deleted", async || status(fleet.send(node, &key, DEVICE)).await == 404).await;
    }
    assert_eq!(status(admin(fleet.nodes[2].delete("/v1/tenants/acme"))).await, 204);
    for node in 0..3 {
        wait_until("the tenant is gone", async || status(fleet.send(node, &key, DEVICE)).await == 401).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_the_same_moment_lose_nothing() {
    let fleet = Fleet::new().await;
    make(&fleet.nodes[0], "acme", &json!({})).await;
    wait_until("all know it", async || {
        let mut all = true;
        for node in &fleet.nodes {
            all &= status(admin(node.get("/v1/tenants/acme"))).await == 200;
        }
        all
    })
    .await;
    let add = |node: usize| admin(fleet.nodes[node].post("/v1/tenants/acme/keys").json(&json!({}))).send();
    let mut made = BTreeSet::new();
    for _ in 0..3 {
        let (one, two, three) = tokio::join!(add(0), add(1), add(2));
        for response in [one, two, three].map(Result::unwrap) {
            match response.status().as_u16() {
                201 => {
                    made.insert(response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned())
                }
                code => {
                    assert_eq!(
                        (code, response.json::<Value>().await.unwrap()["error"].as_str()),
                        (409, Some("changed_meanwhile"))
                    );
                    false
                }
            };
        }
    }
    assert!(made.len() >= 3, "one of each three is made: {made:?}");
    for node in &fleet.nodes {
        wait_until("every key that was given out is there", async || {
            let keys = expect(admin(node.get("/v1/tenants/acme/keys")), 200).await;
            let known: BTreeSet<_> = keys["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key["id"].as_str().unwrap().to_owned())
                .collect();
            made.is_subset(&known)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_used_once_in_the_whole_fleet() {
    let fleet = Fleet::new().await;
    let key = make(&fleet.nodes[0], "acme", &json!({})).await;
    wait_until("the key is known", async || {
        status(fleet.nodes[1].get("/v1/applications").bearer_auth(&key)).await == 200
    })
    .await;
    expect(fleet.register(0, &key, "app"), 200).await;
    let slow = Script { delay_ms: 300, ..Script::new(Service::Apns) };
    fleet.simulator.script(slow).unwrap();
    let send = |node: usize, id: &str| {
        fleet.send(node, &key, DEVICE).header("idempotency-key", id.to_owned()).send()
    };
    let replayed = |response: &Response| response.headers().contains_key("idempotency-replayed");
    for round in 0..3 {
        let id = format!("key {round}");
        let (one, other) = tokio::join!(send(0, &id), send(1, &id));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((one.status(), other.status()), (other.status(), one.status()));
        assert_eq!([replayed(&one), replayed(&other)].iter().filter(|replayed| **replayed).count(), 1);
        assert_eq!(one.text().await.unwrap(), other.text().await.unwrap());
        assert_eq!(fleet.pushes(), round + 1);
        wait_until("the third node knows it too", async || replayed(&send(2, &id).await.unwrap())).await;
        assert_eq!(fleet.pushes(), round + 1);
    }
    let body = json!({"application_id": "app", "notification": {"body": "other"}, "target": DEVICE});
    let other = fleet.nodes[1]
        .post("/v1/notifications")
        .bearer_auth(&key)
        .header("idempotency-key", "key 0")
        .json(&body);
    expect_error(other, 422, "idempotency_key_reused").await;
    // What delivered nothing is sent again, elsewhere too.
    let missing = json!({"application_id": "none", "notification": {"body": "x"}, "target": DEVICE});
    for node in [0, 1, 0] {
        let request = fleet.nodes[node].post("/v1/notifications").bearer_auth(&key).json(&missing);
        expect_error(request.header("idempotency-key", "free"), 404, "application_not_found").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_tokens_that_one_node_meets_are_told_once() {
    let fleet = Fleet::new().await;
    let key = fleet.tenant("acme").await;
    expect(fleet.register(0, &key, "app"), 200).await;
    let path = "/v1/applications/app/feedback";
    let show = |node: usize, query: &str| fleet.nodes[node].get(&format!("{path}{query}")).bearer_auth(&key);
    for number in 0..4 {
        fleet.send(number % 3, &key, &format!("{DEAD}{number:032x}")).send().await.unwrap();
    }
    fleet.send(0, &key, &format!("{DEAD}{:032x}", 0)).send().await.unwrap();
    wait_until("another node shows them", async || tokens(&expect(show(1, ""), 200).await).len() == 4).await;
    let page = expect(show(2, ""), 200).await;
    let cursor = page["cursor"].as_str().unwrap().to_owned();
    assert!(tokens(&expect(show(0, &format!("?after={cursor}")), 200).await).is_empty());
    fleet.send(1, &key, &format!("{DEAD}{:032x}", 9)).send().await.unwrap();
    wait_until("only the new one comes after it", async || {
        tokens(&expect(show(0, &format!("?after={cursor}")), 200).await) == [format!("{DEAD}{:032x}", 9)]
    })
    .await;
    let drop = fleet.nodes[1].delete(&format!("{path}?before={cursor}")).bearer_auth(&key);
    assert_eq!(status(drop).await, 204);
    assert_eq!(tokens(&expect(show(2, ""), 200).await).len(), 1);
    expect_error(show(0, "?after=x"), 400, "invalid_after").await;
    expect_error(fleet.nodes[0].delete(path).bearer_auth(&key), 400, "missing_before").await;

    for number in 10..200 {
        fleet.send(number % 3, &key, &format!("{DEAD}{number:032x}")).send().await.unwrap();
    }
    wait_until("all are there", async || tokens(&expect(show(1, ""), 200).await).len() == 191).await;
    let take = async |node: usize| {
        let form = [("application_id", "app")];
        tokens(
            &expect(fleet.nodes[node].post("/application_feedback").bearer_auth(&key).form(&form), 200).await,
        )
    };
    let (one, two, three) = tokio::join!(take(0), take(1), take(2));
    let all: Vec<_> = [one, two, three].concat();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (191, 191), "each is told, and to one caller");
    assert!(take(0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_sends_go_on_and_a_node_starts() {
    let mut fleet = Fleet::new().await;
    let key = make(&fleet.nodes[0], "acme", &json!({})).await;
    wait_until("the key is known", async || {
        status(fleet.nodes[1].get("/v1/applications").bearer_auth(&key)).await == 200
    })
    .await;
    expect(fleet.register(0, &key, "app"), 200).await;
    expect(fleet.send(1, &key, DEVICE), 200).await;
    fleet.nats.kill_all();
    for node in [0, 1] {
        expect(fleet.send(node, &key, DEVICE), 200).await;
    }
    let refused = fleet.register(0, &key, "other").send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        (refused.status().as_u16(), refused.json::<Value>().await.unwrap()["error"].as_str()),
        (503, Some("registry_unreachable"))
    );
    // A key's promise cannot be kept now, so nothing is sent.
    let before = fleet.pushes();
    let keyed = fleet.send(0, &key, DEVICE).header("idempotency-key", "one");
    expect_error(keyed, 503, "registry_unreachable").await;
    assert_eq!(fleet.pushes(), before);
    let ready = expect(fleet.nodes[0].get("/readyz"), 200).await;
    assert_eq!(ready["registry_writable"], false);

    fleet.restart(1).await;
    expect(fleet.send(1, &key, DEVICE), 200).await;

    fleet.nats.start_node(0);
    wait_until("it can be changed again", async || status(fleet.register(1, &key, "other")).await == 200)
        .await;
    wait_until("all know that", async || {
        let path = "/v1/applications/other";
        status(fleet.nodes[0].get(path).bearer_auth(&key)).await == 200
    })
    .await;
    wait_until("keys are taken again", async || {
        status(fleet.send(0, &key, DEVICE).header("idempotency-key", "two")).await == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_one_node_was_given_runs_on_all() {
    let receiver = Receiver::start().await;
    let settings = format!("listen = \"127.0.0.1:0\"\n{}", receiver.settings("acme", "webhook"));
    let fleet = Fleet::with(|_| settings).await;
    let key = fleet.tenant("acme").await;
    expect(upload(&fleet.nodes[0], "webhook", component("webhook")).bearer_auth(&key), 200).await;
    wait_until("another node has it", async || {
        status(fleet.nodes[1].get("/v1/providers/webhook").bearer_auth(&key)).await == 200
    })
    .await;
    let body = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
    wait_until("it is ready there", async || {
        status(fleet.nodes[1].put("/v1/applications/app").bearer_auth(&key).json(&body)).await == 200
    })
    .await;
    for node in 0..3 {
        let body = json!({"application_id": "app", "notification": {"body": "hello"}, "target": "device"});
        wait_until("it sends", async || {
            status(fleet.nodes[node].post("/v1/notifications").bearer_auth(&key).json(&body)).await == 200
        })
        .await;
    }
    assert_eq!(status(fleet.nodes[2].delete("/v1/providers/webhook").bearer_auth(&key)).await, 204);
    wait_until("it is gone", async || {
        status(fleet.nodes[0].get("/v1/providers/webhook").bearer_auth(&key)).await == 404
    })
    .await;
}
