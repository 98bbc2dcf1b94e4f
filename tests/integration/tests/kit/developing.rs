//! `pushlet dev`: what an author sees of the pushes of a provider while it is written.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use pushlet_sandbox::BUILT_IN;

use super::mistakes::with;
use crate::guests::fixture::component;
use crate::harness::{Directory, wait_for};
use crate::upload::PROGRAM;

/// A running `pushlet dev`. It is killed when this is dropped.
struct Dev {
    child: Child,
    printed: Arc<Mutex<String>>,
    /// Bytes of what was printed that were read.
    read: usize,
}

impl Dev {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("dev").args(arguments).args(["--listen", "127.0.0.1:0"]).current_dir(folder);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let printed = Arc::<Mutex<String>>::default();
        let (lines, stdout) = (printed.clone(), BufReader::new(child.stdout.take().unwrap()));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let mut printed = lines.lock().unwrap();
                printed.push_str(&line);
                printed.push('\n');
            }
        });
        Self { child, printed, read: 0 }
    }

    /// Waits for a line, and returns all that was printed since the last call, up to it.
    async fn until(&mut self, line: &str) -> String {
        let (printed, read) = (self.printed.clone(), self.read);
        let what = format!("the line {line}");
        let text = wait_for(&what, async || {
            let printed = printed.lock().unwrap();
            let new = &printed[read..];
            let ended = self.child.try_wait().unwrap().is_some();
            let end = new.find(&format!("\n{line}\n")).map(|place| place + line.len() + 2);
            assert!(end.is_some() || !ended, "it ended:\n{printed}");
            end.map(|end| new[..end].to_owned())
        });
        let text = text.await;
        self.read += text.len();
        text
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const WAITING: &str = "-- waiting for a change";

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_component_and_of_the_answers_is_seen_at_work() {
    let directory = Directory::new();
    let file = directory.path().join("acme.wasm");
    let answers = directory.path().join("answers.json");
    std::fs::write(&file, with("none")).unwrap();
    let mut dev = Dev::start(directory.path(), &["acme.wasm"]);

    let first = dev.until(WAITING).await;
    for line in [
        "acme 1 is active",
        "-- examples[0] to a1b2c3",
        "> POST https://push.example/news/a1b2c3 HTTP/2.0",
        "> authorization: Bearer 0123456789abcdef0123456789abcdef",
        "> content-type: application/json",
        "< 200",
        "= delivered",
    ] {
        assert!(first.lines().any(|printed| printed == line), "{line} is missing:\n{first}");
    }

    std::fs::write(&answers, r#"[{"token": "a1b2c3", "status": 410, "body": {"error": "gone"}}]"#).unwrap();
    let gone = dev.until(WAITING).await;
    assert!(gone.contains("\n< 410\n") && gone.contains("\n< {\"error\":\"gone\"}\n"), "{gone}");
    assert!(gone.contains("\n= unregistered") && !gone.contains("is active"), "{gone}");

    // The same answer, which this version takes for a success.
    std::fs::write(&file, with("always_delivered")).unwrap();
    let edited = dev.until(WAITING).await;
    assert!(edited.contains("acme 1 is active\n"), "{edited}");
    assert!(edited.contains("\n< 410\n") && edited.contains("\n= delivered\n"), "{edited}");

    std::fs::write(&file, with("example_refused")).unwrap();
    let refused = dev.until(WAITING).await;
    assert!(refused.contains("\n! examples[0] of the manifest: it is refused: it is wrong"), "{refused}");
    assert!(!refused.contains("\n> POST"), "{refused}");

    std::fs::write(&file, with("none")).unwrap();
    let healed = dev.until(WAITING).await;
    assert!(healed.contains("\n= unregistered"), "{healed}");
    std::fs::write(&answers, "[{\"status\": 99}]").unwrap();
    let unusable = dev.until(WAITING).await;
    assert!(unusable.contains("rule 0: status must be 200 to 599"), "{unusable}");
    assert!(unusable.contains("\n= delivered\n"), "{unusable}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_built_when_a_source_changes() {
    let directory = Directory::new();
    let source = directory.path().join("source");
    std::fs::write(&source, with("none")).unwrap();
    let build = "test -s source || { echo nothing to build; exit 3; }; cp source made.wasm";
    let mut dev = Dev::start(directory.path(), &[".", "--build", build]);
    let first = dev.until(WAITING).await;
    assert!(first.contains("made.wasm, ") && first.contains("\n= delivered\n"), "{first}");

    std::fs::write(&source, "").unwrap();
    let failed = dev.until(WAITING).await;
    assert!(failed.contains("\nnothing to build\n"), "{failed}");
    assert!(failed.contains("\n! the build failed (exit status: 3)\n"), "{failed}");
    assert!(!failed.contains("\n> POST"), "{failed}");

    std::fs::write(&source, with("panics_with_words")).unwrap();
    let broken = dev.until(WAITING).await;
    let why = "! examples[0] of the manifest: decode of an answer of status 503";
    let told = broken.lines().find(|line| line.starts_with(why)).unwrap_or_else(|| panic!("{broken}"));
    assert!(told.contains("before that it printed: about to read 0 bytes"), "{told}");
}

/// What it printed when it was uploaded is left out.
#[test]
fn what_a_provider_prints_is_shown_with_its_push() {
    let directory = Directory::new();
    let file = directory.path().join("echo.wasm");
    std::fs::write(&file, component("echo")).unwrap();
    let mut command = Command::new(PROGRAM);
    let output = command.arg("dev").arg(&file).args(["--once", "--listen", "127.0.0.1:0"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(printed.iter().any(|line| line.contains("id: \"echo-0\"")), "{text}");
    assert!(printed.iter().all(|line| !line.contains("id: \"example\"")), "{text}");
    // It takes the answer for a refusal.
    assert!(text.contains("\n= rejected ") && output.status.code() == Some(1), "{text}");
}

/// Credentials of every kind are made, and every host, that of the tokens too, is the recorder.
#[test]
fn the_built_in_providers_reach_the_recorder_with_credentials_that_were_thrown_away() {
    for (name, bytes) in BUILT_IN {
        let directory = Directory::new();
        let file = directory.path().join("component.wasm");
        std::fs::write(&file, bytes).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("dev").arg(&file).args(["--once", "--listen", "127.0.0.1:0"]);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        if ["apns-binary", "smpp"].contains(name) {
            assert!(text.contains("\n! it speaks over a byte stream"), "{name}: {text}");
            assert_eq!(output.status.code(), Some(1), "{name}");
            continue;
        }
        let examples = text.matches("\n-- examples[").count();
        let requests = text.matches("\n> POST https://").count();
        assert!(examples > 0 && requests >= examples, "{name}: {text}");
        assert!(!text.contains("\n= unavailable") && !text.contains("\n! "), "{name}: {text}");
        if *name == "fcm" {
            assert!(text.contains("> POST https://oauth2.googleapis.com/token"), "{text}");
            assert!(text.contains("\n< 200 (access token)\n"), "{text}");
            assert!(text.contains("\n> authorization: Bearer recorded-token\n"), "{text}");
        }
    }
}
