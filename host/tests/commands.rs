//! The program's commands that need no server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], output: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushlet"));
    command.args(arguments).stdout(output).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell], Stdio::piped());
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("pushlet") && text.contains("check-config"), "{shell}");
    }
}

/// Runs it with these variables; returns its exit code and what it said. It must end by itself.
fn told(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushlet"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..600 {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), text)
}

#[test]
fn an_override_of_nothing_is_told_before_the_start_and_at_the_start() {
    let path = std::env::temp_dir().join(format!("pushlet-config-{}.toml", uuid::Uuid::new_v4()));
    let file = path.to_str().unwrap();
    for (text, expected) in [
        ("[endpoints.nope]\nproduction = \"https://x\"", "endpoints.nope: there is no provider nope"),
        ("[endpoints.apn]\nproduction = \"https://x\"", "did you mean apns?"),
        (
            "[endpoints.apns.chanels]\nproduction = \"https://x\"",
            "apns has no endpoint chanels; did you mean channels?",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        for command in ["check-config", "serve"] {
            let (code, told) = told(&[command, "--config", file, "--listen", "127.0.0.1:0"], &[]);
            assert!(code == Some(1) && told.contains(expected), "{command} {text}: {code:?} {told}");
        }
    }
    std::fs::write(
        &path,
        "[endpoints.apns]\nproduction = \"https://x\"\n[endpoints.\"acme/nope\"]\nproduction = \"https://y\"",
    )
    .unwrap();
    let (code, told) = told(&["check-config", "--config", file], &[]);
    assert!(code == Some(0) && told.contains("https://x"), "{told}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn flags_and_values_that_mean_nothing_are_refused() {
    for (line, expected) in [
        (
            &["serve", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:1"][..],
            "cannot be used multiple times",
        ),
        (&["check-config", "--listen=127.0.0.1:0", "--listen=127.0.0.1:0"], "cannot be used multiple times"),
        (&["serve", "--listen=127.0.0.1:0", "--log-format", "xml"], "invalid value 'xml'"),
        (&["serve", "--log-formt", "json"], "--log-format"),
        (&["serve", "--endpoints-apns-staging", "https://x"], "--endpoints-apns-staging"),
    ] {
        let (code, told) = told(line, &[]);
        assert!(code == Some(2) && told.contains(expected), "{line:?}: {code:?} {told}");
    }
    for (name, value, expected) in [
        ("PUSHLET_LOG_FORMAT", "xml", "PUSHLET_LOG_FORMAT: log.format: expected"),
        ("PUSHLET_LISTEN", "9292", "PUSHLET_LISTEN: listen: expected an address and port"),
        ("PUSHLET_LISTNE", "127.0.0.1:0", "PUSHLET_LISTNE: unknown variable; did you mean PUSHLET_LISTEN?"),
        ("PUSHLET_DELIVERY_RESEND_UNKNOWN", "maybe", "delivery.resend_unknown: expected"),
    ] {
        let (code, told) = told(&["check-config"], &[(name, value)]);
        assert!(code == Some(1) && told.contains(expected), "{name}={value}: {code:?} {told}");
    }
}

/// What Kubernetes puts into each container of a namespace with services `pushlet` and `pushlet-metrics`, and the
/// variable by which this program was once built.
#[test]
fn variables_of_the_surroundings_do_no_harm_and_those_of_the_operator_are_read() {
    let variables = [
        ("PUSHLET_SERVICE_HOST", "10.0.0.1"),
        ("PUSHLET_SERVICE_PORT", "80"),
        ("PUSHLET_SERVICE_PORT_HTTP", "80"),
        ("PUSHLET_PORT", "tcp://10.0.0.1:80"),
        ("PUSHLET_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("PUSHLET_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("PUSHLET_METRICS_SERVICE_HOST", "10.0.0.2"),
        ("PUSHLET_METRICS_PORT_9293_TCP_ADDR", "10.0.0.2"),
        ("PUSHLET_METRICS_LISTEN", "127.0.0.1:9293"),
    ];
    let (code, shown) = told(&["check-config"], &variables);
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("listen = \"127.0.0.1:9292\"") && shown.contains("listen = \"127.0.0.1:9293\""),
        "{shown}"
    );
    assert!(!shown.contains("10.0.0."), "{shown}");

    // The operator's folder is looked at when the program runs, and not only when it is built.
    let (code, shown) = told(&["check-config"], &[("PUSHLET_PROVIDERS_DIR", "/components")]);
    assert!(code == Some(0) && shown.contains("dir = \"/components\""), "{shown}");
    let (code, told) =
        told(&["serve", "--listen", "127.0.0.1:0"], &[("PUSHLET_PROVIDERS_DIR", "/no/such/folder")]);
    assert!(code == Some(1) && told.contains("providers.dir: /no/such/folder: No such file"), "{told}");
}

#[test]
fn an_output_that_takes_nothing_is_an_error_and_no_panic() {
    for arguments in [&["completions", "bash"][..], &["check-config"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = run(arguments, full.into());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with("pushlet: ") && told.contains("No space left"), "{arguments:?}: {told}");
    }
}

/// Runs `pushlet simulator` with these addresses; returns it, and what it printed up to its first blank line but one.
fn simulator(directory: &std::path::Path, control: &str) -> (std::process::Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushlet"));
    command.arg("simulator").arg("--simulator-dir").arg(directory);
    for listener in ["--simulator-apns", "--simulator-apns-production", "--simulator-google"] {
        command.args([listener, "127.0.0.1:0"]);
    }
    command.args(["--simulator-control", control]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (mut text, mut blank) = (String::new(), 0);
    while blank < 2 {
        let line = lines.next().expect("it ended");
        blank += usize::from(line.is_empty());
        text.push_str(&line);
        text.push('\n');
    }
    (child, text)
}

#[test]
fn the_simulators_listen_where_they_are_told_and_say_how_to_use_them() {
    let directory = std::env::temp_dir().join(format!("pushlet-simulator-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&directory).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (mut child, text) = simulator(&directory, &free);
    assert!(text.contains(&format!("http://{free} tells more")), "{text}");
    let toml = text.split_once("\n\n").unwrap().1;
    // Three listeners besides that of the page, each with a port of its own, none of them the default.
    let mut ports: Vec<&str> = toml
        .lines()
        .filter_map(|line| line.strip_suffix('"')?.rsplit_once("https://127.0.0.1:"))
        .map(|(_, port)| port)
        .collect();
    assert_eq!(ports.len(), 8, "{text}");
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() == 3 && !ports.contains(&"9443"), "{ports:?}");
    for address in ports.iter().map(|port| format!("127.0.0.1:{port}")).chain([free]) {
        std::net::TcpStream::connect(&address).unwrap();
    }
    // A server takes what was printed as it is.
    let file = directory.join("pushlet.toml");
    std::fs::write(&file, toml).unwrap();
    let (code, told) = told(&["check-config", "--config", file.to_str().unwrap()], &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    assert_eq!(code, Some(0), "{told}");
}

/// It bounds itself before it reads anything, so it can be looked at while it waits for a component.
#[cfg(target_os = "linux")]
#[test]
fn the_process_that_compiles_gives_its_powers_up() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pushlet"))
        .args(["compile", "--memory=1073741824", "--cpu=60"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/status", child.id());
    let status = || std::fs::read_to_string(&path).unwrap();
    let given_up = |status: &str| {
        let line = |wanted: &str| status.lines().any(|line| line.split_whitespace().eq(wanted.split(' ')));
        line("Seccomp: 2") && line("NoNewPrivs: 1") && line("CapPrm: 0000000000000000")
    };
    for _ in 0..600 {
        if given_up(&status()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let seen = status();
    // No component at all.
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(given_up(&seen), "{seen}");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!String::from_utf8(output.stderr).unwrap().contains("note: "));
}
