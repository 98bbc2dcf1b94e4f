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
