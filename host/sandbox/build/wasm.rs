//! Building component crates of this workspace from a build script: a nested cargo for WebAssembly.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Runs `cargo build` for `target` with `arguments`, which say what of the workspace to build. The folder of the
/// results.
pub fn build(workspace: &Path, target: &str, profile: &str, arguments: &[String]) -> Result<PathBuf, String> {
    for watched in ["wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    add_target(workspace, target)?;
    let target_dir = target_dir()?;
    let mut cargo = clean_command(&variable("CARGO")?);
    cargo.current_dir(workspace).args(["build", "--locked", "--profile", profile, "--target", target]);
    cargo.arg("--target-dir").arg(&target_dir).args(arguments);
    run(cargo)?;
    Ok(target_dir.join(target).join(profile))
}

/// Writes the Rust source of a slice of (name, bytes) to `file` in `OUT_DIR`.
pub fn embed(file: &str, components: &[(String, PathBuf)]) -> Result<(), String> {
    let entries: String = components
        .iter()
        .map(|(name, file)| format!("    ({name:?}, include_bytes!({:?})),\n", file.display().to_string()))
        .collect();
    let out = PathBuf::from(variable("OUT_DIR")?).join(file);
    fs::write(&out, format!("&[\n{entries}]")).map_err(|error| format!("{}: {error}", out.display()))
}

/// The target's standard library is a download of its own.
fn add_target(workspace: &Path, target: &str) -> Result<(), String> {
    let mut rustc = Command::new(variable("RUSTC")?);
    let output = rustc.args(["--print", "sysroot"]).output().map_err(|error| format!("rustc: {error}"))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if sysroot.join("lib/rustlib").join(target).is_dir() {
        return Ok(());
    }
    let mut rustup = clean_command("rustup");
    rustup.args(["target", "add", target]).current_dir(workspace);
    run(rustup).map_err(|error| format!("the Rust target {target} is missing, and adding it failed: {error}"))
}

/// A nested cargo must not inherit what the outer one was told about the host build.
fn clean_command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_TERM_COLOR"].contains(&&*text)
            || text.starts_with("CARGO_HTTP_")
            || text.starts_with("CARGO_REGISTR");
        let outer = text.starts_with("CARGO") || text.starts_with("RUSTC") || text.starts_with("RUSTDOC");
        if (outer && !kept) || text == "RUSTFLAGS" || text == "CLIPPY_ARGS" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end. What it reports is part of the error, and is shown on the terminal as it comes: cargo
/// keeps the output of build scripts to itself, and this takes a minute.
fn run(mut command: Command) -> Result<(), String> {
    let described = format!("{command:?}");
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("{described}: {error}"))?;
    let mut terminal = fs::OpenOptions::new().write(true).open("/dev/tty").ok();
    let mut reported = String::new();
    for line in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()) {
        let line = line.map_err(|error| format!("{described}: {error}"))?;
        if let Some(terminal) = &mut terminal {
            // Nobody depends on it.
            let _ = writeln!(terminal, "{line}");
        }
        reported.push_str(&line);
        reported.push('\n');
    }
    let status = child.wait().map_err(|error| format!("{described}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{described} failed:\n{reported}")) }
}

/// Beside the outer build's files, shared by all profiles.
pub fn target_dir() -> Result<PathBuf, String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    // OUT_DIR is <target>/<profile>/build/<package>/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?;
    Ok(target.join("components"))
}

/// The entries of a folder, in order.
pub fn entries(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("{}: {error}", directory.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    Ok(entries)
}

pub fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
