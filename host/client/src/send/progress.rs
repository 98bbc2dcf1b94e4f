//! What the user sees and does during a send: the progress line, redrawn a few times a second on a terminal and written
//! once a minute elsewhere; and Ctrl-C, once to send no more, twice to wait no more.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::terminal;

/// Between two measurements, and between two redraws on a terminal.
pub const PAUSE: Duration = Duration::from_millis(200);
/// Where there is no terminal, say in the log of a job.
const MINUTE: Duration = Duration::from_secs(60);
const WIDTH: u64 = 16;
/// Columns of the narrowest terminal that counts, less the one of the cursor.
const COLUMNS: usize = 79;
/// Measurements that the rate is computed from, [`PAUSE`] apart.
const LOOKS: usize = 25;
/// Statuses that need no attention.
const GOOD: [&str; 4] = ["delivered", "replaced", "valid", "duplicate"];

pub struct ProgressDisplay {
    /// Total number of targets; None: not known.
    total: Option<u64>,
    skipped: Arc<AtomicU64>,
    settled: u64,
    outcomes: BTreeMap<String, u64>,
    start: Instant,
    drawn: Option<Instant>,
    /// When it was looked at, and how many were settled then.
    looks: VecDeque<(Instant, u64)>,
    is_terminal: bool,
    /// Statuses that are as good as delivered to the caller.
    accepted: Vec<String>,
}

impl ProgressDisplay {
    /// `skipped`: counts targets that had a result before.
    pub fn new(total: Option<u64>, skipped: Arc<AtomicU64>, accepted: Vec<String>) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self {
            total,
            skipped,
            settled: 0,
            outcomes: BTreeMap::new(),
            start: Instant::now(),
            drawn: None,
            looks: VecDeque::with_capacity(LOOKS),
            is_terminal,
            accepted,
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

    /// Writes the line if it is time.
    pub fn draw(&mut self) {
        let Some(line) = self.due(Instant::now()) else { return };
        // A terminal that accepts no output must not end the send. A line that is too long is cut off (DECAWM), since
        // a second line would stay.
        let _ = match self.is_terminal {
            true => write!(std::io::stderr(), "\r\x1b[2K\x1b[?7l{line}\x1b[?7h"),
            false => writeln!(std::io::stderr(), "{line}"),
        };
    }

    /// Returns the line, if it is to be written now. Measures the rate, whether a line is due or not.
    fn due(&mut self, now: Instant) -> Option<String> {
        let last = self.looks.back().map_or(self.start, |(at, _)| *at);
        if now.duration_since(last) < PAUSE {
            return None;
        }
        self.look(now);
        let pause = if self.is_terminal { PAUSE } else { MINUTE };
        if now.duration_since(self.drawn.unwrap_or(self.start)) < pause {
            return None;
        }
        self.drawn = Some(now);
        Some(self.line())
    }

    /// Leaves the terminal as it was.
    pub fn end(&self) {
        if self.is_terminal && self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }

    /// Returns how many targets came to each of these statuses, and to any other; in the words of the API's summary.
    pub fn outcomes(&self, statuses: &[&str]) -> Map<String, Value> {
        let none = statuses.iter().map(|status| ((*status).to_owned(), 0.into()));
        let counted = self.outcomes.iter().map(|(status, count)| match status.as_str() {
            "duplicate" => ("duplicates".to_owned(), (*count).into()),
            _ => (status.clone(), (*count).into()),
        });
        let total = ("total".to_owned(), self.settled.into());
        std::iter::once(total).chain(none).chain(counted).collect()
    }

    pub fn all_good(&self) -> bool {
        self.outcomes.keys().all(|status| self.is_good(status))
    }

    pub fn is_good(&self, status: &str) -> bool {
        GOOD.contains(&status) || self.accepted.iter().any(|accepted| accepted == status)
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

    /// Returns the number of targets that have a result now.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Returns the number of targets that had a result before this run.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    fn line(&self) -> String {
        let passed = self.settled + self.skipped();
        let bar = self.total.filter(|total| *total > 0).map(|total| {
            let full = (passed.min(total) * WIDTH / total) as usize;
            let left = total.saturating_sub(passed) as f64 / self.recent_rate().max(f64::MIN_POSITIVE);
            // An estimate of more than 100 hours says nothing.
            let left = if self.settled > 0 && left < 360_000.0 {
                format!(" {left:.0} s left,")
            } else {
                String::new()
            };
            let percent = passed.min(total) * 100 / total;
            format!("{}{} {percent:>3} %,{left} ", "━".repeat(full), "·".repeat(WIDTH as usize - full))
        });
        let (bar, rate) = (bar.unwrap_or_default(), self.recent_rate());
        let line = format!("{bar}{} sent, {rate:.0}/s: {}", self.settled, self.counts());
        match line.char_indices().nth(COLUMNS) {
            Some(_) if self.is_terminal => line.chars().take(COLUMNS - 1).chain(['…']).collect(),
            _ => line,
        }
    }

    fn look(&mut self, now: Instant) {
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((now, self.settled));
    }

    /// Since the oldest look that is remembered.
    fn recent_rate(&self) -> f64 {
        match (self.looks.front(), self.looks.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                (after - before) as f64 / to.duration_since(*from).as_secs_f64()
            }
            _ => self.rate(),
        }
    }

