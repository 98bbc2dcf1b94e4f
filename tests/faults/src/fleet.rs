//! A fleet under fire: three servers and three NATS servers, of which some are killed, stopped and started again at
//! random, in front of a push service that misbehaves. Callers go round the servers, and repeat what was not answered
//! under the same `Idempotency-Key`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use pushlet_test_support::{Directory, Nats};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rcgen::KeyPair;
use reqwest::Client;
use serde_json::{Value, json};

use crate::ledger::{Ledger, Told};
use crate::peer::{Certificate, Failure, Manner, Peer};
use crate::run::{Plan, Report};

const NODES: usize = 3;
/// The file of the push service's authority.
const ROOTS: &str = "roots.pem";
const APPLICATIONS: usize = 3;
/// Targets of a request.
const BATCH: usize = 20;
/// Requests under way at once.
const AT_ONCE: usize = 16;
/// One in so many requests has no key, and is not repeated.
const WITHOUT_KEY: usize = 8;
const LONGEST_REQUEST: Duration = Duration::from_secs(15);
/// As long as a caller repeats a request.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_START: Duration = Duration::from_secs(60);

/// Three servers with their NATS servers, in front of a push service. All of it ends when this is dropped.
pub(crate) struct Fleet {
    pub nodes: Vec<Node>,
    pub callers: Arc<Callers>,
    pub nats: Nats,
    pub peer: Peer,
    _directory: Directory,
}

/// One server, which can be started again where it was.
pub(crate) struct Node {
    pub address: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    child: Child,
}

/// The callers' side.
pub(crate) struct Callers {
    pub client: Client,
    addresses: Vec<SocketAddr>,
    turn: AtomicUsize,
    run: u64,
}

/// What befalls a fleet, until it is ended.
pub(crate) struct Misfortunes {
    ended: Arc<AtomicBool>,
    thread: tokio::task::JoinHandle<Result<(Vec<Node>, Nats), Failure>>,
}

/// Runs a plan; `proxy` and `resend_unknown` are not looked at.
pub async fn run(plan: Plan) -> Result<Report, Failure> {
    let fleet = Fleet::start(plan, Manner::Wild, "").await?;
    fleet.callers.register().await?;
    let (callers, ledger) = (fleet.callers.clone(), fleet.peer.ledger.clone());
    let (misfortunes, rest) = fleet.misfortunes(plan.seed);
    let started = Instant::now();
    let answers = callers.answers(plan.pushes).await;
    let took = started.elapsed();
    // The servers end here: what a stopped one still sends is in the ledger before it is compared.
    let nodes = misfortunes.end().await?;
    tokio::time::sleep(plan.deadline).await;
    drop((nodes, rest));
    Ok(Report::of(plan, &ledger, &answers, took))
}

impl Fleet {
    /// Starts all of it. `settings`: further lines of the servers' configuration.
    pub async fn start(plan: Plan, manner: Manner, settings: &str) -> Result<Self, Failure> {
        // A second user of the library in this process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificate = Certificate::new()?;
        let ledger = Arc::new(Ledger::new(plan.pushes));
        let peer = Peer::start(&certificate, plan.seed, manner, ledger).await?;
        let directory = Directory::new();
        // Its constructors wait for the servers.
        let nats = tokio::task::block_in_place(Nats::cluster);
        let nodes = start_nodes(&directory, &certificate, &peer, &nats, plan, settings).await?;
        let callers = Arc::new(Callers {
            client: Client::builder().no_proxy().timeout(LONGEST_REQUEST).build()?,
            addresses: nodes.iter().map(|node| node.address).collect(),
            turn: AtomicUsize::new(0),
            run: plan.seed,
        });
        Ok(Self { nodes, callers, nats, peer, _directory: directory })
    }

    /// Begins to kill and stop servers. Returns also what must be kept until the end.
    pub fn misfortunes(self, seed: u64) -> (Misfortunes, (Peer, Directory)) {
        let Self { nodes, nats, peer, _directory, .. } = self;
        let (ended, ledger) = (Arc::new(AtomicBool::new(false)), peer.ledger.clone());
        let thread = tokio::task::spawn_blocking({
            let ended = ended.clone();
            move || misfortunes(nodes, nats, seed, &ended, &ledger)
        });
        (Misfortunes { ended, thread }, (peer, _directory))
    }
}

