//! Builds the provider components from source and lists them for embedding.
//!
//! `PUSHLET_BUILT_IN_PROVIDERS=DIR` takes ready-made `*.wasm` files from there instead, for packagers.

#[cfg(feature = "precompiled")]
#[path = "src/code_config.rs"]
mod code_config;
#[cfg(feature = "precompiled")]
#[path = "build/precompile.rs"]
mod precompile;
#[path = "build/wasm.rs"]
mod wasm;

use std::path::{Path, PathBuf};
use std::{env, fs};

use wit_component::ComponentEncoder;

/// The guest crate, which is no provider.
const SDK: &str = "sdk";
/// Rust's library has no WASI there, so that what is built in imports nothing at all: a fresh instance costs half.
const TARGET: &str = "wasm32-unknown-unknown";
/// The product of two 64-bit numbers is one instruction: Web Push computes on a curve for each message. Sixteen bytes are
/// looked at together. A smaller stack than 1 MiB, since all of an instance's memory is looked through when it ends.
const FLAGS: &str = r#"--config=build.rustflags=["-Ctarget-feature=+wide-arithmetic,+simd128", "-Clink-arg=-zstack-size=262144"]"#;

fn main() -> Result<(), String> {
    // What is compiled with one version of wasmtime is not for another.
    println!("cargo::rustc-env=WASMTIME_VERSION={}", locked_version("wasmtime")?);
    println!("cargo::rerun-if-env-changed=PUSHLET_BUILT_IN_PROVIDERS");
    let components = match env::var_os("PUSHLET_BUILT_IN_PROVIDERS") {
        Some(directory) => ready_made(Path::new(&directory))?,
        None => build(&workspace()?)?,
    };
    if components.is_empty() {
        return Err("no provider component was found".into());
    }
    wasm::embed("precompiled.rs", &precompiled(&components)?)?;
    wasm::embed("built_in.rs", &components)
}

/// Returns the code of the components, if it is to be a part of the program.
#[cfg(feature = "precompiled")]
fn precompiled(components: &[(String, PathBuf)]) -> Result<Vec<(String, PathBuf)>, String> {
    precompile::precompile(components)
}

#[cfg(not(feature = "precompiled"))]
fn precompiled(_: &[(String, PathBuf)]) -> Result<Vec<(String, PathBuf)>, String> {
    Ok(Vec::new())
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
    let packages = names.iter().map(|name| format!("--package=pushlet-{name}"));
    let arguments: Vec<String> = [FLAGS.to_owned()].into_iter().chain(packages).collect();
    let built = wasm::build(workspace, TARGET, "component", &arguments)?;
    let components = wasm::target_dir()?.join("built-in");
    let component = |name: String| {
        let (component, module) = (components.join(format!("{name}.wasm")), name.replace('-', "_"));
        componentize(&built.join(format!("pushlet_{module}.wasm")), &component)?;
        Ok((name, component))
    };
    names.into_iter().map(component).collect()
}

/// Makes a component of a module, which must import nothing.
fn componentize(module: &Path, component: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", module.display());
    let bytes = fs::read(module).map_err(|error| failed(&error))?;
    let encoder = ComponentEncoder::default().validate(true).module(&bytes);
    let encoded =
        encoder.and_then(|mut encoder| encoder.encode()).map_err(|error| failed(&format!("{error:#}")))?;
    fs::create_dir_all(component.parent().unwrap_or(Path::new("."))).map_err(|error| failed(&error))?;
    fs::write(component, encoded).map_err(|error| failed(&error))
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
    host.ancestors().nth(2).map(Path::to_owned).ok_or_else(|| "the crate has no workspace".into())
}