    fn rate(&self) -> f64 {
        self.settled as f64 / self.start.elapsed().as_secs_f64().max(0.001)
    }

    fn counts(&self) -> String {
        let one = |(status, count): (&String, &u64)| {
            format!("{count} {}", terminal::printable(&status.replace('_', " ")))
        };
        if self.outcomes.is_empty() {
            return "nothing yet".to_owned();
        }
        self.outcomes.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// How often it was pressed. Cheap to clone.
#[derive(Clone)]
pub struct StopSignal(watch::Receiver<u32>);

impl StopSignal {
    /// From now on Ctrl-C does not end the program by itself.
    pub fn listen() -> Self {
        let (pressed, stop) = watch::channel(0);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                pressed.send_modify(|count| *count += 1);
                if *pressed.borrow() == 1 {
                    // Over the progress line.
                    let told = "stopping: what is in flight is waited for; Ctrl-C again ends at once";
                    let _ = writeln!(std::io::stderr(), "\r{told}");
                }
            }
        });
        Self(stop)
    }

    /// Completes once it was pressed this many times.
    pub async fn pressed(&mut self, times: u32) {
        if self.0.wait_for(|count| *count >= times).await.is_err() {
            // There are no signals here.
            std::future::pending::<()>().await;
        }
    }

    pub fn is_pressed(&self) -> bool {
        *self.0.borrow() > 0
    }
}

/// Returns the command that goes on where this one ended.
pub fn how_to_go_on(has_results: bool) -> String {
    if !has_results {
        return "it cannot be continued: without --results, there is no record of the targets that were reached"
            .to_owned();
    }
    format!("to continue, run:\n  {}", resuming(std::env::args_os()))
}

fn resuming(arguments: impl Iterator<Item = OsString>) -> String {
    let mut words = Vec::new();
    let mut variable = None;
    for argument in arguments {
        let argument = argument.to_string_lossy().into_owned();
        let secret = |flag: &str| match flag {
            "--api-key" => Some("$PUSHLET_API_KEY"),
            "--password" => Some("$PUSHLET_PASSWORD"),
            _ => None,
        };
        // Secrets are not to be printed.
        if let Some(variable) = variable.take() {
            words.push(format!("\"{variable}\""));
        } else if let Some((flag, variable)) =
            argument.split_once('=').and_then(|(flag, _)| Some((flag, secret(flag)?)))
        {
            words.push(format!("{flag}=\"{variable}\""));
        } else {
            variable = secret(&argument);
            words.push(quoted(&argument));
        }
    }
    if !words.iter().any(|word| word == "--resume") {
        words.push("--resume".to_owned());
    }
    words.join(" ")
}

