//! The program's commands that need no server.
#![allow(clippy::unwrap_used)]

use std::fs::OpenOptions;
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
