//! A process that writes is killed at some point, 200 times over; then what it acknowledged is there, and
//! nothing is there in part.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::storage::from_unix;
use super::tests::{Folder, application, key, secrets, version};
use super::*;

const ROUNDS: u64 = 200;
const FOLDER: &str = "PUSHLET_TEST_CRASH_FOLDER";
const FIRST: &str = "PUSHLET_TEST_CRASH_FIRST";
const SEED: &str = "PUSHLET_TEST_SEED";
const DONE: &str = "done ";
const REPORTS: usize = 3;

/// All that a registry holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct State {
    /// By id: the number of the step that put it, as its readable part has it and as its secrets have it.
    applications: BTreeMap<String, (String, String)>,
    feedback: BTreeSet<(String, String)>,
    /// By the number of the step that added it.
    components: BTreeSet<String>,
}

/// What the writer does; the same for the same number.
enum Step {
    Put(String),
    Remove(String),
    Report(String),
    Add(u64),
    Drop(u64),
}

fn step(number: u64) -> Step {
    let id = format!("app-{}", number % 7);
    match number % 6 {
        0 | 3 => Step::Put(id),
        1 => Step::Remove(id),
        2 => Step::Report(id),
        4 => Step::Add(number),
        _ => Step::Drop(number.saturating_sub(13)),
    }
}

/// Larger than a page of the file.
fn component(number: u64) -> Vec<u8> {
    format!("{number} ").repeat(3000).into_bytes()
}

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

impl State {
    fn after(steps: u64) -> Self {
        let mut state = Self::default();
        let mut reports: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for number in 0..steps {
            match step(number) {
                Step::Put(id) => {
                    state.applications.insert(id, (number.to_string(), number.to_string()));
                }
                Step::Remove(id) => {
                    state.applications.remove(&id);
                    reports.remove(&id);
                }
                Step::Report(id) if state.applications.contains_key(&id) => {
                    let own = reports.entry(id).or_default();
                    own.push(number.to_string());
                    own.drain(..own.len().saturating_sub(REPORTS));
                }
                Step::Report(_) => {}
                Step::Add(number) => drop(state.components.insert(number.to_string())),
                Step::Drop(number) => drop(state.components.remove(&number.to_string())),
            }
        }
        let pairs = |(id, own): (String, Vec<String>)| own.into_iter().map(move |token| (id.clone(), token));
        state.feedback = reports.into_iter().flat_map(pairs).collect();
        state
    }

    /// What is in the folder.
    fn kept(folder: &Path) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(FileStorage::open(folder).unwrap());
        let registry = Registry::open(storage.clone(), key(), REPORTS).unwrap();
        let mut state = Self::default();
        for entry in registry.list(&tenant()) {
            let secrets = registry.secrets(&tenant(), &entry).unwrap();
            let secret = String::from_utf8(secrets.reveal("secret").unwrap().to_vec()).unwrap();
            let readable = entry.description.settings.first().unwrap().1.clone();
            state.applications.insert(entry.id.clone(), (readable, secret));
        }
        for (key, value) in storage.scan(Table::Feedback, &RecordKey::new(&[])).unwrap() {
            let [_, id, _] = key.parts().unwrap();
            state.feedback.insert((id, DeadToken::read(&value).unwrap().device_token));
        }
        for version in registry.versions() {
            let component = registry.component(&tenant(), &version.name, &version.digest).unwrap();
            let text = String::from_utf8(component.unwrap()).unwrap();
            state.components.insert(text.split(' ').next().unwrap().to_owned());
        }
        let files = storage.scan(Table::Components, &RecordKey::new(&[])).unwrap().len();
        assert_eq!(files, state.components.len(), "a component without its version");
        state
    }
}

fn take(registry: &Registry, number: u64) {
    let text = number.to_string();
    match step(number) {
        Step::Put(id) => drop(registry.put(&tenant(), application(&id, &text), &secrets(&text), 10).unwrap()),
        Step::Remove(id) => drop(registry.remove(&tenant(), &id)),
        Step::Report(id) => {
            if let Ok(entry) = registry.get(&tenant(), &id) {
                entry.feedback.report(&text, from_unix(number), None);
                registry.flush().unwrap();
            }
        }
        Step::Add(number) => {
            let component = component(number);
            registry.put_component(&version(&tenant(), &component, number), &component).unwrap();
        }
        Step::Drop(number) => {
            let digest = version(&tenant(), &component(number), 0).digest;
            registry.remove_component(&tenant(), "webhook", &digest).unwrap();
        }
    }
}

/// The process that is killed; nothing where the other test did not start it.
#[test]
fn writer() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else { return };
    let storage = Arc::new(FileStorage::open(Path::new(&folder)).unwrap());
    let registry = Registry::open(storage, key(), REPORTS).unwrap();
    let mut output = std::io::stdout();
    for number in first.parse().unwrap().. {
        take(&registry, number);
        writeln!(output, "{DONE}{number}").unwrap();
    }
}

/// Starts the writer, kills it, and answers how many steps it acknowledged, all told.
fn round(folder: &Path, done: u64, random: &mut StdRng) -> u64 {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash_tests::writer", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(FIRST, done.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
    // Mostly in the midst of its work, sometimes at its start.
    let wanted = random.random_range(0..12_u32);
    // The first one stands behind the test's name.
    let acknowledged = |line: &String| line.contains(DONE);
    let mut count = lines.by_ref().filter(acknowledged).take(wanted as usize).count() as u64;
    std::thread::sleep(Duration::from_micros(random.random_range(0..6000)));
    writer.kill().unwrap();
    writer.wait().unwrap();
    count += lines.filter(acknowledged).count() as u64;
    assert!(count >= u64::from(wanted), "the writer ended by itself");
    done + count
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("{SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = Folder::new();
    let (mut done, mut unacknowledged) = (0, 0);
    for number in 0..ROUNDS {
        done = round(folder.path(), done, &mut random);
        let kept = State::kept(folder.path());
        // A step may be done and not yet acknowledged; no more than one.
        if kept != State::after(done) {
            let next = State::after(done + 1);
            assert_eq!(kept, next, "round {number}, {done} steps, {SEED}={seed}");
            done += 1;
            unacknowledged += 1;
        }
    }
    println!("{done} steps, {unacknowledged} times one that was not acknowledged");
    assert!(done > ROUNDS, "{done} steps");
}
