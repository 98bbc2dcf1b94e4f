//! Callers that send one push after the other while a server changes, and count what was delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use reqwest::{Client, ClientBuilder};
use tokio::task::JoinSet;

use crate::harness::wait_until;

const CALLERS: usize = 8;

/// Callers, each with one connection that it keeps. Their task fails with the first push that is not delivered.
pub struct Callers {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    delivered: Arc<AtomicU64>,
}

impl Callers {
    /// Of a server without TLS.
    pub fn start(url: &str) -> Self {
        Self::with(url, Client::builder)
    }

    /// `client`: what each of them trusts.
    pub fn with(url: &str, client: impl Fn() -> ClientBuilder) -> Self {
        let (stop, delivered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut callers = Self { tasks: JoinSet::new(), stop, delivered };
        (0..CALLERS).for_each(|_| callers.add(url, client().pool_max_idle_per_host(1)));
        callers
    }

    /// One more that opens a connection for each push.
    pub fn add_restless(&mut self, url: &str, client: ClientBuilder) {
        self.add(url, client.pool_max_idle_per_host(0));
    }

    fn add(&mut self, url: &str, client: ClientBuilder) {
        let (stop, delivered, url) =
            (self.stop.clone(), self.delivered.clone(), format!("{url}/send_notification"));
        let client = client.build().unwrap();
        self.tasks.spawn(async move {
            let form = [("device_token", "device"), ("data", r#"{"text":"x"}"#), ("gcm_api_key", "a key")];
            while !stop.load(Ordering::Relaxed) {
                let response = client.post(&url).form(&form).send().await.unwrap();
                let status = response.status();
                let text = response.text().await.unwrap();
                assert_eq!(status, 200, "{text}");
                delivered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Waits until so many more pushes are delivered.
    pub async fn deliver(&self, more: u64) {
        let goal = self.delivered.load(Ordering::Relaxed) + more;
        wait_until("pushes are delivered", async || self.delivered.load(Ordering::Relaxed) >= goal).await;
    }

    /// Stops them, and returns how many pushes were delivered.
    pub async fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.delivered.load(Ordering::Relaxed)
    }
}
