//! The line that says how far it is: on a terminal only, and not more often than an eye can follow.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cli::client::print;

const PAUSE: Duration = Duration::from_millis(200);
const WIDTH: u64 = 24;
/// Statuses that need nobody's attention.
const GOOD: [&str; 3] = ["delivered", "replaced", "valid"];

pub struct Progress {
    /// Targets all told; None: not known.
    total: Option<u64>,
    skipped: Arc<AtomicU64>,
    settled: u64,
    outcomes: BTreeMap<String, u64>,
    start: Instant,
    drawn: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    /// `skipped`: counts targets that had a result before.
    pub fn new(total: Option<u64>, skipped: Arc<AtomicU64>) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self {
            total,
            skipped,
            settled: 0,
            outcomes: BTreeMap::new(),
            start: Instant::now(),
            drawn: None,
            is_terminal,
        }
    }

    pub fn count(&mut self, status: &str) {
        self.settled += 1;
        match self.outcomes.get_mut(status) {
            Some(count) => *count += 1,
            None => {
                self.outcomes.insert(status.to_owned(), 1);
            }
        }
    }

    /// Draws the line anew if it is time.
    pub fn draw(&mut self) {
        if !self.is_terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < PAUSE) {
            return;
        }
        self.drawn = Some(Instant::now());
        // A terminal that takes nothing shall not end the send. What is too long for it is cut off (DECAWM), for
        // a second line would stay.
        let _ = write!(std::io::stderr(), "\r\x1b[2K\x1b[?7l{}\x1b[?7h", self.line());
    }

    /// Leaves the terminal as it was.
    pub fn end(&self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }

    pub fn outcomes(&self) -> &BTreeMap<String, u64> {
        &self.outcomes
    }

    pub fn all_good(&self) -> bool {
        self.outcomes.keys().all(|status| Self::is_good(status))
    }

    pub fn is_good(status: &str) -> bool {
        GOOD.contains(&status)
    }

    /// `12 targets in 1.2 s, 10.0/s: 11 delivered, 1 unregistered`.
    pub fn summary(&self) -> String {
        if self.settled == 0 {
            return "nothing to send".to_owned();
        }
        let seconds = self.start.elapsed().as_secs_f64();
        let what = if self.settled == 1 { "target" } else { "targets" };
        format!("{} {what} in {seconds:.1} s, {:.1}/s: {}", self.settled, self.rate(), self.counts())
    }

    /// Targets that have a result now.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Targets that had a result before.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    fn line(&self) -> String {
        let passed = self.settled + self.skipped();
        let bar = self.total.filter(|total| *total > 0).map(|total| {
            let full = (passed.min(total) * WIDTH / total) as usize;
            let left = total.saturating_sub(passed) as f64 / self.rate().max(f64::MIN_POSITIVE);
            let left = if self.settled > 0 && left < 360_000.0 {
                format!(" {left:.0} s left,")
            } else {
                String::new()
            };
            let percent = passed.min(total) * 100 / total;
            format!("{}{} {percent:>3} %,{left} ", "━".repeat(full), "·".repeat(WIDTH as usize - full))
        });
        format!("{}{} sent, {:.0}/s: {}", bar.unwrap_or_default(), self.settled, self.rate(), self.counts())
    }

    fn rate(&self) -> f64 {
        self.settled as f64 / self.start.elapsed().as_secs_f64().max(0.001)
    }

    fn counts(&self) -> String {
        let one = |(status, count): (&String, &u64)| {
            format!("{count} {}", print::printable(&status.replace('_', " ")))
        };
        if self.outcomes.is_empty() {
            return "nothing yet".to_owned();
        }
        self.outcomes.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}
