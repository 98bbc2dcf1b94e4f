//! Builds the provider components from source for wasm32-wasip2 and lists them for embedding.
//!
//! `PUSHLET_PROVIDERS_DIR=DIR` takes ready-made `*.wasm` files from there instead, for packagers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "wasm32-wasip2";
/// The guest crate, which is no provider.
const SDK: &str = "sdk";

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=PUSHLET_PROVIDERS_DIR");
    let components = match env::var_os("PUSHLET_PROVIDERS_DIR") {
        Some(directory) => ready_made(Path::new(&directory))?,
        None => build(&workspace()?)?,
    };
    if components.is_empty() {
        return Err("no provider component was found".into());
    }
    let out = PathBuf::from(variable("OUT_DIR")?).join("built_in.rs");
    fs::write(&out, list(&components)).map_err(|error| format!("{}: {error}", out.display()))
}

/// The Rust source of a slice of (name, bytes).
fn list(components: &[(String, PathBuf)]) -> String {
    let entries: String = components
        .iter()
        .map(|(name, file)| format!("    ({name:?}, include_bytes!({:?})),\n", file.display().to_string()))
        .collect();
    format!("&[\n{entries}]")
}

fn ready_made(directory: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut components = Vec::new();
    for file in entries(directory)? {
        if file.extension().is_some_and(|extension| extension == "wasm") {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let file = file.canonicalize().map_err(|error| format!("{}: {error}", file.display()))?;
            components.push((name, file));
        }
    }
    Ok(components)
}

/// Builds every crate in `providers/` but the SDK.
fn build(workspace: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let providers = workspace.join("providers");
    for watched in [&providers, &workspace.join("wit"), &workspace.join("Cargo.toml")] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let names: Vec<String> = entries(&providers)?
        .iter()
        .filter(|directory| directory.join("Cargo.toml").is_file())
        .filter_map(|directory| Some(directory.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| name != SDK)
        .collect();
    add_target()?;
    let target_dir = target_dir()?;
    let mut cargo = clean_command(&variable("CARGO")?);
    cargo.current_dir(workspace).args(["build", "--locked", "--profile", "component", "--target", TARGET]);
    cargo.arg("--target-dir").arg(&target_dir);
    for name in &names {
        cargo.args(["--package", &format!("pushlet-{name}")]);
    }
    run(cargo)?;
    let built = target_dir.join(TARGET).join("component");
    Ok(names.into_iter().map(|name| (name.clone(), built.join(format!("pushlet_{name}.wasm")))).collect())
}

/// The target's standard library is a download of its own.
fn add_target() -> Result<(), String> {
    let mut rustc = Command::new(variable("RUSTC")?);
    let output = rustc.args(["--print", "sysroot"]).output().map_err(|error| format!("rustc: {error}"))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        return Ok(());
    }
    let mut rustup = clean_command("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(workspace()?);
    run(rustup).map_err(|error| format!("the Rust target {TARGET} is missing, and adding it failed: {error}"))
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

fn run(mut command: Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Beside the outer build's files, shared by all profiles.
fn target_dir() -> Result<PathBuf, String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    // OUT_DIR is <target>/<profile>/build/<package>/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?;
    Ok(target.join("components"))
}

fn workspace() -> Result<PathBuf, String> {
    let host = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    host.parent().map(Path::to_owned).ok_or_else(|| "the crate has no workspace".into())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("{}: {error}", directory.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    Ok(entries)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
