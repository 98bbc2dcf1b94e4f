//! What the servers of a fleet agree on while they send: exact limits, what waits in the queue, and which components are
//! not called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::fleet::{Fleet, status};
use crate::guests::fixture::component;
use crate::harness::{expect, wait_until};
use crate::tenants::{admin, change};
use crate::upload::{Receiver, digest_of, upload};

/// The limit of the tenants, in pushes per second.
const LIMIT: usize = 100;
/// How long the pushes are counted, after those that may pass at once have passed.
const COUNTED: Duration = Duration::from_secs(10);
/// Requests that every node has refused by then.
const SETTLED: usize = 30;
/// Targets of a request, and how often it is sent: far more than may pass.
const BATCH: usize = 5;
const CALLERS: usize = 3;
const PAUSE: Duration = Duration::from_millis(10);

/// Sends that go on until this is ended.
struct Load {
    passed: Arc<AtomicUsize>,
    /// Requests, by node.
    refused: Vec<Arc<AtomicUsize>>,
    ended: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Sends far more than the limit to each of these nodes.
    fn start(fleet: &Fleet, key: &str, nodes: &[usize]) -> Self {
        let (passed, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let refused: Vec<Arc<AtomicUsize>> = nodes.iter().map(|_| Arc::default()).collect();
        let targets: Vec<_> = (0..BATCH).map(|target| format!("{target:064x}")).collect();
        let body = json!({"application_id": "app", "notification": {"body": "x"}, "targets": targets});
        let callers =
            nodes.iter().zip(&refused).cycle().take(nodes.len() * CALLERS).map(|(node, refused)| {
                let (passed, refused, ended) = (passed.clone(), refused.clone(), ended.clone());
                let request = fleet.nodes[*node].post("/v1/notifications").bearer_auth(key).json(&body);
                tokio::spawn(async move {
                    while !ended.load(Ordering::Relaxed) {
                        match status(request.try_clone().unwrap()).await {
                            200 => passed.fetch_add(BATCH, Ordering::Relaxed),
                            _ => refused.fetch_add(1, Ordering::Relaxed),
                        };
                        tokio::time::sleep(PAUSE).await;
                    }
                })
            });
        let callers = callers.collect();
        Self { passed, refused, ended, callers }
    }

    /// Returns once what may pass at once has passed: every node refuses.
    async fn settle(&self) {
        for refused in &self.refused {
            let before = refused.load(Ordering::Relaxed);
            let is_enough = async || refused.load(Ordering::Relaxed) >= before + SETTLED;
            wait_until("it refuses", is_enough).await;
        }
    }

    async fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
    }
}

/// Returns how many pushes of each load pass, in per cent of the limit.
async fn per_cent<const N: usize>(loads: [&Load; N]) -> [usize; N] {
    for load in loads {
        load.settle().await;
    }
    let count = || loads.map(|load| load.passed.load(Ordering::Relaxed));
    let (before, start) = (count(), Instant::now());
    tokio::time::sleep(COUNTED).await;
    let (after, took) = (count(), start.elapsed());
    let share = |number: usize| {
        let passed = (after[number] - before[number]) as f64;
        (100.0 * passed / (LIMIT as f64 * took.as_secs_f64())).round() as usize
    };
    std::array::from_fn(share)
}

impl Fleet {
    /// A tenant with an application and these limits, known to all nodes; answers its key.
    async fn limited(&self, id: &str, limits: Value) -> String {
        let key = self.tenant(id).await;
        expect(self.register(0, &key, "app"), 200).await;
        change(&self.nodes[0], id, &json!({ "limits": limits })).await;
        for node in &self.nodes {
            let is_known = async || {
                let shown = expect(node.get(&format!("/v1/tenants/{id}")).bearer_auth(&key), 200).await;
                shown["limits"] == limits
                    && status(node.get("/v1/applications/app").bearer_auth(&key)).await == 200
            };
            wait_until("the limits are known", is_known).await;
        }
        key
    }

