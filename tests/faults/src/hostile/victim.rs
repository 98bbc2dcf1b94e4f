//! The tenant that does nothing but send, all the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;

use super::server::{Server, apns_application, client};
use crate::peer::Failure;

const APPLICATION: &str = "victim-application";
/// Targets of a batch.
const BATCH: usize = 5000;
/// It registers once in so many pushes.
const REGISTERS_EVERY: usize = 50;

pub struct Victim {
    server: Arc<Server>,
    client: Client,
    api_key: String,
}

/// How long pushes took, and what was answered to those that were not delivered.
#[derive(Default)]
pub struct Pushes {
    pub times: Vec<Duration>,
    pub failures: BTreeMap<String, u64>,
}

impl Victim {
    pub async fn new(server: &Arc<Server>) -> Result<Self, Failure> {
        let api_key = server.make_tenant("victim").await?;
        let victim = Self { server: server.clone(), client: client()?, api_key };
        victim.register(APPLICATION)?.send().await?.error_for_status()?;
        Ok(victim)
    }

    /// Sends pushes one after the other, by turns on each route, and registers from time to time.
    pub async fn push(&self, count: usize, pushes: &mut Pushes) {
        for number in 0..count {
            let number = pushes.times.len() + number;
            // The peer takes tokens 1 to 10 as good ones.
            let token = format!("{:064x}", 1 + number % 10);
            let (request, expected) = if number.is_multiple_of(2) {
                (self.to_many(&token), r#""delivered":1"#)
            } else {
                (self.to_one(&token), r#""response":"ok""#)
            };
            let started = Instant::now();
            let answer = text(request).await;
            pushes.times.push(started.elapsed());
            pushes.expect(expected, answer);
            if number.is_multiple_of(REGISTERS_EVERY)
                && let Ok(registration) = self.register("another")
            {
                pushes.expect(r#""another""#, text(registration).await);
            }
        }
    }

    /// Sends so many batches of [`BATCH`] targets at once; all targets must be delivered.
    pub async fn push_batches(&self, count: usize, pushes: &mut Pushes) {
        let targets: Vec<String> = (0..BATCH).map(|number| format!("{:064x}", 1 + number % 10)).collect();
        let body = json!({
            "application_id": APPLICATION,
            "notification": {"body": "hello"},
            "targets": targets,
            "duplicates": "send",
        });
        let batches = (0..count).map(|_| text(self.request(Method::POST, "/v1/notifications").json(&body)));
        for answer in futures_util::future::join_all(batches).await {
            pushes.expect(&format!(r#""delivered":{BATCH}"#), answer);
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.server.request(&self.client, method, path, &self.api_key)
    }

    fn register(&self, id: &str) -> Result<RequestBuilder, Failure> {
        let request = self.request(Method::PUT, &format!("/v1/applications/{id}"));
        Ok(request.json(&apns_application()?))
    }

    fn to_many(&self, token: &str) -> RequestBuilder {
        let body =
            json!({"application_id": APPLICATION, "notification": {"body": "hello"}, "targets": [token]});
        self.request(Method::POST, "/v1/notifications").json(&body)
    }

    fn to_one(&self, token: &str) -> RequestBuilder {
        let form = [("application_id", APPLICATION), ("device_token", token), ("alert", "hello")];
        self.request(Method::POST, "/send_notification").form(&form)
    }
}

/// What is answered, or why nothing is.
async fn text(request: RequestBuilder) -> String {
    match request.send().await {
        Ok(response) => response.text().await.unwrap_or_else(|error| format!("{error:?}")),
        Err(error) => format!("{error:?}"),
    }
}

impl Pushes {
    pub fn none_failed(&self) -> Result<(), Failure> {
        match self.failures.keys().next() {
            Some(failure) => Err(format!("a push before the attacks failed: {failure}").into()),
            None => Ok(()),
        }
    }

    /// The time within which this part of the pushes was answered.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        times.get((last as f64 * part) as usize).copied().unwrap_or_default()
    }

    fn expect(&mut self, expected: &str, answer: String) {
        if !answer.contains(expected) {
            // An answer with thousands of results would hide the rest of the report.
            let begin = answer.chars().take(500).collect();
            *self.failures.entry(begin).or_default() += 1;
        }
    }
}
