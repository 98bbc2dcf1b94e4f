//! Hostile components: what each of `tests/guests` and of the crafted binaries can do to others, which is
//! nothing, and what it gets for it, which is one certain error.

mod answers;
mod calls;
pub mod crafted;
pub mod fixture;
mod hostile_guests;
mod loading;
mod managing;
mod observing;
mod streaming;
mod tenants;
mod together;

use std::fs;
use std::path::Path;

use fixture::GUESTS;

/// A guest that no test calls by its name is no test of anything.
#[test]
fn every_guest_is_called_by_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = ["tests/guests", "tests/kit", "tests/upload", "tests/tenants", "tests/secrets"];
    let sources: String = own
        .iter()
        .chain(&["../attacks/tests"])
        .flat_map(|tests| fs::read_dir(folder.join(tests)).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let mut files: Vec<String> = fs::read_dir(folder.join("../guests/examples"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let built: Vec<&str> = GUESTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(files, built, "every file of tests/guests/examples is built");
    let called = |name: &&String| {
        sources.contains(&format!("(\"{name}\"")) || sources.contains(&format!(", \"{name}\")"))
    };
    let forgotten: Vec<_> = files.iter().filter(|name| !called(name)).collect();
    assert!(forgotten.is_empty(), "no test calls {forgotten:?}");
}
