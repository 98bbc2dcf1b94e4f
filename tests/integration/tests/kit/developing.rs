//! `pushlet dev`: what an author sees of the pushes of a provider while it is written.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
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

    // What is built is not built again.
    drop(dev);
    let mut dev = Dev::start(directory.path(), &[".", "--build", "echo once more; exit 3"]);
    let again = dev.until(WAITING).await;
    assert!(again.contains("made.wasm, ") && !again.contains("once more"), "{again}");
    drop(dev);
    std::fs::File::open(&source).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let mut dev = Dev::start(directory.path(), &[".", "--build", build]);
    assert!(dev.until(WAITING).await.contains("\n$ test -s source"));

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

/// What a message centre says, for a text to one number that it refuses.
const MESSAGE_CENTRE: &str = r#"[
    {"received": "........ 00000002", "length": {"at": 0, "bytes": 4},
     "send": "00000015 80000002 00000000 {12..16} 'SMSC' 00"},
    {"received": "........ 00000004", "length": {"at": 0, "bytes": 4}, "token": "+491700000000",
     "send": "00000010 80000004 0000000b {12..16}"},
    {"received": "........ 00000004", "length": {"at": 0, "bytes": 4},
     "send": "00000013 80000004 00000000 {12..16} 'a1' 00"}
]"#;

fn dev_once(name: &str, bytes: &[u8], answers: &str) -> (String, Option<i32>) {
    let directory = Directory::new();
    std::fs::write(directory.path().join("answers.json"), answers).unwrap();
    std::fs::write(directory.path().join(name), bytes).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["dev", name, "--once", "--listen", "127.0.0.1:0"]).current_dir(directory.path());
    let output = command.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

fn built_in(wanted: &str) -> &'static [u8] {
    BUILT_IN.iter().find(|(name, _)| *name == wanted).unwrap().1
}

#[test]
fn bytes_of_a_protocol_of_its_own_are_shown_and_answered() {
    // The binary protocol accepts without a word.
    let (text, code) = dev_once("apns-binary.wasm", built_in("apns-binary"), "[]");
    let examples = text.matches("\n-- examples[").count();
    assert!(examples > 0 && text.matches("\n= delivered").count() == examples, "{text}");
    assert!(text.contains("\n> connection 1: client certificate "), "{text}");
    assert!(text.contains("\n< connection 1: no rule fits\n") && code == Some(0), "{text}");

    let answers = MESSAGE_CENTRE.replace("+491700000000", "nobody");
    let (text, code) = dev_once("smpp.wasm", built_in("smpp"), &answers);
    assert_eq!(text.matches("\n= delivered").count(), 2, "{text}");
    for line in [
        "> connection 1: opened to push.example",
        // The bind request has the secret that was thrown away.
        "< connection 1: 21 bytes",
        "<   00000015 80000002 00000000 00000001  ................",
        "<   534d5343 00                          SMSC.",
        "< connection 2: 19 bytes",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line} is missing:\n{text}");
    }
    assert!(text.contains("  pushlet.01234567") || text.contains("  pushlet.") && code == Some(0), "{text}");

    // Both examples are for this number.
    let (text, code) = dev_once("smpp.wasm", built_in("smpp"), &MESSAGE_CENTRE.replace("+49", "49"));
    assert_eq!(text.matches("\n= rejected ").count(), 2, "{text}");
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn a_byte_stream_is_greeted_and_closed_as_the_file_says() {
    let guest = component("byte_stream");
    let echo = r#"[{"received": "01", "length": {"at": 0, "bytes": 1}, "send": "07"}]"#;
    let (text, code) = dev_once("guest.wasm", guest, echo);
    assert!(text.contains("\n>   01  ") && text.contains("\n<   07  "), "{text}");
    assert!(text.contains("\n= delivered") && code == Some(0), "{text}");

    // It takes any byte for an answer.
    let (text, code) = dev_once("guest.wasm", guest, r#"[{"send": "'hello'", "close": true}]"#);
    assert!(text.contains("  hello\n") && text.contains("\n< connection 1: closed\n"), "{text}");
    assert!(text.contains("\n= delivered") && code == Some(0), "{text}");

    let (text, code) = dev_once("guest.wasm", guest, r#"[{"close": true}]"#);
    assert!(text.contains("\n< connection 1: closed\n") && !text.contains("\n<   "), "{text}");
    assert!(!text.contains("\n= delivered") && code == Some(1), "{text}");

    let (text, _) = dev_once("guest.wasm", guest, r#"[{"send": "0"}]"#);
    assert!(text.contains("\n! answers.json: ") && text.contains("two hex digits"), "{text}");
}

/// Names and inodes of the files with the compiled code of uploaded components.
fn compiled(cache: &Path) -> Vec<(String, u64)> {
    let files = std::fs::read_dir(cache.join("pushlet/components")).unwrap().map(Result::unwrap);
    let files = files.map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().ino()));
    files.filter(|(name, _)| name.matches('.').count() == 2).collect()
}

#[test]
fn a_component_is_compiled_once_for_all_commands() {
    let directory = Directory::new();
    std::fs::write(directory.path().join("acme.wasm"), with("none")).unwrap();
    let run = |line: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(line.split(' ')).current_dir(directory.path()).env("XDG_CACHE_HOME", directory.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("provider call describe acme.wasm");
    let first = compiled(directory.path());
    assert_eq!(first.len(), 1, "{first:?}");
    run("provider call encode acme.wasm");
    run("dev acme.wasm --once --listen 127.0.0.1:0");
    assert_eq!(compiled(directory.path()), first);
    // What somebody changed is compiled again, and so is what is measured.
    let file = directory.path().join("pushlet/components").join(&first[0].0);
    let code = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&code[..code.len() / 2], &[0], &code[code.len() / 2 + 1..]].concat()).unwrap();
    run("provider call describe acme.wasm");
    assert!(std::fs::read(&file).unwrap() == code);
    let second = compiled(directory.path());
    run("provider check acme.wasm --rule deterministic");
    assert_ne!(compiled(directory.path()), second);
}
