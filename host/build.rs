//! Builds the provider components from source for wasm32-wasip2 and lists them for embedding.
//!
//! `PUSHLET_PROVIDERS_DIR=DIR` takes ready-made `*.wasm` files from there instead, for packagers.

#[path = "build/wasm.rs"]
mod wasm;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The guest crate, which is no provider.
const SDK: &str = "sdk";

fn main() -> Result<(), String> {
    // What is compiled with one version of wasmtime is not for another.
    println!("cargo::rustc-env=WASMTIME_VERSION={}", locked_version("wasmtime")?);
    println!("cargo::rerun-if-env-changed=PUSHLET_PROVIDERS_DIR");
    look_for_openssl();
    let components = match env::var_os("PUSHLET_PROVIDERS_DIR") {
        Some(directory) => ready_made(Path::new(&directory))?,
        None => build(&workspace()?)?,
    };
    if components.is_empty() {
        return Err("no provider component was found".into());
    }
    wasm::embed("built_in.rs", &components)
}

/// Some tests read files that the `openssl` command makes; without it they are left out.
fn look_for_openssl() {
    println!("cargo::rustc-check-cfg=cfg(openssl)");
    if Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success()) {
        println!("cargo::rustc-cfg=openssl");
    }
}

fn ready_made(directory: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut components = Vec::new();
    for file in wasm::entries(directory)? {
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
    println!("cargo::rerun-if-changed={}", providers.display());
    let names: Vec<String> = wasm::entries(&providers)?
        .iter()
        .filter(|directory| directory.join("Cargo.toml").is_file())
        .filter_map(|directory| Some(directory.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| name != SDK)
        .collect();
    let packages: Vec<String> = names.iter().map(|name| format!("--package=pushlet-{name}")).collect();
    let built = wasm::build(workspace, "component", &packages)?;
    Ok(names.into_iter().map(|name| (name.clone(), built.join(format!("pushlet_{name}.wasm")))).collect())
}

/// The version of a dependency that `Cargo.lock` names.
fn locked_version(package: &str) -> Result<String, String> {
    let file = workspace()?.join("Cargo.lock");
    println!("cargo::rerun-if-changed={}", file.display());
    let lock = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let (_, rest) = lock
        .split_once(&format!("name = \"{package}\"\nversion = \""))
        .ok_or_else(|| format!("{}: no {package}", file.display()))?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

fn workspace() -> Result<PathBuf, String> {
    let host = PathBuf::from(wasm::variable("CARGO_MANIFEST_DIR")?);
    host.parent().map(Path::to_owned).ok_or_else(|| "the crate has no workspace".into())
}
