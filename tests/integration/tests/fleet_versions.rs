//! Records that a newer program wrote: a server of this version keeps what it knew, says so, and leaves them as they are.

use pushlet_credential::{KeyHasher, SealingKey};
use pushlet_registry::{
    MemoryStorage, NatsLogin, NatsSettings, NatsStorage, RecordKey, Storage as _, StorageChange, Table,
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::fleet::{Fleet, status};
use crate::guests::fixture::component;
use crate::harness::{DEVICE, expect, expect_error, wait_until};
use crate::tenants::{admin, make};
use crate::upload::{Receiver, digest_of, upload};

/// Bytes of a MAC.
const MAC: usize = 32;

/// A newer program of the fleet.
struct Newer {
    storage: NatsStorage,
    hasher: KeyHasher,
}

impl Newer {
    fn join(fleet: &Fleet) -> Self {
        let servers = vec![fleet.nats.url()];
        let settings = NatsSettings { servers, replicas: 1, login: NatsLogin::None, roots: Vec::new() };
        let storage = NatsStorage::open(&settings, Box::new(MemoryStorage::default())).unwrap();
        let key = SealingKey::from_hex(&"5e".repeat(32)).unwrap();
        let sealed = storage.get(Table::Meta, &RecordKey::new(&["key"])).unwrap().unwrap();
        let hasher = KeyHasher::new(key.open(&sealed, &[b"meta", b"key"]).unwrap()).unwrap();
        Self { storage, hasher }
    }

    /// Writes a record as it is. Returns it.
    fn put(&self, table: Table, key: &[&str], record: Vec<u8>) -> Vec<u8> {
        let change = StorageChange::Put(table, RecordKey::new(key), record.clone());
        tokio::task::block_in_place(|| self.storage.commit(&[change])).unwrap();
        record
    }

    /// Gives a record version 2, and a field. Returns it.
    fn put_next(&self, table: Table, key: &[&str]) -> Vec<u8> {
        let place = RecordKey::new(key);
        let stored = self.storage.get(table, &place).unwrap().unwrap();
        let mut record: Value = serde_json::from_slice(&stored[MAC..]).unwrap();
        assert_eq!(record["v"], 1, "each has its version");
        record["v"] = json!(2);
        record["colour"] = json!("red");
        let text = record.to_string();
        let mac = self.hasher.authenticate(&[table.name().as_bytes(), place.as_bytes(), text.as_bytes()]);
        self.put(table, key, [mac.as_slice(), text.as_bytes()].concat())
    }

    fn stored(&self, table: Table, key: &[&str]) -> Option<Vec<u8>> {
        self.storage.get(table, &RecordKey::new(key)).unwrap()
    }
}

async fn refused(request: RequestBuilder) {
    expect_error(request, 503, "registry_newer").await;
}

impl Fleet {
    fn hand_over(&self, node: usize, key: &str, id: &str) -> RequestBuilder {
        let body = json!({"application_id": id, "notification": {"body": "x"}, "target": DEVICE});
        self.nodes[node].post("/v1/notifications").bearer_auth(key).json(&body)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_and_tenants_of_a_newer_program_are_left_to_it() {
    let mut fleet = Fleet::new().await;
    let key = fleet.tenant("acme").await;
    for id in ["app", "other"] {
        expect(fleet.register(0, &key, id), 200).await;
        for node in 0..3 {
            wait_until("it sends", async || status(fleet.hand_over(node, &key, id)).await == 200).await;
        }
    }
    let newer = tokio::task::block_in_place(|| Newer::join(&fleet));
    let readable = br#"{"v":2,"shape":"round"}"#;
    let length = u32::try_from(readable.len()).unwrap().to_be_bytes();
    let place = ["acme", "app"];
    let record = newer.put(Table::Applications, &place, [&length, &readable[..], b"sealed"].concat());
    for node in 0..3 {
        wait_until("it is refused", async || status(fleet.hand_over(node, &key, "app")).await == 503).await;
    }
    let pushes = fleet.pushes();
    fleet.restart(1).await;
    for node in 0..3 {
        refused(fleet.hand_over(node, &key, "app")).await;
        refused(fleet.register(node, &key, "app")).await;
        let one = |method: fn(&crate::harness::Pushlet, &str) -> RequestBuilder| {
            method(&fleet.nodes[node], "/v1/applications/app").bearer_auth(&key)
        };
        refused(one(|node, path| node.get(path))).await;
        refused(one(|node, path| node.delete(path))).await;
        refused(admin(fleet.nodes[node].delete("/v1/tenants/acme"))).await;
        expect(fleet.hand_over(node, &key, "other"), 200).await;
    }
    assert_eq!(fleet.pushes(), pushes + 3, "only those of the other application");
    assert_eq!(newer.stored(Table::Applications, &place), Some(record));
    let gone = StorageChange::Delete(Table::Applications, RecordKey::new(&place));
    tokio::task::block_in_place(|| newer.storage.commit(&[gone])).unwrap();
    for node in 0..3 {
        wait_until("it is gone", async || status(fleet.hand_over(node, &key, "app")).await == 404).await;
    }
    expect(fleet.register(1, &key, "app"), 200).await;

    let record = newer.put_next(Table::Tenants, &["acme"]);
    for node in 0..3 {
        wait_until("it is refused", async || status(fleet.hand_over(node, &key, "other")).await == 503).await;
    }
    fleet.restart(1).await;
    for node in 0..3 {
        refused(fleet.hand_over(node, &key, "other")).await;
        refused(admin(fleet.nodes[node].put("/v1/tenants/acme").json(&json!({"suspended": true})))).await;
        refused(admin(fleet.nodes[node].post("/v1/tenants/acme/keys").json(&json!({})))).await;
        refused(admin(fleet.nodes[node].delete("/v1/tenants/acme"))).await;
    }
    assert_eq!(newer.stored(Table::Tenants, &["acme"]), Some(record));
    make(&fleet.nodes[2], "beta", &json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_of_a_newer_program_runs_where_it_did_and_is_left_to_it() {
    let receiver = Receiver::start().await;
    let settings = format!("listen = \"127.0.0.1:0\"\n{}", receiver.settings("acme", "webhook"));
    let mut fleet = Fleet::with(|_| settings).await;
    let key = fleet.tenant("acme").await;
    expect(upload(&fleet.nodes[0], "webhook", component("webhook")).bearer_auth(&key), 200).await;
    let body = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
    expect(fleet.nodes[0].put("/v1/applications/app").bearer_auth(&key).json(&body), 200).await;
    for node in 0..3 {
        wait_until("it sends", async || status(fleet.hand_over(node, &key, "app")).await == 200).await;
    }
    let newer = tokio::task::block_in_place(|| Newer::join(&fleet));
    let digest = digest_of("webhook");
    let place = ["acme", "webhook", &digest];
    let record = newer.put_next(Table::Versions, &place);
    // Changes are followed in their order: once a later one is known, this one is.
    expect(fleet.nodes[0].put("/v1/applications/next").bearer_auth(&key).json(&body), 200).await;
    for node in 0..3 {
        let path = "/v1/applications/next";
        let is_known = async || status(fleet.nodes[node].get(path).bearer_auth(&key)).await == 200;
        wait_until("the next change is known", is_known).await;
        expect(fleet.hand_over(node, &key, "app"), 200).await;
        let again = json!({ "digest": digest });
        let activate = fleet.nodes[node].post("/v1/providers/webhook/activate").bearer_auth(&key);
        refused(activate.json(&again)).await;
        refused(upload(&fleet.nodes[node], "webhook", component("webhook")).bearer_auth(&key)).await;
        refused(fleet.nodes[node].delete("/v1/providers/webhook").bearer_auth(&key)).await;
    }
    fleet.restart(1).await;
    refused(fleet.hand_over(1, &key, "app")).await;
    expect(fleet.hand_over(0, &key, "app"), 200).await;
    assert_eq!(newer.stored(Table::Versions, &place), Some(record));
}
