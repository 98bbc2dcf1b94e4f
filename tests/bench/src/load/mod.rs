//! A process that sends requests and times the answers.

mod http1;
mod stream;
mod template;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

pub use template::DIGITS;

use crate::failure::{Failure, at};
use http1::Client;
use template::Template;

/// What the process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// `host:port` of the server under test.
    pub address: String,
    pub path: String,
    pub content_type: String,
    /// With the places of `template`.
    pub body: String,
    /// How often this text is in a response, so many pushes were accepted.
    pub accepted: String,
    pub targets: usize,
    pub applications: u64,
    /// API keys, one after another; none: the requests have no credential.
    pub keys: Vec<String>,
    pub connections: usize,
    pub manner: Manner,
    pub seconds: f64,
}

impl Default for Plan {
    /// Nothing is sent.
    fn default() -> Self {
        Self {
            address: String::new(),
            path: String::new(),
            content_type: String::new(),
            body: String::new(),
            accepted: String::new(),
            targets: 1,
            applications: 1,
            keys: Vec::new(),
            connections: 1,
            manner: Manner::Closed,
            seconds: 0.0,
        }
    }
}

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Manner {
    /// Each connection sends the next request when it has the answer to the last.
    Closed,
    /// The same, with a new connection for every request.
    NewConnections,
    /// So many requests per second, all connections together, whatever the answers do. Times count from
    /// when a request was due, so that waiting for a late answer is not hidden; a connection that had none to
    /// wait for counts from when it woke up, which is up to a millisecond later.
    Rate(f64),
    /// One request with so many lines in its body, and as many in the answer.
    Stream(u64),
    /// So many requests over each connection, one after another.
    Times(u32),
}

/// What came of it; printed as one line of JSON. Times in microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    pub seconds: f64,
    pub requests: u64,
    pub pushes: u64,
    /// Responses by status; 0: no response.
    pub statuses: BTreeMap<u16, u64>,
    /// What the first response other than 200 said.
    pub complaint: Option<String>,
    pub p50: u32,
    pub p99: u32,
    pub p999: u32,
}

impl Figures {
    /// The sums of several runs, and of each quantile the middle one.
    pub fn of_turns<'a>(turns: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let middle = |quantile: fn(&Self) -> u32| {
            let mut all: Vec<u32> = turns.clone().map(quantile).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or(0)
        };
        let mut sum = Self {
            p50: middle(|turn| turn.p50),
            p99: middle(|turn| turn.p99),
            p999: middle(|turn| turn.p999),
            ..Self::default()
        };
        for turn in turns {
            sum.seconds += turn.seconds;
            sum.requests += turn.requests;
            sum.pushes += turn.pushes;
            for (status, count) in &turn.statuses {
                *sum.statuses.entry(*status).or_default() += count;
            }
            sum.complaint = sum.complaint.or_else(|| turn.complaint.clone());
        }
        sum
    }
}

#[derive(Default)]
struct Tally {
    times: Vec<u32>,
    pushes: u64,
    statuses: BTreeMap<u16, u64>,
    complaint: Option<String>,
}

/// Carries out the plan.
pub fn run(plan: Plan) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(at("load"))?;
    let figures = runtime.block_on(async {
        match plan.manner {
            Manner::Stream(lines) => stream::run(&plan, lines).await,
            _ => Ok(requests(plan).await),
        }
    })?;
    let line = serde_json::to_string(&figures).map_err(at("load"))?;
    writeln!(std::io::stdout(), "{line}").map_err(at("load"))
}

async fn requests(plan: Plan) -> Figures {
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(plan.seconds);
    let mut tasks = JoinSet::new();
    for place in 0..plan.connections {
        tasks.spawn(connection(plan.clone(), place, start, end));
    }
    let mut whole = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        whole.add(tally.unwrap_or_default());
    }
    whole.figures(start.elapsed())
}

