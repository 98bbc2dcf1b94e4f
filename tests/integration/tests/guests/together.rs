//! All hostile guests at once against one running server, each with a tenant of its own, while two victim tenants
//! send: one with a built-in provider, one with a component of its own.
//!
//! `PUSHLET_ROUNDS=5 cargo test --release --workspace --test integration -- --nocapture guests::together` measures
//! the victims' rates: in each round alone, then during the attack. It fails if the median ratio is below 0.9.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use super::fixture::component;
use super::hostile_guests::{HostileTenant, hostile_tenants};
use crate::harness::{Harness, expect, pointing_at, wait_until};
use crate::tenants::{make, register, with_operator};
use crate::upload::{PROGRAM, Receiver, upload};

/// Requests that each victim has in flight: enough to keep the processors busy.
const REQUESTS: [(&str, usize); 2] = [("built-in", 4), ("own", 1)];
/// The least share of its rate that a victim must keep.
const LEAST_RATIO: f64 = 0.9;

/// How often each tenant received each code.
type CodeCounts = Arc<Mutex<BTreeMap<String, BTreeMap<String, usize>>>>;

/// At least as many as there are: the endpoints are configured before the tenants are known.
const HOSTILE_TENANTS: usize = 100;

struct AttackFixture {
    harness: Harness,
    receiver: Receiver,
    /// API keys by victim.
    keys: BTreeMap<&'static str, String>,
    codes: CodeCounts,
    /// Each hostile tenant holds it for reading while it acts; the write lock stops all of them.
    attacking: Arc<RwLock<()>>,
}

impl AttackFixture {
    async fn new() -> Self {
        let receiver = Receiver::start().await;
        let harness = Harness::configured(|simulator| {
            let here = format!("https://{}", receiver.address);
            let to_here = |name: &str| {
                format!("endpoints.\"{name}\" = {{ production = {here:?}, development = {here:?} }}\n")
            };
            let guests = (0..HOSTILE_TENANTS).map(|number| to_here(&format!("hostile-{number}/guest")));
            let endpoints: String = guests.chain([to_here("own/webhook")]).collect();
            let more = with_operator(&format!("providers.compiler = {PROGRAM:?}\n{endpoints}"));
            pointing_at(simulator, &more)
                .replace("extra_roots = [", &format!("extra_roots = [{:?}, ", receiver.ca()))
        })
        .await;
        let mut keys = BTreeMap::new();
        for (name, _) in REQUESTS {
            keys.insert(name, make(&harness.server, name, &json!({})).await);
        }
        expect(register(&harness, &keys["built-in"], "app"), 200).await;
        expect(upload(&harness.server, "webhook", component("webhook")).bearer_auth(&keys["own"]), 200).await;
        let body = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
        let application = harness.server.put("/v1/applications/app").bearer_auth(&keys["own"]).json(&body);
        expect(application, 200).await;
        Self { harness, receiver, keys, codes: CodeCounts::default(), attacking: Arc::default() }
    }

    /// Returns how many pushes each victim sends in this time. All of them must be delivered.
    async fn rates(self: &Arc<Self>, time: Duration) -> [usize; 2] {
        let mut senders = JoinSet::new();
        let until = Instant::now() + time;
        for (place, (name, requests)) in REQUESTS.into_iter().enumerate() {
            for _ in 0..requests {
                let fixture = self.clone();
                senders.spawn(async move { (place, fixture.send_until(name, until).await) });
            }
        }
        let mut sent = [0; 2];
        while let Some(result) = senders.join_next().await {
            let (place, count) = result.unwrap();
            sent[place] += count;
        }
        self.receiver.posts.lock().unwrap().clear();
        sent
    }