/// As a shell reads it as one word.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(accepted: &[&str]) -> ProgressDisplay {
        let accepted = accepted.iter().map(|status| (*status).to_owned()).collect();
        ProgressDisplay {
            is_terminal: true,
            ..ProgressDisplay::new(Some(1_000_000), Arc::default(), accepted)
        }
    }

    #[test]
    fn the_line_fits_a_terminal() {
        let mut progress = progress(&[]);
        for status in
            ["delivered", "unregistered", "credential_rejected", "unavailable", "throttled", "failed"]
        {
            (0..100_000).for_each(|_| progress.count(status));
        }
        let line = progress.line();
        assert!(line.chars().count() <= COLUMNS && line.ends_with('…'), "{line}");
        assert!(line.contains(" 60 %"), "{line}");
    }

    #[test]
    fn the_rate_is_that_of_the_last_looks() {
        let mut progress = progress(&[]);
        let start = progress.start;
        // 1,000 a second at first, 10 a second for the last 25 looks.
        for look in 0..100 {
            progress.settled += if look < 70 { 200 } else { 2 };
            progress.look(start + PAUSE * look);
        }
        assert!((progress.recent_rate() - 10.0).abs() < 0.01, "{}", progress.recent_rate());
        assert!(progress.looks.len() <= LOOKS);
    }

    #[test]
    fn without_a_terminal_there_is_a_line_a_minute() {
        let mut progress = ProgressDisplay { is_terminal: false, ..progress(&[]) };
        let (start, mut lines) = (progress.start, Vec::new());
        // 10 targets a second; the third minute has none.
        for tick in 1..=5 * 180 {
            let now = start + PAUSE * tick;
            if tick <= 5 * 120 {
                (0..2).for_each(|_| progress.count("delivered"));
            }
            lines.extend(progress.due(now).map(|line| (now.duration_since(start).as_secs(), line)));
        }
        let times: Vec<u64> = lines.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, [60, 120, 180]);
        assert!(lines[0].1.contains("600 sent, 10/s") && lines[1].1.contains("1200 sent, 10/s"), "{lines:?}");
        // The rate and the time that is left are those of the last seconds, not of the whole run.
        assert!(lines[2].1.contains("1200 sent, 0/s") && !lines[2].1.contains("left"), "{lines:?}");
        assert!(lines.iter().all(|(_, line)| !line.contains('\u{1b}')), "{lines:?}");
    }

    #[test]
    fn a_terminal_is_redrawn_five_times_a_second() {
        let mut progress = progress(&[]);
        let start = progress.start;
        let drawn =
            (1..=1000).filter(|tick| progress.due(start + Duration::from_millis(10) * *tick).is_some());
        assert_eq!(drawn.count(), 50);
    }

    #[test]
    fn what_the_caller_accepts_is_good() {
        let (mut strict, mut lenient) = (progress(&[]), progress(&["unregistered"]));
        for progress in [&mut strict, &mut lenient] {
            progress.count("delivered");
            progress.count("unregistered");
        }
        assert!(!strict.all_good() && lenient.all_good());
        lenient.count("rejected");
        assert!(!lenient.all_good());
    }

    #[test]
    fn the_command_is_the_same_without_secrets() {
        let words =
            ["pushlet", "send", "--body", "It's $5", "--api-key", "pushlet_1_x", "--password=s", "t.txt"];
        assert_eq!(
            resuming(words.into_iter().map(OsString::from)),
            r#"pushlet send --body 'It'\''s $5' --api-key "$PUSHLET_API_KEY" --password="$PUSHLET_PASSWORD" t.txt --resume"#
        );
        let again = ["pushlet", "send", "--resume"];
        assert_eq!(resuming(again.into_iter().map(OsString::from)), "pushlet send --resume");
    }
}