    async fn without_leases(&self, node: usize) -> f64 {
        let metrics = admin(self.nodes[node].get("/metrics")).send().await.unwrap().text().await.unwrap();
        let line = metrics.lines().find(|line| line.starts_with("pushlet_fleet_rates_without_leases "));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn hello(&self, node: usize, key: &str) -> RequestBuilder {
        let body = json!({"application_id": "app", "notification": {"body": "x"}, "target": "00ff"});
        self.nodes[node].post("/v1/notifications").bearer_auth(key).json(&body)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exact_limit_holds_wherever_the_requests_go_and_without_nats_a_share_of_it() {
    let mut fleet = Fleet::new().await;
    let exact = fleet.limited("exact", json!({"pushes_per_second": LIMIT, "exact_rates": true})).await;
    let shared = fleet.limited("shared", json!({"pushes_per_second": LIMIT})).await;
    let (one, other) = (Load::start(&fleet, &exact, &[0]), Load::start(&fleet, &shared, &[0]));
    let [all, part] = per_cent([&one, &other]).await;
    assert!((95..=105).contains(&all), "{all} % through one node");
    assert!((28..=38).contains(&part), "{part} %: one of three nodes grants a third");
    one.end().await;
    other.end().await;

    let everywhere = Load::start(&fleet, &exact, &[0, 1, 2]);
    let [all] = per_cent([&everywhere]).await;
    assert!((95..=105).contains(&all), "{all} % through three nodes");

    assert_eq!(fleet.without_leases(0).await, 0.0);
    fleet.nats.kill_all();
    wait_until("it says that it cannot lease", async || fleet.without_leases(0).await == 1.0).await;
    let [share] = per_cent([&everywhere]).await;
    assert!((90..=110).contains(&share), "{share} %: three shares");
    fleet.nats.start_node(0);
    wait_until("it leases again", async || {
        fleet.without_leases(0).await + fleet.without_leases(1).await + fleet.without_leases(2).await == 0.0
    })
    .await;
    everywhere.end().await;
    wait_until("the tenant sends", async || status(fleet.hello(0, &exact)).await == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_fails_on_one_node_is_called_on_none() {
    let receiver = Receiver::start().await;
    let settings = format!(
        "listen = \"127.0.0.1:0\"\nsandbox.call_timeout = \"1s\"\n{}",
        receiver.settings("acme", "webhook")
    );
    let mut fleet = Fleet::with(|_| settings).await;
    let key = fleet.tenant("acme").await;
    expect(upload(&fleet.nodes[0], "webhook", component("webhook_next")).bearer_auth(&key), 200).await;
    let body = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
    expect(fleet.nodes[0].put("/v1/applications/app").bearer_auth(&key).json(&body), 200).await;
    let delivers = async |fleet: &Fleet, node: usize| {
        let answer = fleet.hello(node, &key).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["results"][0]["status"] == "delivered"
    };
    for node in 0..3 {
        wait_until("it sends", async || delivers(&fleet, node).await).await;
    }
    let state = async |fleet: &Fleet, node: usize| {
        let shown = expect(fleet.nodes[node].get("/v1/providers/webhook").bearer_auth(&key), 200).await;
        (shown["state"].as_str().unwrap().to_owned(), shown["quarantined_for"].as_f64())
    };
    let trap = json!({"application_id": "app", "notification": {"body": "x", "trap": true}, "target": "a"});
    for _ in 0..5 {
        expect(fleet.nodes[0].post("/v1/notifications").bearer_auth(&key).json(&trap), 200).await;
    }
    for node in 0..3 {
        wait_until("it is quarantined", async || state(&fleet, node).await.0 == "quarantined").await;
        let (_, left) = state(&fleet, node).await;
        assert!(left.is_some_and(|left| (1.0..=30.0).contains(&left)), "{left:?}");
        let answer = expect(fleet.hello(node, &key), 200).await;
        assert_eq!(answer["results"][0]["code"], "provider_quarantined");
    }
    fleet.restart(1).await;
    wait_until("a node that starts knows it", async || state(&fleet, 1).await.0 == "quarantined").await;

    let digest = json!({"digest": digest_of("webhook_next")});
    let activate = fleet.nodes[2].post("/v1/providers/webhook/activate").bearer_auth(&key).json(&digest);
    expect(activate, 200).await;
    for node in 0..3 {
        wait_until("it is lifted", async || state(&fleet, node).await.0 == "active").await;
        wait_until("it sends again", async || delivers(&fleet, node).await).await;
    }
}
