//! Compiling the built-in components while the program is built, for the machines that it is built for.

use std::path::{Path, PathBuf};
use std::{env, fs};

use wasmtime::Engine;

use super::code_config::code_config;
use super::wasm::variable;

/// What processors have that are called x86-64-v3 (since about 2013, 2017 for AMD's): with it, code is about as fast as
/// what is compiled on the machine itself. On an older one the program compiles anew.
const X86_64: &[&str] = &[
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
    "has_cmpxchg16b",
    "has_avx",
    "has_avx2",
    "has_fma",
    "has_bmi1",
    "has_bmi2",
    "has_lzcnt",
];

/// Compiles each of the components. Returns their names with the files of code.
pub fn precompile(components: &[(String, PathBuf)]) -> Result<Vec<(String, PathBuf)>, String> {
    let engine = engine().map_err(|error| format!("the engine that compiles: {error:#}"))?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let compile = |(name, component): &(String, PathBuf)| {
        let code = out.join(format!("{name}.code"));
        compiled(&engine, component, &code).map_err(|error| format!("{}: {error}", component.display()))?;
        Ok((name.clone(), code))
    };
    components.iter().map(compile).collect()
}

fn compiled(engine: &Engine, component: &Path, code: &Path) -> Result<(), String> {
    let bytes = fs::read(component).map_err(|error| error.to_string())?;
    let artefact = engine.precompile_component(&bytes).map_err(|error| format!("{error:#}"))?;
    fs::write(code, artefact).map_err(|error| error.to_string())
}

fn engine() -> wasmtime::Result<Engine> {
    let mut config = code_config();
    config.target(&env::var("TARGET")?)?;
    let features = if env::var("CARGO_CFG_TARGET_ARCH")? == "x86_64" { X86_64 } else { &[] };
    for feature in features {
        // SAFETY: this process runs nothing of what it compiles, and the one that does checks first that its processor
        // has what the code needs.
        #[allow(unsafe_code)]
        unsafe {
            config.cranelift_flag_enable(feature);
        }
    }
    Engine::new(&config)
}
