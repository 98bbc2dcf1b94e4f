//! Deliveries whose nodes end, or are of another version.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pushlet_credential::SealingKey;
use pushlet_gateway::utc;
use pushlet_model::tenant::TenantId;
use pushlet_registry::{FleetSettings, MemoryStorage, NatsLogin, NatsSettings, NatsStorage, Registry};
use pushlet_simulator::{Options, Received, Script, Service, Simulator};
use pushlet_test_support::Nats;
use serde_json::{Value, json};

use super::{accepted, body, by_status, completed, counts, later, results, token, tokens};
use crate::fleet::Fleet;
use crate::harness::{Directory, expect, expect_error, http_client, pointing_at, wait_for, wait_until};
use crate::program::Program;

/// Programs that share a registry, one after the other.
struct Processes {
    simulator: Simulator,
    nats: Nats,
    directory: Directory,
    client: reqwest::Client,
    more: &'static str,
}

impl Processes {
    async fn new(more: &'static str) -> Self {
        let directory = Directory::new();
        let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
        let (nats, client) = (Nats::single(""), http_client());
        Self { simulator, nats, directory, client, more }
    }

    async fn serve(&self, name: &str) -> Program {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("artefacts");
        let settings = format!(
            "delivery.retries = 0\n{}\ndata_dir = {:?}\nproviders.cache_dir = {cache:?}\n\
             registry = {{ url = {:?}, key = {:?}, replicas = 1 }}\n",
            self.more,
            self.directory.path().join(name),
            self.nats.url(),
            "5e".repeat(32)
        );
        Program::serve_exactly(&pointing_at(&self.simulator, &settings)).await
    }

    fn received(&self) -> Vec<Received> {
        let all = self.simulator.received();
        all.into_iter().filter(|received| received.service == Service::Apns).collect()
    }

    async fn register(&self, node: &Program) {
        let account = self.simulator.credentials();
        let app = json!({
            "provider": "apns",
            "credentials": {"apns_p8": std::fs::read_to_string(&account.apns_p8).unwrap()},
            "settings": {"apns_key_id": account.apns_key_id, "apns_team_id": account.apns_team_id, "apns_topic": account.apns_topic},
        });
        expect(self.client.put(node.url("/v1/applications/app")).json(&app), 200).await;
    }

