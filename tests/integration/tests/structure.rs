//! The shape of the source: who may use whom, and how large a file may grow.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LONGEST_FILE: usize = 400;

/// Modules of the program, and which others each may name. Not listed: none may be.
const PROGRAM_MODULES: &[(&str, &[&str])] = &[
    ("server", &[]),
    ("simulator", &[]),
    ("no_simulator", &[]),
    ("bootstrap", &[]),
    ("cli", &["server", "simulator", "bootstrap"]),
];

/// Crates, and which crates of this workspace each may depend on.
const CRATES: &[(&str, &[&str])] = &[
    // What callers give is parsed alike on both sides of the sandbox.
    ("providers/sdk/json", &[]),
    ("providers/sdk", &["pushlet-json"]),
    ("providers/apns", &["pushlet-sdk"]),
    ("providers/gcm", &["pushlet-sdk"]),
    ("providers/fcm", &["pushlet-sdk"]),
    ("tests/simulator", &[]),
    ("host/model", &["pushlet-json"]),
    ("host/quota", &["pushlet-model"]),
    ("host/settings", &["pushlet-model"]),
    ("host/credential", &["pushlet-model", "pushlet-quota"]),
    // `pushlet-credential` for what a manifest may say of credentials, never for a secret.
    ("host/sandbox", &["pushlet-credential", "pushlet-model", "pushlet-quota"]),
    ("host/transport", &["pushlet-model", "pushlet-quota"]),
    ("host/registry", &["pushlet-credential", "pushlet-model", "pushlet-quota"]),
    (
        "host/gateway",
        &[
            "pushlet-credential",
            "pushlet-model",
            "pushlet-quota",
            "pushlet-registry",
            "pushlet-sandbox",
            "pushlet-settings",
            "pushlet-transport",
        ],
    ),
    ("host/api", &["pushlet-gateway", "pushlet-json", "pushlet-model", "pushlet-quota", "pushlet-settings"]),
    // `pushlet-transport` for its HTTP client.
    ("host/client", &["pushlet-model", "pushlet-settings", "pushlet-transport"]),
    (
        "host",
        &[
            "pushlet-api",
            "pushlet-client",
            "pushlet-credential",
            "pushlet-gateway",
            "pushlet-model",
            "pushlet-quota",
            "pushlet-registry",
            "pushlet-sandbox",
            "pushlet-settings",
            "pushlet-simulator",
            // For its tests.
            "pushlet-test-support",
            "pushlet-transport",
        ],
    ),
];

/// What a provider must not depend on: a pure function has no use for it.
const IMPURE: &[&str] = &["tokio", "reqwest", "hyper", "rustls", "wasmtime", "axum", "ring"];

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All Rust files below a folder, as paths relative to the workspace.
pub fn rust_files(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The module of the program that a file belongs to.
fn module_of(file: &Path) -> String {
    let below = file.strip_prefix("host/src").unwrap();
    below.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The first path segments after `crate::`, of paths and of `use crate::{…}` groups.
fn crate_paths(source: &str) -> BTreeSet<String> {
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, marker) in code.match_indices("crate::") {
        if code[..at].ends_with(word) {
            continue;
        }
        let rest = &code[at + marker.len()..];
        let names = rest.strip_prefix('{').map_or_else(|| vec![rest], group);
        found.extend(names.iter().map(|name| name.trim_start().chars().take_while(|c| word(*c)).collect()));
    }
    found
}

/// The members of a group, without those of groups in it.
fn group(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                members.push(&text[start..at]);
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members.retain(|member| !member.trim().is_empty());
    members
}

#[test]
fn modules_of_the_program_use_only_whom_they_may() {
    let mut wrong = Vec::new();
    for file in rust_files("host/src") {
        let module = module_of(&file);
        let test = file.to_string_lossy().ends_with("tests.rs")
            || file.components().any(|part| part.as_os_str() == "tests");
        if module == "lib" || module == "main" || test {
            continue;
        }
        let allowed = PROGRAM_MODULES.iter().find(|(name, _)| *name == module);
        let Some((_, allowed)) = allowed else {
            wrong.push(format!("{}: the module {module} is not in the table", file.display()));
            continue;
        };
        for used in crate_paths(&read(&file)) {
            if used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: {module} must not use {used}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The packages that a manifest depends on: of every kind, for every platform, under whatever name.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let platforms = manifest.get("target").and_then(toml::Value::as_table);
    let platforms =
        platforms.into_iter().flat_map(|platforms| platforms.values()).filter_map(toml::Value::as_table);
    let mut packages = BTreeSet::new();
    for tables in platforms.chain([&manifest]) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let table = tables.get(kind).and_then(toml::Value::as_table);
            packages.extend(table.into_iter().flatten().map(|(name, value)| {
                let renamed = value.get("package").and_then(toml::Value::as_str);
                renamed.unwrap_or(name).to_owned()
            }));
        }
    }
    packages
}

#[test]
fn a_dependency_is_found_wherever_it_stands() {
    let manifest = r#"
        dependencies.a = "1"
        dev-dependencies = { x = { package = "b", path = "b" } }
        target."cfg(unix)".build-dependencies.c = { workspace = true }
    "#;
    assert_eq!(dependencies(manifest).into_iter().collect::<String>(), "abc");
}

#[test]
fn crates_depend_only_on_whom_they_may() {
    let listed: Vec<&str> = CRATES.iter().map(|(folder, _)| *folder).collect();
    for parent in ["providers", "host"] {
        for entry in fs::read_dir(root().join(parent)).unwrap() {
            let path = entry.unwrap().path();
            if path.join("Cargo.toml").is_file() {
                let folder = format!("{parent}/{}", path.file_name().unwrap().to_string_lossy());
                assert!(listed.contains(&folder.as_str()), "{folder} is not in the table");
            }
        }
    }
    for (folder, allowed) in CRATES {
        let dependencies = dependencies(&read(&Path::new(folder).join("Cargo.toml")));
        for name in &dependencies {
            let own = name == "pushlet" || name.starts_with("pushlet-");
            assert!(!own || allowed.contains(&name.as_str()), "{folder} must not depend on {name}");
            let pure = folder.starts_with("providers/");
            assert!(!pure || !IMPURE.contains(&name.as_str()), "{folder} must not depend on {name}");
        }
    }
}

#[test]
fn no_file_is_too_long() {
    let folders = ["host", "providers", "tests"];
    let files = folders.iter().flat_map(|folder| rust_files(folder));
    let long: Vec<String> = files
        .map(|file| (read(&file).lines().count(), file))
        .filter(|(lines, _)| *lines > LONGEST_FILE)
        .map(|(lines, file)| format!("{} has {lines} lines", file.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_source_speaks_of_itself_alone() {
    let forbidden = ["/work/", "TODO", "FIXME", "XXX:", concat!("dbg", "!("), concat!("#[ign", "ore")];
    let folders = ["host", "providers", "tests"];
    let mut wrong = Vec::new();
    for file in folders.iter().flat_map(|folder| rust_files(folder)) {
        if file.ends_with("structure.rs") {
            continue;
        }
        let source = read(&file);
        wrong.extend(
            forbidden
                .iter()
                .filter(|word| source.contains(**word))
                .map(|word| format!("{}: {word}", file.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
