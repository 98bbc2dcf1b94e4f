//! The harness itself, as a program, measures a server that it knows only by an adapter file.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

const BENCH: &str = env!("CARGO_BIN_EXE_pushlet-bench");

/// An adapter for the harness's own relay: a real server, which sends each push to the sink over TLS.
fn adapter(name: &str, accepted: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("pushlet-bench-{}-{name}.toml", std::process::id()));
    let text = format!(
        r#"
name = "the relay"
command = [{BENCH:?}, "relay", '{{"listen":"127.0.0.1:{{port}}","apns":{{apns}},"ca":"{{ca}}"}}']
path = "/send_notification"
content_type = "application/x-www-form-urlencoded"
body = "device_token={{token}}&alert=hello"
accepted = '{accepted}'
"#
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// Whether it could be measured, and what was printed.
fn measure(name: &str, accepted: &str) -> (bool, String) {
    let adapter = adapter(name, accepted);
    let output = Command::new(BENCH).args(["peer", "--quick"]).arg(&adapter).output().unwrap();
    std::fs::remove_file(adapter).unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_server_is_measured_by_its_adapter() {
    let (success, text) = measure("good", r#""ok""#);
    assert!(success, "{text}");
    let line = text.lines().find(|line| line.starts_with("| the relay | peer |")).unwrap();
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let (rate, failed) = (cells[3].parse::<f64>().unwrap(), cells[cells.len() - 2]);
    assert!(rate > 0.0 && failed == "0", "{text}");
}

#[test]
fn a_server_that_accepts_nothing_is_no_measurement() {
    let (success, text) = measure("bad", "no such text");
    assert!(!success && text.contains("200"), "{text}");
}