    /// Kills a node in the midst of a delivery, and has another end it; answers the results of 2,000 targets.
    async fn with_a_kill(&self) -> Vec<Value> {
        let first = self.serve("first").await;
        self.register(&first).await;
        let slow = Script { delay_ms: 400, ..Script::new(Service::Apns) };
        self.simulator.script(slow).unwrap();
        let path =
            accepted(self.client.post(first.url("/v1/notifications")).json(&body(&tokens(2000)))).await;
        wait_until("it is in the midst", async || self.received().len() > 300).await;
        let shown = expect(self.client.get(first.url(&path)), 200).await;
        // SIGKILL.
        drop(first);
        assert!(shown["state"] != "complete", "{shown}");
        let second = self.serve("second").await;
        completed(|| self.client.get(second.url(&path))).await;
        results(self.client.get(second.url(&format!("{path}/results")))).await.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_ends_what_a_killed_one_began_and_says_what_is_not_known() {
    let processes = Processes::new("").await;
    let all = processes.with_a_kill().await;
    let statuses = by_status(&all, 2000);
    let (delivered, unknown) = (statuses["delivered"], statuses["unknown"]);
    assert_eq!(delivered + unknown, 2000, "{statuses:?}");
    assert!((1..=1000).contains(&unknown), "as much as the node had in hand: {unknown}");
    let received = processes.received();
    let tokens: BTreeSet<_> = received.iter().map(|received| received.path.clone()).collect();
    assert_eq!(tokens.len(), received.len(), "nothing is sent twice");
    for result in all.iter().filter(|result| result["status"] == "delivered") {
        let index = result["index"].as_u64().unwrap() as usize;
        assert!(tokens.contains(&format!("/3/device/{}", token(index))), "{index} was not sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_recognises_is_sent_again_as_the_same_where_the_operator_allows_it() {
    let processes = Processes::new("delivery.resend_unknown = true").await;
    let all = processes.with_a_kill().await;
    assert_eq!(by_status(&all, 2000), counts([("delivered", 2000)]));
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let received = processes.received();
    for one in &received {
        let id = one.headers.iter().find(|(name, _)| name == "apns-id").unwrap().1.clone();
        ids.entry(one.path.clone()).or_default().insert(id);
    }
    assert_eq!(ids.len(), 2000);
    assert!(received.len() > 2000, "some came twice");
    assert!(ids.values().all(|ids| ids.len() == 1), "a repeat has the id of the first");
    let distinct: BTreeSet<_> = ids.values().flatten().collect();
    assert_eq!(distinct.len(), 2000);
}

/// The registry of a fleet, as another program sees it.
fn registry_of(nats: &Nats) -> Arc<Registry> {
    let settings =
        NatsSettings { servers: vec![nats.url()], replicas: 1, login: NatsLogin::None, roots: Vec::new() };
    let storage = NatsStorage::open(&settings, Box::new(MemoryStorage::default())).unwrap();
    let fleet = FleetSettings {
        name: "newer".to_owned(),
        version: "9.0.0",
        answers: Duration::from_secs(60),
        feedback: 10,
        deliveries: Duration::from_secs(3600),
        parts: 2000,
    };
    let key = SealingKey::from_hex(&"5e".repeat(32)).unwrap();
    Arc::new(Registry::join(storage, key, 10, fleet).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_of_a_newer_program_is_left_to_it() {
    let fleet = Fleet::new().await;
    let key = fleet.sender().await;
    let newer = tokio::task::block_in_place(|| registry_of(&fleet.nats));
    let (queue, tenant, id) = (newer.queue().unwrap(), TenantId::new("acme"), "a".repeat(32));
    let record = br#"{"v":2,"state":"paused","colour":"red"}"#;
    queue.put_parts(&tenant, &id, vec![br#"{"v":2}"#.to_vec().into()]).await.unwrap();
    queue.put(&tenant, (&id, None), 0, record).await.unwrap();
    let path = format!("/v1/deliveries/{id}");
    for node in 0..3 {
        expect_error(fleet.show(node, &key, &path), 503, "delivery_newer").await;
    }
    expect_error(fleet.nodes[0].delete(&path).bearer_auth(&key), 503, "delivery_newer").await;
    // The nodes look at the part, and put it back.
    let own = accepted(fleet.post(0, &key, &tokens(2))).await;
    completed(|| fleet.show(0, &key, &own)).await;
    let stored = queue.get(&tenant, (&id, None)).await.unwrap().unwrap();
    assert_eq!(*stored.text, record);
    assert!(queue.get(&tenant, (&id, Some(0))).await.unwrap().is_none());
    assert_eq!(queue.waiting().await.unwrap(), [(tenant.clone(), 1)]);
    let source = queue.source(&tenant).await.unwrap();
    let part = wait_for("the part comes to the newer program", async || source.take().await.unwrap()).await;
    assert_eq!((part.delivery.as_str(), part.number), (id.as_str(), 0));
    assert!(part.stored <= SystemTime::now());
    part.done().await;
    assert!(queue.waiting().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_starts_later_is_sent_then_or_cancelled_before() {
    let mut fleet = Fleet::new().await;
    let key = fleet.sender().await;
    let send = |fleet: &Fleet, count: usize, start: &str| {
        let mut body = body(&tokens(count));
        body["not_before"] = json!(start);
        fleet.nodes[0].post("/v1/notifications").bearer_auth(&key).json(&body)
    };
    let ahead = |seconds| SystemTime::now() + Duration::from_secs(seconds);
    let text = |time| utc(time).to_string();
    expect_error(send(&fleet, 1, &text(ahead(9))), 400, "invalid_not_before").await;
    for wrong in [text(ahead(3 * 24 * 3600)), "tomorrow".to_owned(), "2026-11-28".to_owned()] {
        expect_error(later(send(&fleet, 1, &wrong)), 400, "invalid_not_before").await;
    }
    let past = accepted(send(&fleet, 2, "2020-01-01T00:00:00Z")).await;
    completed(|| fleet.show(1, &key, &past)).await;
    assert_eq!(fleet.pushes(), 2);

    // What is written has no parts of a second.
    let start = ahead(5);
    let soon = accepted(send(&fleet, 300, &text(start))).await;
    let cancelled = accepted(send(&fleet, 400, &text(ahead(3600)))).await;
    let shown = expect(fleet.show(2, &key, &soon), 200).await;
    assert_eq!((&shown["not_before"], &shown["state"]), (&json!(text(start)), &json!("queued")));
    fleet.restart(0).await;
    wait_until("it begins", async || fleet.pushes() > 2).await;
    assert!(text(SystemTime::now()) >= text(start), "not before its time");
    completed(|| fleet.show(0, &key, &soon)).await;
    let (all, _) = results(fleet.show(1, &key, &format!("{soon}/results"))).await;
    assert_eq!(by_status(&all, 300), counts([("delivered", 300)]));

    for _ in 0..2 {
        expect(fleet.nodes[1].delete(&cancelled).bearer_auth(&key), 200).await;
    }
    let shown = completed(|| fleet.show(2, &key, &cancelled)).await;
    assert_eq!((&shown["state"], &shown["summary"]["unavailable"]), (&json!("cancelled"), &json!(400)));
    assert_eq!(fleet.pushes(), 302);
    let id = cancelled.rsplit('/').next().unwrap();
    let log = wait_for("the log says who cancelled it", async || {
        let log = expect(fleet.show(2, &key, "/v1/audit"), 200).await;
        let all = log["audit"].as_array().unwrap().clone();
        let own: Vec<_> = all.into_iter().filter(|entry| entry["action"] == "delivery.cancel").collect();
        (!own.is_empty()).then_some(own)
    })
    .await;
    assert_eq!((log.len(), &log[0]["subject"], &log[0]["actor"]), (1, &json!(id), &json!("key")));
    assert!(log[0]["key"].is_string() && log[0]["changes"]["cancelled"]["to"] == true, "{log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_the_queue_that_was_changed_holds_from_the_next_start_on() {
    let mut processes = Processes::new("limits.async_parts = 1").await;
    let send = |processes: &Processes, node: &Program| {
        later(processes.client.post(node.url("/v1/notifications")).json(&body(&tokens(500))))
    };
    let first = processes.serve("first").await;
    processes.register(&first).await;
    expect_error(send(&processes, &first), 503, "delivery_queue_full").await;
    drop(first);
    processes.more = "limits.async_parts = 2";
    let second = processes.serve("second").await;
    let path = wait_for("there is room for two parts", async || {
        let answer: Value = send(&processes, &second).send().await.unwrap().json().await.unwrap();
        answer["href"].as_str().map(str::to_owned)
    })
    .await;
    completed(|| processes.client.get(second.url(&path))).await;
    drop(second);
    processes.more = "limits.async_parts = 1";
    let third = processes.serve("third").await;
    expect_error(send(&processes, &third), 503, "delivery_queue_full").await;
}
