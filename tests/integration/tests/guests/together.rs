//! All villains at once, each with a tenant of its own, at a running server; beside them two neighbours who go on
//! as before: one with a built-in provider, one with a component of its own.
//!
//! `PUSHLET_ROUNDS=5 cargo test --release --workspace --test integration -- --nocapture guests::together` measures their
//! pace: in each round alone, then beside the villains. It fails where the median of the ratios is below 0.9.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use super::stage::component;
use super::villains::{Villain, villains};
use crate::tenants::{make, register, with_operator};
use crate::upload::{PROGRAM, Receiver, upload};
use crate::world::{World, expect, pointing_at};

/// How many requests each neighbour has under way: with these the processors have no rest.
const REQUESTS: [(&str, usize); 2] = [("built-in", 4), ("own", 1)];
/// The least of its pace that a neighbour keeps.
const LEAST: f64 = 0.9;

/// Codes by villain, and how often each was given.
type Told = Arc<Mutex<BTreeMap<String, BTreeMap<String, usize>>>>;

/// More than there are, so that each has somewhere to send.
const VILLAINS: usize = 100;

struct Scene {
    world: World,
    receiver: Receiver,
    /// By neighbour.
    keys: BTreeMap<&'static str, String>,
    told: Told,
    /// Held by each villain while it acts, so that one who has it alone knows that they rest.
    stage: Arc<RwLock<()>>,
}

impl Scene {
    async fn new() -> Self {
        let receiver = Receiver::start().await;
        let world = World::configured(|simulator| {
            let here = format!("https://{}", receiver.address);
            let to_here = |name: &str| {
                format!("endpoints.\"{name}\" = {{ production = {here:?}, development = {here:?} }}\n")
            };
            let guests = (0..VILLAINS).map(|number| to_here(&format!("villain-{number}/guest")));
            let endpoints: String = guests.chain([to_here("own/webhook")]).collect();
            let more = with_operator(&format!("providers.compiler = {PROGRAM:?}\n{endpoints}"));
            pointing_at(simulator, &more)
                .replace("extra_roots = [", &format!("extra_roots = [{:?}, ", receiver.ca()))
        })
        .await;
        let mut keys = BTreeMap::new();
        for (name, _) in REQUESTS {
            keys.insert(name, make(&world.server, name, &json!({})).await);
        }
        expect(register(&world, &keys["built-in"], "app"), 200).await;
        expect(upload(&world.server, "webhook", component("webhook")).bearer_auth(&keys["own"]), 200).await;
        let body = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
        let application = world.server.put("/v1/applications/app").bearer_auth(&keys["own"]).json(&body);
        expect(application, 200).await;
        Self { world, receiver, keys, told: Told::default(), stage: Arc::default() }
    }

    /// What each neighbour sends in this time, all of it delivered.
    async fn pace(self: &Arc<Self>, time: Duration) -> [usize; 2] {
        let mut senders = JoinSet::new();
        let until = Instant::now() + time;
        for (place, (name, requests)) in REQUESTS.into_iter().enumerate() {
            for _ in 0..requests {
                let scene = self.clone();
                senders.spawn(async move { (place, scene.send_until(name, until).await) });
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

    async fn send_until(&self, neighbour: &str, until: Instant) -> usize {
        let targets: Vec<String> = (0..20).map(|number| format!("token-{number}")).collect();
        let body = json!({"application_id": "app", "notification": {"body": "hello"}, "targets": targets});
        let mut sent = 0;
        while Instant::now() < until {
            let request = self.world.server.post("/v1/notifications").bearer_auth(&self.keys[neighbour]);
            let answer = expect(request.json(&body), 200).await;
            let results = answer["results"].as_array().unwrap();
            assert!(results.iter().all(|result| result["status"] == "delivered"), "{neighbour}: {answer}");
            sent += results.len();
        }
        sent
    }

    /// A tenant that goes on with what it does. One who is told to wait does so, and no longer.
    async fn villain(self: Arc<Self>, number: usize, villain: Villain, over: Arc<AtomicBool>) {
        let limits = json!({"limits": {"requests_per_second": 5}});
        let key = make(&self.world.server, &format!("villain-{number}"), &limits).await;
        villain.settle(&self.world.server, &key).await;
        while !over.load(Ordering::Relaxed) {
            let acting = self.stage.read().await;
            let (code, wait) = villain.act(&self.world.server, &key).await;
            drop(acting);
            *self.told.lock().unwrap().entry(villain.name.clone()).or_default().entry(code).or_default() += 1;
            tokio::time::sleep(wait.unwrap_or(Duration::from_millis(5)).min(Duration::from_secs(2))).await;
        }
    }

    /// Whether every villain got its own code by now.
    fn all_had_theirs(&self, wanted: &[(String, &str)]) -> bool {
        let told = self.told.lock().unwrap();
        wanted.iter().all(|(name, code)| told.get(name).is_some_and(|codes| codes.contains_key(*code)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_neighbours_go_on_beside_all_of_them() {
    let measured: Option<usize> = std::env::var("PUSHLET_ROUNDS").ok().map(|rounds| rounds.parse().unwrap());
    let time = Duration::from_secs(if measured.is_some() { 4 } else { 1 });
    let scene = Arc::new(Scene::new().await);
    let (over, mut acting) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    let resting = scene.stage.clone().write_owned().await;
    let wanted: Vec<_> = villains().iter().map(|villain| (villain.name.clone(), villain.code)).collect();
    for (number, villain) in villains().into_iter().enumerate() {
        acting.spawn(scene.clone().villain(number, villain, over.clone()));
    }
    drop(resting);
    while !scene.all_had_theirs(&wanted) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(acting.try_join_next().is_none(), "a villain was told something else");
    }
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 1..=measured.unwrap_or(1) {
        let alone = {
            let _resting = scene.stage.write().await;
            scene.pace(time).await
        };
        let beside = scene.pace(time).await;
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
    for (codes, name) in scene.told.lock().unwrap().iter().map(|(name, codes)| (codes, name)) {
        println!("{name:?}: {codes:?}");
    }
    for (ratios, (name, _)) in ratios.iter_mut().zip(REQUESTS) {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!("{name}: median ratio {median:.3} beside {} villains", wanted.len());
        assert!(measured.is_none() || median >= LEAST, "{name}: {median:.3}");
    }
}
