//! The tenant that does nothing but send, and must not notice the attacker.

use std::cell::Cell;
use std::future::Future;
use std::time::{Duration, Instant};

use pushlet_simulator::Simulator;
use serde_json::{Value, json};

use super::{DEVICE, Server, expect, register_apns};

const APPLICATION: &str = "victim-application";
/// Pushes for the median of a quiet moment.
const QUIET: usize = 60;
/// How often an attack is repeated before its effect counts as its own, not as the machine's: some rounds are so short
/// that what the test before left behind lasts for several.
const ROUNDS: usize = 20;
/// Most of the victim's median beside the attacker, in terms of its quiet one.
const RATIO: f64 = 1.5;
/// What two processes that share two cores with the server cost each push, whatever the server does.
const NOISE: Duration = Duration::from_millis(5);

pub struct Victim {
    client: reqwest::Client,
    url: String,
    pub api_key: String,
}

impl Victim {
    pub async fn new(server: &Server, simulator: &Simulator, api_key: String) -> Self {
        register_apns(server, simulator, &api_key, APPLICATION).await;
        let victim = Self { client: server.client.clone(), url: server.url("/v1/notifications"), api_key };
        // Connections, tokens and instances are there afterwards.
        victim.median(10).await;
        victim
    }

    /// Sends one push, which must be delivered; returns how long it took.
    pub async fn push(&self) -> Duration {
        let body = json!({
            "application_id": APPLICATION,
            "notification": {"body": "hello"},
            "targets": [DEVICE],
        });
        let request = self.client.post(&self.url).bearer_auth(&self.api_key).json(&body);
        let start = Instant::now();
        let answer: Value = expect(request, 200).await;
        let took = start.elapsed();
        assert_eq!(answer["summary"]["delivered"], 1, "{answer}");
        took
    }

    /// The median of so many pushes, one after the other.
    pub async fn median(&self, pushes: usize) -> Duration {
        let mut times = Vec::with_capacity(pushes);
        for _ in 0..pushes {
            times.push(self.push().await);
        }
        middle(times)
    }

    /// Runs the attack while pushing all the time. Every push must be delivered; the median must be at most
    /// [`RATIO`] times that of a quiet moment, in one of [`ROUNDS`] rounds. Returns the last round's result.
    pub async fn unharmed_by<T, F: Future<Output = T>>(&self, mut attack: impl FnMut() -> F) -> T {
        let mut figures = Vec::new();
        loop {
            let quiet = self.median(QUIET).await;
            let (result, beside) = self.beside(attack()).await;
            figures.push(format!("{quiet:?} alone, {beside:?} beside the attack"));
            if beside <= quiet.mul_f64(RATIO) + NOISE {
                return result;
            }
            assert!(figures.len() < ROUNDS, "the victim's median suffers: {figures:#?}");
        }
    }

    /// The same for an attack that cannot be repeated, in its one round.
    pub async fn unharmed_by_one<T>(&self, attack: impl Future<Output = T>) -> T {
        let quiet = self.median(QUIET).await;
        let (result, beside) = self.beside(attack).await;
        let most = quiet.mul_f64(RATIO) + NOISE;
        assert!(beside <= most, "the victim's median suffers: {quiet:?} alone, {beside:?} beside the attack");
        result
    }

    /// Runs the attack to its end, with the median of the victim's pushes meanwhile.
    async fn beside<T>(&self, attack: impl Future<Output = T>) -> (T, Duration) {
        let (mut times, is_over) = (Vec::new(), Cell::new(false));
        let attack = async {
            let result = attack.await;
            is_over.set(true);
            result
        };
        // A push that was delayed to the attack's end is waited for: it counts.
        let pushes = async {
            while !is_over.get() || times.is_empty() {
                times.push(self.push().await);
            }
        };
        let (result, ()) = tokio::join!(attack, pushes);
        (result, middle(times))
    }
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