async fn connection(plan: Plan, place: usize, start: Instant, end: Instant) -> Tally {
    let (seed, step) = (place as u64, plan.connections as u64);
    let mut template = Template::new(&request(&plan), &plan, seed, step);
    let mut tally = Tally::default();
    let mut client = None;
    let mut due = match plan.manner {
        Manner::Rate(rate) => start + Duration::from_secs_f64((place as f64 + 1.0) / rate),
        _ => start,
    };
    let mut left = match plan.manner {
        Manner::Times(times) => times,
        _ => u32::MAX,
    };
    while Instant::now() < end && due < end && left > 0 {
        left -= 1;
        let since = match plan.manner {
            Manner::Rate(rate) => {
                let late = Instant::now() >= due;
                tokio::time::sleep_until(due.into()).await;
                let since = if late { due } else { Instant::now() };
                due += Duration::from_secs_f64(plan.connections as f64 / rate);
                since
            }
            _ => Instant::now(),
        };
        match exchange(&mut client, &plan.address, template.next()).await {
            Ok(response) => tally.count(&plan, since, &response),
            Err(error) => {
                client = None;
                tally.complain(0, error.to_string().as_bytes());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        if plan.manner == Manner::NewConnections {
            client = None;
        }
    }
    tally
}

async fn exchange(
    client: &mut Option<Client>,
    address: &str,
    request: &[u8],
) -> std::io::Result<http1::Response> {
    if client.is_none() {
        *client = Some(Client::connect(address).await?);
    }
    match client {
        Some(client) => client.exchange(request).await,
        None => Err(std::io::Error::other("no connection")),
    }
}

fn request(plan: &Plan) -> String {
    // Holes are as wide as what fills them, so that the length of one body is the length of all.
    let length = Template::new(&plan.body, plan, 0, 1).next().len();
    let Plan { address, path, content_type, body, keys, .. } = plan;
    let credential = if keys.is_empty() { "" } else { "authorization: Bearer {key}\r\n" };
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\n{credential}content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

impl Tally {
    fn count(&mut self, plan: &Plan, since: Instant, response: &http1::Response) {
        self.times.push(u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX));
        if response.status != 200 {
            return self.complain(response.status, &response.body);
        }
        *self.statuses.entry(response.status).or_default() += 1;
        self.pushes += occurrences(&response.body, plan.accepted.as_bytes());
    }

    fn complain(&mut self, status: u16, text: &[u8]) {
        *self.statuses.entry(status).or_default() += 1;
        self.complaint.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
    }

    fn add(&mut self, other: Tally) {
        self.times.extend(other.times);
        self.pushes += other.pushes;
        other
            .statuses
            .into_iter()
            .for_each(|(status, count)| *self.statuses.entry(status).or_default() += count);
        self.complaint = self.complaint.take().or(other.complaint);
    }

    fn figures(mut self, elapsed: Duration) -> Figures {
        self.times.sort_unstable();
        let quantile = |q: f64| {
            let place = (self.times.len() as f64 * q) as usize;
            self.times.get(place).or(self.times.last()).copied().unwrap_or(0)
        };
        Figures {
            seconds: elapsed.as_secs_f64(),
            requests: self.times.len() as u64,
            pushes: self.pushes,
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            statuses: self.statuses,
            complaint: self.complaint,
        }
    }
}

fn occurrences(text: &[u8], mark: &[u8]) -> u64 {
    let mut found = 0;
    let mut at = 0;
    while let Some(rest) = text.get(at..at + mark.len()) {
        if rest == mark {
            found += 1;
            at += mark.len().max(1);
        } else {
            at += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_add_up() {
        let turn = |p99, pushes| Figures {
            p99,
            pushes,
            seconds: 1.0,
            statuses: [(200, pushes)].into(),
            ..Figures::default()
        };
        let sum = Figures::of_turns([turn(9, 10), turn(700, 20), turn(8, 30)].iter());
        assert_eq!((sum.p99, sum.pushes, sum.statuses.get(&200)), (9, 60, Some(&60)));
        assert!((sum.seconds - 3.0).abs() < 1e-9);
    }

    #[test]
    fn counts_what_was_accepted() {
        assert_eq!(occurrences(br#"[{"s":"ok"},{"s":"no"},{"s":"ok"}]"#, b"\"ok\""), 2);
        assert_eq!(occurrences(b"o", b"ok"), 0);
    }
}
