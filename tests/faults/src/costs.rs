//! What a fleet costs, measured in one run: processor time and latency of a push without NATS, with it and with all of it
//! stopped, memory of tenants, how soon all nodes know a registration; and how exactly a tenant's limit holds for three
//! nodes together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use reqwest::Client;
use serde_json::{Value, json};

use crate::fleet::{Alone, Fleet, Node, application};
use crate::peer::{Failure, Manner};
use crate::run::Plan;

const ADMIN: &str = "the-operators-own-key";
/// Requests in flight at once.
const AT_ONCE: usize = 16;
/// Phases of each kind, by turns.
const PHASES: usize = 10;
/// Tenants whose memory is measured, each with an application.
const TENANTS: usize = 1000;
const REGISTRATIONS: usize = 300;
/// The limit that is measured, in pushes per second.
const LIMIT: u64 = 100;
/// Until what may pass at once has passed, and how long is measured.
const SETTLE: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

/// A higher p99 without NATS than with it is more than noise.
const NOISE: f64 = 1.25;

/// What a fleet costs.
pub struct Costs {
    /// The phases of a server that is alone, and of one of a fleet, by turns.
    alone: Vec<Phase>,
    shared: Vec<Phase>,
    /// The same, after all NATS servers were stopped.
    still_alone: Vec<Phase>,
    stopped: Vec<Phase>,
    /// Bytes that a node takes for all tenants, by node.
    memory: Vec<i64>,
    /// Until all nodes show a registration.
    seen: Vec<Duration>,
}

/// What a push of one phase took.
#[derive(Clone, Copy)]
struct Phase {
    /// Microseconds of the server's processor time.
    processor: f64,
    /// Microseconds until the response.
    median: f64,
    p99: f64,
}

/// Measures the costs. `plan.pushes`: of each phase.
pub async fn run(plan: Plan) -> Result<Costs, Failure> {
    let mut fleet = Fleet::start(plan, Manner::Calm, &format!("admin.key = {ADMIN:?}")).await?;
    let client = Client::builder().no_proxy().build()?;
    let tenant = Tenant::new(&client, &fleet.nodes[0], "measured", &json!({})).await?;
    tenant.register(&client, &fleet.nodes[0], "app").await?;
    let alone = Alone::start(&fleet, plan, &format!("admin.key = {ADMIN:?}")).await?;
    let same = Tenant::new(&client, alone.node(), "measured", &json!({})).await?;
    same.register(&client, alone.node(), "app").await?;
    let by_turns =
        async |node: &Node| phases(&client, (alone.node(), &same), (node, &tenant), plan.pushes).await;
    let (without, with) = by_turns(&fleet.nodes[0]).await?;
    let seen = registrations(&client, &fleet.nodes, &tenant).await?;
    let memory = memory(&client, &fleet.nodes).await?;
    fleet.nats.kill_all();
    let (still_alone, stopped) = by_turns(&fleet.nodes[0]).await?;
    Ok(Costs { alone: without, shared: with, still_alone, stopped, memory, seen })
}

/// Measures two servers by turns.
async fn phases(
    client: &Client,
    one: (&Node, &Tenant),
    other: (&Node, &Tenant),
    pushes: usize,
) -> Result<(Vec<Phase>, Vec<Phase>), Failure> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for number in 0..=PHASES {
        let phases = (phase(client, one, pushes).await?, phase(client, other, pushes).await?);
        // The first phase opens connections and fills caches.
        if number > 0 {
            first.push(phases.0);
            second.push(phases.1);
        }
    }
    Ok((first, second))
}