impl Misfortunes {
    /// Ends them. All servers live then.
    pub async fn end(self) -> Result<(Vec<Node>, Nats), Failure> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.await?
    }
}

/// A server without NATS, in front of a fleet's push service.
pub(crate) struct Alone(Node);

impl Alone {
    pub async fn start(fleet: &Fleet, plan: Plan, settings: &str) -> Result<Self, Failure> {
        let key = format!("registry.key = {:?}\n{settings}", "5e".repeat(32));
        let node = Node::start(fleet._directory.path(), "alone", fleet.peer.address, plan, &key)?;
        node.answers().await?;
        Ok(Self(node))
    }

    pub fn node(&self) -> &Node {
        &self.0
    }
}

async fn start_nodes(
    directory: &Directory,
    certificate: &Certificate,
    peer: &Peer,
    nats: &Nats,
    plan: Plan,
    settings: &str,
) -> Result<Vec<Node>, Failure> {
    std::fs::write(directory.path().join(ROOTS), &certificate.authority)?;
    let registry =
        format!("registry = {{ url = {:?}, key = {:?} }}\n{settings}", nats.url(), "5e".repeat(32));
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let name = format!("node{number}");
        nodes.push(Node::start(directory.path(), &name, peer.address, plan, &registry)?);
    }
    for node in &nodes {
        node.answers().await?;
    }
    Ok(nodes)
}

impl Node {
    /// Starts a server in a folder of its own. `settings`: further lines of its configuration.
    fn start(
        directory: &Path,
        name: &str,
        peer: SocketAddr,
        plan: Plan,
        settings: &str,
    ) -> Result<Self, Failure> {
        let folder = directory.join(name);
        std::fs::create_dir(&folder)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let url = format!("https://{peer}");
        let text = format!(
            "listen = \"{address}\"\ndata_dir = {:?}\ntls.extra_roots = [{:?}]\n\
             endpoints.apns = {{ production = {url:?}, development = {url:?} }}\n\
             delivery.deadline = \"{}ms\"\n{settings}\n",
            folder.join("data"),
            directory.join(ROOTS),
            plan.deadline.as_millis(),
        );
        let config = folder.join("pushlet.toml");
        std::fs::write(&config, text)?;
        let log = folder.join("log");
        let child = serve(&config, &log)?;
        Ok(Self { address, config, log, child })
    }

