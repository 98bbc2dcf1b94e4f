//! Builds the hostile guests of `tests/guests`, one component per example.

#[path = "../../host/sandbox/build/wasm.rs"]
mod wasm;

use std::path::PathBuf;

fn main() -> Result<(), String> {
    let workspace = PathBuf::from(wasm::variable("CARGO_MANIFEST_DIR")?).join("../..");
    let workspace = workspace.canonicalize().map_err(|error| error.to_string())?;
    let guests = workspace.join("tests/guests");
    for watched in [&guests, &workspace.join("providers/sdk")] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let names: Vec<String> = wasm::entries(&guests.join("examples"))?
        .iter()
        .filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    let arguments = ["--package=pushlet-guests".to_owned(), "--examples".to_owned()];
    let built = wasm::build(&workspace, "wasm32-wasip2", "guest", &arguments)?.join("examples");
    let components: Vec<_> =
        names.into_iter().map(|name| (name.clone(), built.join(format!("{name}.wasm")))).collect();
    wasm::embed("guests.rs", &components)
}
