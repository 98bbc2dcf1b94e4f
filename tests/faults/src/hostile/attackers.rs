//! All attackers: they are set up, attack until the run is over, and are removed with all that they left.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::server::{Server, client};
use super::{components, connections, requests};
use crate::peer::Failure;

/// Between two requests of one attacker of which the first was refused: attackers share the machine with the server,
/// which shall be busy with them and not they with themselves.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two tries to remove a tenant.
const LOOK: Duration = Duration::from_secs(1);
/// How long the removal of a tenant may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// What the attackers got: per attack, how often each status and code came. Cheap to clone.
#[derive(Clone, Default)]
pub struct Outcomes(Arc<Mutex<BTreeMap<&'static str, BTreeMap<String, u64>>>>);

/// The attackers at work.
pub struct Attackers {
    server: Arc<Server>,
    outcomes: Outcomes,
    tenants: Vec<String>,
    ready: Vec<Box<dyn FnOnce(&mut JoinSet<()>) + Send>>,
    tasks: JoinSet<()>,
}

/// One of them: a caller with the API key of some tenant, and connections that it shares with its own kind.
#[derive(Clone)]
pub struct Attacker {
    attack: &'static str,
    pub server: Arc<Server>,
    pub api_key: String,
    client: Client,
    outcomes: Outcomes,
}

impl Attackers {
    /// Sets all of them up; none attacks yet.
    pub async fn new(server: &Arc<Server>) -> Result<Self, Failure> {
        let mut attackers = Self {
            server: server.clone(),
            outcomes: Outcomes::default(),
            tenants: Vec::new(),
            ready: Vec::new(),
            tasks: JoinSet::new(),
        };
        requests::prepare(&mut attackers).await?;
        components::prepare(&mut attackers).await?;
        connections::prepare(&mut attackers).await?;
        Ok(attackers)
    }

    /// Creates a tenant for an attacker. `attack`: what its outcomes are counted as.
    pub async fn tenant(&mut self, id: &str, attack: &'static str) -> Result<Attacker, Failure> {
        let api_key = self.server.make_tenant(id).await?;
        self.tenants.push(id.to_owned());
        self.caller(api_key, attack)
    }

    /// An attacker with some API key.
    pub fn caller(&self, api_key: String, attack: &'static str) -> Result<Attacker, Failure> {
        let (server, outcomes) = (self.server.clone(), self.outcomes.clone());
        Ok(Attacker { attack, server, api_key, client: client()?, outcomes })
    }

    /// Has `count` tasks of the attacker attack once all are set up.
    pub fn add<F>(
        &mut self,
        count: usize,
        attacker: Attacker,
        attack: impl Fn(Attacker) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.ready.push(Box::new(move |tasks| {
            (0..count).for_each(|_| drop(tasks.spawn(attack(attacker.clone()))));
        }));
    }

    /// Begins all attacks.
    pub fn begin(&mut self) {
        self.ready.drain(..).for_each(|start| start(&mut self.tasks));
    }

    /// Ends all attacks wherever they are, and has the operator remove the attackers' tenants.
    pub async fn end(mut self) -> Outcomes {
        self.tasks.shutdown().await;
        let removals = self.tenants.iter().map(|id| async {
            let outcome = timeout(REMOVAL, self.remove(id)).await;
            let outcome = outcome.unwrap_or_else(|_| "not within a minute".to_owned());
            self.outcomes.count("removal of the attackers' tenants", outcome);
        });
        futures_util::future::join_all(removals).await;
        self.outcomes
    }

    /// Removes a tenant, which may have to wait for what is compiled for it.
    async fn remove(&self, id: &str) -> String {
        loop {
            let request = self.server.operate(Method::DELETE, &format!("/v1/tenants/{id}"));
            let outcome = match request.send().await {
                Ok(response) => outcome(response).await,
                Err(error) => kind(&error).to_owned(),
            };
            if outcome.starts_with("204") {
                return outcome;
            }
            self.outcomes.count("removals that were tried again", outcome);
            sleep(LOOK).await;
        }
    }
}

impl Attacker {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.server.request(&self.client, method, path, &self.api_key)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// The same attacker, whose outcomes are counted as another attack's.
    pub fn with(&self, attack: &'static str) -> Self {
        Self { attack, ..self.clone() }
    }

    /// Counts what came of one attack.
    pub fn count(&self, outcome: impl Into<String>) {
        self.outcomes.count(self.attack, outcome);
    }

    /// Sends one request, and counts what comes of it.
    pub async fn send(&self, request: RequestBuilder) {
        let outcome = match request.send().await {
            Ok(response) => outcome(response).await,
            Err(error) => kind(&error).to_owned(),
        };
        let is_refused = !outcome.starts_with('2');
        self.count(outcome);
        if is_refused {
            sleep(PAUSE).await;
        }
    }

    /// Sends such requests for ever.
    pub async fn repeat(self, mut request: impl FnMut(&Self) -> RequestBuilder) {
        loop {
            let request = request(&self);
            self.send(request).await;
        }
    }

    /// Sends a request that sets up the attack, and must succeed.
    pub async fn set_up(&self, request: RequestBuilder) -> Result<(), Failure> {
        let response = request.send().await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(format!("{}: {} {}", self.attack, response.status(), response.text().await?).into())
    }
}

impl Outcomes {
    fn count(&self, attack: &'static str, outcome: impl Into<String>) {
        let mut outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *outcomes.entry(attack).or_default().entry(outcome.into()).or_default() += 1;
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (attack, counts) in outcomes.iter() {
            writeln!(f, "  {attack}: {counts:?}")?;
        }
        Ok(())
    }
}

/// Status, and error code where there is one.
async fn outcome(response: Response) -> String {
    let status = response.status().as_u16();
    let body: Option<Value> = response.json().await.ok();
    let code = body.as_ref().and_then(|body| body["error"].as_str());
    code.map_or_else(|| status.to_string(), |code| format!("{status} {code}"))
}

fn kind(error: &reqwest::Error) -> &'static str {
    match (error.is_connect(), error.is_timeout(), error.is_body()) {
        (true, ..) => "no connection",
        (_, true, _) => "no response in time",
        (.., true) => "the body was not taken",
        _ => "no response",
    }
}