    /// Waits until it answers.
    async fn answers(&self) -> Result<(), Failure> {
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(1)).build()?;
        let start = Instant::now();
        while client.get(self.url("/healthz")).send().await.is_err() {
            if start.elapsed() > LONGEST_START {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("a server does not start: {log}").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Starts this program as a server.
fn serve(config: &Path, log: &Path) -> Result<Child, Failure> {
    let log = std::fs::File::options().create(true).append(true).open(log)?;
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(config).env_clear().stdin(Stdio::null());
    Ok(command.stdout(Stdio::null()).stderr(log).spawn()?)
}

/// Kills, stops and starts again, one after the other, until the callers have ended. All live in the end.
fn misfortunes(
    mut nodes: Vec<Node>,
    mut nats: Nats,
    seed: u64,
    ended: &AtomicBool,
    ledger: &Ledger,
) -> Result<(Vec<Node>, Nats), Failure> {
    let mut dice = StdRng::seed_from_u64(seed);
    let sleep = |least: u64, most: u64, dice: &mut StdRng| {
        std::thread::sleep(Duration::from_millis(dice.random_range(least..most)));
    };
    while !ended.load(Ordering::Relaxed) {
        sleep(500, 3000, &mut dice);
        let number = dice.random_range(0..NODES);
        match dice.random_range(0..10) {
            0..5 => {
                ledger.event("server killed");
                nodes[number].kill();
                sleep(100, 2000, &mut dice);
                nodes[number].child = serve(&nodes[number].config, &nodes[number].log)?;
            }
            5..8 => {
                ledger.event("server stopped for a while");
                signal("-STOP", nodes[number].child.id())?;
                sleep(500, 8000, &mut dice);
                signal("-CONT", nodes[number].child.id())?;
            }
            _ => {
                ledger.event("NATS server killed");
                nats.kill(number);
                sleep(500, 4000, &mut dice);
                nats.start_node(number);
                // Two at a time would be no minority.
                sleep(3000, 6000, &mut dice);
            }
        }
    }
    Ok((nodes, nats))
}

fn signal(name: &str, process: u32) -> Result<(), Failure> {
    match Command::new("kill").arg(name).arg(process.to_string()).status()?.success() {
        true => Ok(()),
        false => Err(format!("kill {name} failed").into()),
    }
}

impl Node {
    /// Returns the id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Callers {
    /// The next server's turn.
    pub fn url(&self, path: &str) -> String {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        format!("http://{}{path}", self.addresses[turn % self.addresses.len()])
    }

    pub async fn register(&self) -> Result<(), Failure> {
        for number in 0..APPLICATIONS {
            let body = application()?;
            let url = self.url(&format!("/v1/applications/{number}"));
            self.client.put(url).json(&body).send().await?.error_for_status()?;
        }
        Ok(())
    }

    /// Sends all pushes; what was told of each, by push.
    async fn answers(self: &Arc<Self>, pushes: usize) -> Vec<Option<Told>> {
        let mut answers: Vec<Option<Told>> = vec![None; pushes];
        let batches = (0..pushes).step_by(BATCH).enumerate().map(|(number, start)| {
            let (callers, end) = (self.clone(), pushes.min(start + BATCH));
            async move { (start, callers.send(number, start..end).await) }
        });
        let mut told = stream::iter(batches).buffer_unordered(AT_ONCE);
        while let Some((start, batch)) = told.next().await {
            for (answer, told) in answers.iter_mut().skip(start).zip(batch) {
                *answer = told;
            }
        }
        answers
    }

    /// Sends one request until it is answered; None: it never was.
    async fn send(&self, number: usize, pushes: std::ops::Range<usize>) -> Vec<Option<Told>> {
        let count = pushes.len();
        let body = json!({
            "application_id": (number % APPLICATIONS).to_string(),
            "notification": {"body": "hello"},
            "targets": pushes.map(|push| format!("{push:064x}")).collect::<Vec<_>>(),
        });
        let with_key = !number.is_multiple_of(WITHOUT_KEY);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let mut request = self.client.post(self.url("/v1/notifications")).json(&body);
            if with_key {
                request = request.header("idempotency-key", format!("{}-{number}", self.run));
            }
            let answer = match request.send().await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    response.json::<Value>().await.map(|body| (status, body))
                }
                Err(error) => Err(error),
            };
            match answer {
                Ok((200, body)) => return results(&body, count),
                // The server says that nothing was sent, or that another request has the key: again.
                Ok((409, body)) if body["error"] == "idempotency_response_lost" => {
                    return vec![Some(Told::Unknown); count];
                }
                Ok((404 | 409 | 429 | 503, _)) => {}
                Ok((_, body)) => return vec![Some(Told::NotDelivered(body.to_string())); count],
                // A caller without a key does not know, and cannot ask.
                Err(error) if !with_key && !error.is_connect() => return vec![Some(Told::Unknown); count],
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        vec![None; count]
    }
}

/// Returns the registration of an application with a key of its own.
pub(crate) fn application() -> Result<Value, Failure> {
    Ok(json!({
        "provider": "apns",
        "credentials": {"apns_p8": KeyPair::generate()?.serialize_pem()},
        "settings": {"apns_key_id": "ABCDE12345", "apns_team_id": "TEAM123456", "apns_topic": "com.example.app"},
    }))
}

/// What the results of an answer say, by target.
fn results(body: &Value, count: usize) -> Vec<Option<Told>> {
    let mut told = vec![None; count];
    for (number, result) in body["results"].as_array().into_iter().flatten().enumerate() {
        let index = result["index"].as_u64().map_or(number, |index| index as usize);
        if let Some(slot) = told.get_mut(index) {
            *slot = Some(told_of(result));
        }
    }
    told
}

/// What one result says.
pub(crate) fn told_of(result: &Value) -> Told {
    let text = |name: &str| result[name].as_str().unwrap_or_default();
    match text("status") {
        "delivered" | "replaced" => Told::Delivered,
        "unknown" => Told::Unknown,
        status => Told::NotDelivered(format!("{status} {}", text("code"))),
    }
}