/// How many pushes pass in ten seconds where a tenant may send a hundred a second, and sends more to all nodes.
pub async fn limit(plan: Plan) -> Result<u64, Failure> {
    let fleet = Fleet::start(plan, Manner::Calm, &format!("admin.key = {ADMIN:?}")).await?;
    let client = Client::builder().no_proxy().build()?;
    let limits = json!({"limits": {"pushes_per_second": LIMIT}});
    let tenant = Arc::new(Tenant::new(&client, &fleet.nodes[0], "limited", &limits).await?);
    tenant.register(&client, &fleet.nodes[0], "app").await?;
    let ended = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for number in 0..AT_ONCE {
        let (client, tenant, ended) = (client.clone(), tenant.clone(), ended.clone());
        let urls: Vec<_> = fleet.nodes.iter().map(|node| node.url("/v1/notifications")).collect();
        callers.push(tokio::spawn(async move {
            for url in urls.iter().cycle().skip(number) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let _ = tenant.send(&client, url, &["00".repeat(32)]).send().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    tokio::time::sleep(SETTLE).await;
    let (before, start) = (fleet.peer.ledger.total(), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let passed = fleet.peer.ledger.total() - before;
    let took = start.elapsed();
    ended.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await?;
    }
    Ok((passed as f64 * MEASURED.as_secs_f64() / took.as_secs_f64()).round() as u64)
}

/// Whether so many pushes are as many as the limit says, within five per cent.
pub fn is_exact(passed: u64) -> bool {
    let most = LIMIT * MEASURED.as_secs();
    (most * 95 / 100..=most * 105 / 100).contains(&passed)
}

/// A tenant and its key.
struct Tenant {
    key: String,
}

impl Tenant {
    async fn new(client: &Client, node: &Node, id: &str, body: &Value) -> Result<Self, Failure> {
        let request = client.put(node.url(&format!("/v1/tenants/{id}"))).bearer_auth(ADMIN).json(body);
        let made: Value = request.send().await?.error_for_status()?.json().await?;
        let key = made["api_key"].as_str().ok_or("a tenant has no key")?.to_owned();
        Ok(Self { key })
    }

    /// Registers an application, once the node knows the tenant.
    async fn register(&self, client: &Client, node: &Node, id: &str) -> Result<(), Failure> {
        let (start, body) = (Instant::now(), application()?);
        loop {
            let request = client.put(node.url(&format!("/v1/applications/{id}"))).bearer_auth(&self.key);
            let response = request.json(&body).send().await?;
            if response.status().is_success() {
                return Ok(());
            }
            if start.elapsed() > LONGEST {
                return Err(format!("an application is refused: {}", response.text().await?).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn send(&self, client: &Client, url: &str, targets: &[String]) -> reqwest::RequestBuilder {
        let body = json!({"application_id": "app", "notification": {"body": "hello"}, "targets": targets});
        client.post(url).bearer_auth(&self.key).json(&body)
    }
}

/// Sends pushes, one in a request.
async fn phase(client: &Client, (node, tenant): (&Node, &Tenant), pushes: usize) -> Result<Phase, Failure> {
    let (url, before) = (node.url("/v1/notifications"), used(node.id())?);
    let sends = (0..pushes).map(|push| {
        let request = tenant.send(client, &url, &[format!("{push:064x}")]);
        async move {
            let start = Instant::now();
            let answer = request.send().await?.error_for_status()?;
            answer.bytes().await?;
            Ok::<_, Failure>(start.elapsed())
        }
    });
    let mut answers = stream::iter(sends).buffer_unordered(AT_ONCE);
    let mut took = Vec::with_capacity(pushes);
    while let Some(answer) = answers.next().await {
        took.push(answer?);
    }
    let processor = (used(node.id())? - before).as_secs_f64() * 1e6 / pushes as f64;
    took.sort_unstable();
    let part = |part| percentile(&took, part).as_secs_f64() * 1e6;
    Ok(Phase { processor, median: part(50), p99: part(99) })
}

/// Returns what so many per cent of the sorted values do not exceed.
fn percentile(sorted: &[Duration], part: usize) -> Duration {
    sorted.get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Processor time that a process has used.
fn used(process: u32) -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name, which may have spaces; a tick is a hundredth of a second.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).ok_or("no such field");
    Ok(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// Registers applications, each on the next node. Returns how long it takes, from the response on, until all show it.
async fn registrations(client: &Client, nodes: &[Node], tenant: &Tenant) -> Result<Vec<Duration>, Failure> {
    let mut seen = Vec::new();
    for number in 0..REGISTRATIONS {
        let id = format!("seen-{number:04}");
        tenant.register(client, &nodes[number % nodes.len()], &id).await?;
        let start = Instant::now();
        for node in nodes {
            // A list asks no other node, as a request for one application would.
            let url = node.url(&format!("/v1/applications?search={id}"));
            loop {
                let shown: Value = client.get(&url).bearer_auth(&tenant.key).send().await?.json().await?;
                if shown["applications"].as_array().is_some_and(|all| !all.is_empty()) {
                    break;
                }
                if start.elapsed() > LONGEST {
                    return Err(format!("{id} is not seen: {shown}").into());
                }
            }
        }
        seen.push(start.elapsed());
    }
    seen.sort_unstable();
    Ok(seen)
}

/// Returns by how much the resident memory of each node grows with the tenants.
async fn memory(client: &Client, nodes: &[Node]) -> Result<Vec<i64>, Failure> {
    let all = || nodes.iter().map(|node| resident(node.id())).collect::<Result<Vec<_>, _>>();
    let before = all()?;
    for number in 0..TENANTS {
        let tenant = Tenant::new(client, &nodes[0], &format!("t{number}"), &json!({})).await?;
        tenant.register(client, &nodes[0], "app").await?;
    }
    tokio::time::sleep(SETTLE).await;
    Ok(all()?.into_iter().zip(before).map(|(after, before)| after - before).collect())
}

/// Bytes of a process's memory that are resident.
fn resident(process: u32) -> Result<i64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<i64>()? * 1024)
}

impl Costs {
    /// Whether a push of a fleet's server takes as much as one of a server that is alone, within two per cent, and without
    /// NATS as long as with it, within noise: each against the server that is alone, at the same time.
    pub fn holds(&self) -> bool {
        ratio(&self.shared, &self.alone, |phase| phase.processor) <= 1.02
            && self.slower_without_nats() <= NOISE
    }

    fn slower_without_nats(&self) -> f64 {
        let p99 = |phase: &Phase| phase.p99;
        ratio(&self.stopped, &self.still_alone, p99) / ratio(&self.shared, &self.alone, p99)
    }
}

/// Returns the median of a figure.
fn median(phases: &[Phase], figure: impl Fn(&Phase) -> f64) -> f64 {
    let mut sorted: Vec<f64> = phases.iter().map(figure).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn ratio(one: &[Phase], other: &[Phase], figure: impl Fn(&Phase) -> f64 + Copy) -> f64 {
    median(one, figure) / median(other, figure)
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:38} {:>13} {:>13} {:>13}",
            "a push, medians of the phases", "processor", "p50", "p99"
        )?;
        let rows = [
            ("without NATS", &self.alone),
            ("in a fleet", &self.shared),
            ("without NATS, a second time", &self.still_alone),
            ("in a fleet whose NATS is stopped", &self.stopped),
        ];
        for (name, phases) in rows {
            let figure = |figure: fn(&Phase) -> f64| format!("{:.1} µs", median(phases, figure));
            let (processor, p50, p99) =
                (figure(|phase| phase.processor), figure(|phase| phase.median), figure(|phase| phase.p99));
            writeln!(f, "{name:38} {processor:>13} {p50:>13} {p99:>13}")?;
        }
        let pairs = [
            ("in a fleet / without NATS", &self.shared, &self.alone),
            ("NATS stopped / without NATS", &self.stopped, &self.still_alone),
        ];
        for (name, one, other) in pairs {
            let figure = |figure: fn(&Phase) -> f64| format!("{:.3}", ratio(one, other, figure));
            let (processor, p50, p99) =
                (figure(|phase| phase.processor), figure(|phase| phase.median), figure(|phase| phase.p99));
            writeln!(f, "{name:38} {processor:>13} {p50:>13} {p99:>13}")?;
        }
        writeln!(f, "p99 with NATS stopped / with NATS: {:.3} (noise: {NOISE})", self.slower_without_nats())?;
        writeln!(
            f,
            "a registration is seen by all nodes after {:?} (median), {:?} (p99)",
            percentile(&self.seen, 50),
            percentile(&self.seen, 99)
        )?;
        let kilobytes = self.memory.iter().map(|bytes| bytes / 1024).collect::<Vec<_>>();
        writeln!(f, "memory for {TENANTS} tenants with an application each, by node: {kilobytes:?} KiB")
    }
}