    async fn send_until(&self, victim: &str, until: Instant) -> usize {
        let targets: Vec<String> = (0..20).map(|number| format!("token-{number}")).collect();
        let body = json!({"application_id": "app", "notification": {"body": "hello"}, "targets": targets});
        let mut sent = 0;
        while Instant::now() < until {
            let request = self.harness.server.post("/v1/notifications").bearer_auth(&self.keys[victim]);
            let answer = expect(request.json(&body), 200).await;
            let results = answer["results"].as_array().unwrap();
            assert!(results.iter().all(|result| result["status"] == "delivered"), "{victim}: {answer}");
            sent += results.len();
        }
        sent
    }

    /// Repeats what a hostile tenant does, and waits as long as `retry-after` says.
    async fn attack(self: Arc<Self>, number: usize, tenant: HostileTenant, over: Arc<AtomicBool>) {
        let limits = json!({"limits": {"requests_per_second": 5}});
        let key = make(&self.harness.server, &format!("hostile-{number}"), &limits).await;
        tenant.set_up(&self.harness.server, &key).await;
        while !over.load(Ordering::Relaxed) {
            let acting = self.attacking.read().await;
            let (code, wait) = tenant.act(&self.harness.server, &key).await;
            drop(acting);
            *self.codes.lock().unwrap().entry(tenant.name.clone()).or_default().entry(code).or_default() += 1;
            tokio::time::sleep(wait.unwrap_or(Duration::from_millis(5)).min(Duration::from_secs(2))).await;
        }
    }

    /// Returns the hostile tenants that have not received their expected code.
    fn not_received(&self, wanted: &[(String, &str)]) -> Vec<String> {
        let told = self.codes.lock().unwrap();
        let received =
            |name: &String, code: &str| told.get(name).is_some_and(|codes| codes.contains_key(code));
        wanted.iter().filter(|(name, code)| !received(name, code)).map(|(name, _)| name.clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_victims_keep_sending_during_all_attacks() {
    let measured: Option<usize> = std::env::var("PUSHLET_ROUNDS").ok().map(|rounds| rounds.parse().unwrap());
    let time = Duration::from_secs(if measured.is_some() { 4 } else { 1 });
    let fixture = Arc::new(AttackFixture::new().await);
    let (over, mut acting) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    let resting = fixture.attacking.clone().write_owned().await;
    let wanted: Vec<_> = hostile_tenants().iter().map(|tenant| (tenant.name.clone(), tenant.code)).collect();
    for (number, tenant) in hostile_tenants().into_iter().enumerate() {
        acting.spawn(fixture.clone().attack(number, tenant, over.clone()));
    }
    drop(resting);
    let mut seen = vec!["all".to_owned()];
    wait_until("each hostile tenant receives its code", async || {
        assert!(acting.try_join_next().is_none(), "a hostile tenant received an unexpected code");
        let missing = fixture.not_received(&wanted);
        if missing != seen {
            println!("without the expected code: {missing:?}");
            seen = missing;
        }
        seen.is_empty()
    })
    .await;
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 1..=measured.unwrap_or(1) {
        let alone = {
            let _resting = fixture.attacking.write().await;
            fixture.rates(time).await
        };
        let beside = fixture.rates(time).await;
        for (place, (name, _)) in REQUESTS.into_iter().enumerate() {
            let ratio = beside[place] as f64 / alone[place] as f64;
            println!(
                "round {round}, {name}: {} pushes alone, {} beside, ratio {ratio:.3}",
                alone[place], beside[place]
            );
            ratios[place].push(ratio);
        }
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = acting.join_next().await {
        ended.unwrap();
    }
    for (codes, name) in fixture.codes.lock().unwrap().iter().map(|(name, codes)| (codes, name)) {
        println!("{name:?}: {codes:?}");
    }
    for (ratios, (name, _)) in ratios.iter_mut().zip(REQUESTS) {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!("{name}: median ratio {median:.3} with {} hostile tenants", wanted.len());
        assert!(measured.is_none() || median >= LEAST_RATIO, "{name}: {median:.3}");
    }
}
