//! The commands for people, as processes, against a real server and the simulators.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pushlet_simulator::Service;
use serde_json::{Value, json};

use crate::harness::{DEVICE, Directory, Harness, expect, wait_until};
use crate::tenants::{admin, harness_with_operator, make};
use crate::upload::PROGRAM;

const DEAD: &str = "dead15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9";

/// The program, talking to this server.
fn program(harness: &Harness, line: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(line).args(["--server", &harness.server.url("")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs it; returns its exit code and all that it printed.
async fn run(harness: &Harness, line: &[&str]) -> (Option<i32>, String) {
    let output = output(program(harness, line)).await;
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// The JSON that a command prints, which must end well.
async fn shown(harness: &Harness, line: &[&str]) -> Value {
    let output = output(program(harness, &[line, &["--json"]].concat())).await;
    assert!(output.status.success(), "{line:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn file(directory: &Directory, name: &str, content: &str) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn credential(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_are_registered_shown_and_deleted() {
    let harness = Harness::new().await;
    let files = harness.simulator.credentials().clone();
    let p12 = credential("apns_p12", &files.apns_p12);
    let made = shown(&harness, &["app", "register", "shop", "--credential", &p12]).await;
    assert_eq!(made, expect(harness.server.get("/v1/applications/shop"), 200).await);
    let p8 = credential("apns_p8", &files.apns_p8);
    let (key, team) =
        (format!("apns_key_id={}", files.apns_key_id), format!("apns_team_id={}", files.apns_team_id));
    let topic = format!("apns_topic={}", files.apns_topic);
    let settings = ["--setting", &key, "--setting", &team, "--setting", &topic];
    let line = [&["app", "put", "news", "--credential", &p8, "--environment", "development"], &settings[..]];
    shown(&harness, &line.concat()).await;
    assert_eq!(
        shown(&harness, &["app", "list"]).await,
        expect(harness.server.get("/v1/applications"), 200).await
    );
    let (code, table) = run(&harness, &["app", "list"]).await;
    assert!(code == Some(0) && table.starts_with("ID ") && table.contains("\nnews "), "{table}");

    // Apple's channels: none, then one.
    assert_eq!(shown(&harness, &["app", "channels", "news"]).await["channels"], json!([]));
    let channels = harness.server.post("/v1/applications/news/channels");
    let channel = expect(channels.json(&json!({"message_storage_policy": 1})), 201).await;
    let listed = shown(&harness, &["app", "channels", "news"]).await;
    assert_eq!(listed, json!({"channels": [{"id": channel["id"]}]}));

    // What is reported dead is shown, and stays for those who ask next.
    let sent = run(&harness, &["send", "-a", "shop", "--body", "x", "--to", DEAD]).await;
    assert_eq!(sent.0, Some(3), "{}", sent.1);
    for _ in 0..2 {
        let feedback = shown(&harness, &["app", "feedback", "shop"]).await;
        assert_eq!(feedback["dead_tokens"][0]["device_token"], DEAD, "{feedback}");
    }
    let (code, table) = run(&harness, &["app", "feedback", "shop"]).await;
    assert!(code == Some(0) && table.contains(DEAD), "{table}");

    for (id, delete) in [("shop", "rm"), ("news", "delete")] {
        assert_eq!(run(&harness, &["app", delete, id, "--yes"]).await.0, Some(0));
        let (code, told) = run(&harness, &["app", "show", id]).await;
        assert!(code == Some(1) && told.contains("application_not_found"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_created_and_removed_by_these_names_too() {
    let harness = harness_with_operator("").await;
    let operator = |line: &[&'static str]| {
        let line = [line, &["--api-key", crate::tenants::ADMIN]].concat();
        let command = program(&harness, &line);
        async move {
            let output = output(command).await;
            (output.status.code(), text(&output.stdout) + &text(&output.stderr))
        }
    };
    let (code, told) = operator(&["tenant", "create", "acme"]).await;
    assert!(code == Some(0) && told.contains("api_key  pushlet_"), "{told}");
    assert_eq!(operator(&["tenant", "rm", "acme", "-y"]).await.0, Some(0));
    assert_eq!(operator(&["tenant", "show", "acme"]).await.0, Some(1));
}

/// Runs it on a terminal of 80 columns, whose user types this.
async fn on_a_terminal(command: &Command, typed: &'static str) -> (Option<i32>, String) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''"));
    let line = words.map(quoted).collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["-qefc", &format!("stty cols 80; {line}"), "/dev/null"]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = move || {
        let mut child = script.spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    (output.status.code(), text(&output.stdout))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_asked_before_something_is_deleted() {
    let harness = Harness::new().await;
    harness.register_apns("shop").await;
    let delete = |more: &[&'static str]| program(&harness, &[&["app", "rm", "shop"], more].concat());
    let exists = async || harness.server.get("/v1/applications/shop").send().await.unwrap().status() == 200;
    for typed in ["n\n", "\n", "shop\n"] {
        let (code, told) = on_a_terminal(&delete(&[]), typed).await;
        assert!(told.contains("Delete the application shop? [y/N]"), "{told}");
        assert!(code == Some(1) && told.contains("nothing was deleted"), "{code:?} {told}");
        assert!(exists().await, "{typed:?}");
    }
    let (code, told) = on_a_terminal(&delete(&[]), "y\n").await;
    assert!(code == Some(0) && !exists().await, "{code:?} {told}");
    harness.register_apns("shop").await;
    let (code, told) = on_a_terminal(&delete(&["--yes"]), "").await;
    assert!(code == Some(0) && !told.contains("Delete") && !exists().await, "{code:?} {told}");
}

/// The keys of an object, sorted.
fn keys(object: &Value) -> Vec<&String> {
    let mut keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_tokens_may_have_comments_quotes_and_other_targets() {
    let (harness, directory) = (Harness::new().await, Directory::new());
    harness.register_apns("shop").await;
    let token = |number: u8| format!("{number:02x}{}", &DEVICE[2..]);
    let (one, two, three) = (token(1), token(2), token(3));
    let lines = format!(
        "# exported today\n\n\u{feff}{one}\n{one}\n  \"{two}\"\r\n'{DEAD}'\n#{}\n\
         {{\"target\": \"{three}\", \"notification\": {{\"badge\": 7}}}}\n",
        token(4)
    );
    let (tokens, results) = (file(&directory, "tokens.txt", &lines), directory.path().join("results"));
    let base = ["send", "--application", "shop", "--body", "hello"];
    let with_results = ["--results", results.to_str().unwrap(), &tokens];
    let output = output(program(&harness, &[&base[..], &with_results, &["--json"]].concat())).await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["summary"]["total"], &told["summary"]["delivered"]), (&json!(5), &json!(3)), "{told}");
    assert_eq!(told["summary"]["duplicates"], 1, "{told}");
    // In the API's shape.
    let body = json!({"application_id": "shop", "notification": {"body": "x"}, "target": one, "validate_only": true});
    let api = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    assert_eq!(keys(&told["summary"]), keys(&api["summary"]));

    let sent = harness.received(Service::Apns);
    let to = |token: &str| sent.iter().filter(|push| push.path.ends_with(token)).count();
    assert_eq!([to(&one), to(&two), to(&three), to(DEAD), sent.len()], [1, 1, 1, 1, 4]);
    let badge = |token: &str| {
        sent.iter().find(|push| push.path.ends_with(token)).unwrap().body.contains("\"badge\":7")
    };
    assert!(badge(&three) && !badge(&one));
    let results = std::fs::read_to_string(&results).unwrap();
    let dead: Vec<&str> = results.lines().filter(|line| line.contains("\"unregistered\"")).collect();
    assert!(results.lines().count() == 5 && dead.len() == 1 && dead[0].contains(DEAD), "{results}");

    // What the caller accepts is no failure.
    let accepting = [&base[..], &["--ok", "unregistered", &tokens]].concat();
    assert_eq!(run(&harness, &accepting).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_same_application_and_text_are_resumed() {
    let (harness, directory) = (Harness::new().await, Directory::new());
    harness.register_apns("shop").await;
    harness.register_apns("news").await;
    let results = directory.path().join("results");
    let send = |app: &'static str, body: &'static str, more: &[&'static str]| {
        let line =
            ["send", "-a", app, "--body", body, "--to", DEVICE, "--results", results.to_str().unwrap()];
        program(&harness, &[&line[..], more].concat())
    };
    assert_eq!(output(send("shop", "hello", &[])).await.status.code(), Some(0));
    let again = output(send("shop", "hello", &[])).await;
    assert!(again.status.code() == Some(1) && text(&again.stderr).contains("--resume"), "{again:?}");
    for (app, body) in [("shop", "Hello"), ("news", "hello")] {
        let other = output(send(app, body, &["--resume"])).await;
        assert_eq!(other.status.code(), Some(1), "{other:?}");
        assert!(text(&other.stderr).contains("another application or notification"), "{other:?}");
    }
    let same = output(send("shop", "hello", &["--resume"])).await;
    assert_eq!(
        (same.status.code(), text(&same.stdout)),
        (Some(0), "1 target had a result already\nnothing to send\n".to_owned())
    );
    assert_eq!(harness.received(Service::Apns).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_two_spellings_is_not_sent_again_by_a_resume() {
    let (harness, directory) = (Harness::new().await, Directory::new());
    harness.register_apns("shop").await;
    let tokens = file(&directory, "tokens.txt", &format!("{DEVICE}\n{}\n", DEVICE.to_uppercase()));
    let results = directory.path().join("results");
    let line =
        ["send", "-a", "shop", "--body", "x", "--results", results.to_str().unwrap(), "--resume", &tokens];
    let (code, told) = run(&harness, &line).await;
    assert!(code == Some(0) && told.contains("1 delivered, 1 duplicate"), "{code:?} {told}");
    let (code, told) = run(&harness, &line).await;
    assert!(code == Some(0) && told.starts_with("2 targets had a result already\n"), "{code:?} {told}");
    assert_eq!(harness.received(Service::Apns).len(), 1);
}

/// A server that takes 1,000 pushes a second of this tenant, an application, and a file with this many tokens.
async fn slow(directory: &Directory, tokens: usize) -> (Harness, String, String) {
    let harness = harness_with_operator("").await;
    let key = make(&harness.server, "acme", &json!({"limits": {"pushes_per_second": 1000}})).await;
    let pem = text(&harness.file(&harness.simulator.credentials().apns_pem));
    let request = harness.server.put("/v1/applications/shop").bearer_auth(&key);
    expect(request.json(&json!({"provider": "apns", "credentials": {"apns_pem": pem}})), 200).await;
    let lines: String = (0..tokens).map(|number| format!("{number:064x}\n")).collect();
    let file = file(directory, "tokens.txt", &lines);
    (harness, key, file)
}

fn interrupt(id: u32) {
    let id = id.to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_interrupt_the_printed_command_reaches_the_rest() {
    const TOKENS: usize = 7000;
    let directory = Directory::new();
    let (harness, key, tokens) = slow(&directory, TOKENS).await;
    let results: PathBuf = directory.path().join("results file");
    let line = ["send", "--application=shop", "--body", "It's $HOME", "--results", results.to_str().unwrap()];
    let mut command = program(&harness, &[&line[..], &[&tokens, "--api-key", &key]].concat());
    let child = command.spawn().unwrap();
    let id = child.id();
    wait_until("300 pushes arrive", async || harness.simulator.counts().apns.requests >= 300).await;
    interrupt(id);
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let (out, told) = (text(&ended.stdout), text(&ended.stderr));
    assert_eq!(ended.status.code(), Some(130), "{out}{told}");
    let sent = harness.received(Service::Apns).len();
    assert!(out.starts_with(&format!("{sent} targets in ")) && sent < TOKENS, "{sent} {out}");
    assert!(!told.contains(&key), "{told}");
    // As the user would: the command from the terminal, the key from the variable that it names.
    let resume = told.lines().last().unwrap().trim().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c", &resume]).env("PUSHLET_API_KEY", &key);
    let resumed = output(shell).await;
    assert_eq!(resumed.status.code(), Some(0), "{resume}: {resumed:?}");
    assert!(text(&resumed.stdout).contains(&format!("{sent} targets had a result already")), "{resumed:?}");
    let mut paths: Vec<String> = harness.received(Service::Apns).into_iter().map(|push| push.path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!((harness.received(Service::Apns).len(), paths.len()), (TOKENS, TOKENS), "each target once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_send_early_has_code_1_and_says_how_it_goes_on() {
    let directory = Directory::new();
    let (harness, key, tokens) = slow(&directory, 9000).await;
    let line = ["send", "-a", "shop", "--body", "x", &tokens, "--api-key", &key];
    // Nothing to go on with, where no results are written.
    let child = program(&harness, &line).spawn().unwrap();
    wait_until("100 pushes arrive", async || harness.simulator.counts().apns.requests >= 100).await;
    let suspend = harness.server.put("/v1/tenants/acme").json(&json!({"suspended": true}));
    expect(admin(suspend), 200).await;
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let told = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("(tenant_suspended)") && told.contains("without --results"), "{told}");

    let (code, told) = run(&harness, &line).await;
    assert!(code == Some(1) && told.contains("tenant_suspended"), "{code:?} {told}");
    let nowhere = ["send", "-a", "shop", "--body", "x", "--to", "y", "--server", "http://127.0.0.1:9"];
    let mut command = Command::new(PROGRAM);
    let ended = output({
        command.args(nowhere);
        command
    })
    .await;
    let told = text(&ended.stderr);
    assert!(ended.status.code() == Some(1) && told.contains("is `pushlet serve` running there?"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_there_is_one_line_that_fits() {
    let directory = Directory::new();
    let (harness, key, tokens) = slow(&directory, 3000).await;
    let line = ["send", "-a", "shop", "--body", "x", &tokens, "--api-key", &key];
    let (code, drawn) = on_a_terminal(&program(&harness, &line), "").await;
    assert_eq!(code, Some(0), "{drawn}");
    let lines: Vec<&str> = drawn.split("\u{1b}[2K").skip(1).collect();
    let shown = |line: &str| {
        line.replace("\u{1b}[?7l", "").replace("\u{1b}[?7h", "").trim_end_matches('\r').to_owned()
    };
    let (last, lines) = lines.split_last().unwrap();
    assert!(lines.len() > 2, "{drawn:?}");
    for line in lines.iter().map(|line| shown(line)) {
        assert!(line.chars().count() < 80 && !line.contains('\n'), "{line:?}");
        assert!(line.contains(" %,") && line.contains(" sent, "), "{line:?}");
    }
    assert!(lines.iter().any(|line| line.contains(" s left,")), "{drawn:?}");
    // It is gone before the summary.
    assert!(shown(last).starts_with("3000 targets in "), "{last:?}");
}

/// The help is where people look the codes up.
#[tokio::test(flavor = "multi_thread")]
async fn the_help_has_the_exit_codes() {
    let harness = Harness::new().await;
    let (code, help) = run(&harness, &["send", "--help"]).await;
    assert_eq!(code, Some(0));
    let (_, table) = help.split_once("Exit codes:\n").unwrap();
    let codes: Vec<&str> = table.lines().map_while(|line| line.split_whitespace().next()).collect();
    assert_eq!(codes, ["0", "1", "2", "3", "130"], "{help}");
    for word in ["--ok", "--to", "--resume", "--results", "--json"] {
        assert!(help.contains(word), "{word}");
    }
}
