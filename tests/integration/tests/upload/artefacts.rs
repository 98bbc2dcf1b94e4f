//! Compiled components on disk: used again, and never believed without proof.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_sandbox::{
    BUILT_IN, CompileLimits, ComponentCompiler, ComponentTrust, Provider, ProviderLoader, Sandbox,
    SandboxLimits, digest,
};

use super::{PROGRAM, variant};
use crate::harness::Directory;

const ROOM: usize = 1 << 30;

fn loader(program: &str, directory: &Path, room: usize) -> ProviderLoader {
    let compiler = ComponentCompiler { program: program.into(), limits: limits() };
    let mut loader = ProviderLoader::new(
        Sandbox::new(SandboxLimits::default(), Accounts::new(AccountSettings::default()).unwrap()).unwrap(),
        compiler,
    );
    loader.keep_artefacts(directory, None, room).unwrap();
    loader
}

fn limits() -> CompileLimits {
    let minute = std::time::Duration::from_secs(60);
    CompileLimits { memory: 2 << 30, cpu: minute, time: 2 * minute }
}

fn load(loader: &ProviderLoader, bytes: &[u8]) -> Result<Arc<Provider>, String> {
    loader.load(bytes, ComponentTrust::Uploaded, &Arc::default()).map_err(|error| error.to_string())
}

fn file(directory: &Path, component: &[u8]) -> PathBuf {
    directory.join(digest(component)).with_extension("artefact")
}

/// Nothing is compiled here, so what is loaded was kept.
const NO_COMPILER: &str = "/no/such/compiler";

#[test]
fn what_was_compiled_once_is_not_compiled_again() {
    let directory = Directory::new();
    let component = variant("webhook", 1);
    let error = load(&loader(NO_COMPILER, directory.path(), ROOM), &component).err().unwrap();
    assert!(error.contains("the compiler cannot run"), "{error}");
    load(&loader(PROGRAM, directory.path(), ROOM), &component).unwrap();
    let provider = load(&loader(NO_COMPILER, directory.path(), ROOM), &component).unwrap();
    assert_eq!(provider.manifest().name, "webhook");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.path().join("key")), 0o600);
    assert_eq!(mode(&file(directory.path(), &component)), 0o600);
}

#[test]
fn what_was_changed_is_compiled_anew() {
    let directory = Directory::new();
    let component = variant("webhook", 2);
    load(&loader(PROGRAM, directory.path(), ROOM), &component).unwrap();
    let path = file(directory.path(), &component);
    let sound = fs::read(&path).unwrap();
    let mut changed = vec![Vec::new(), sound[..31].to_vec(), sound[..sound.len() - 1].to_vec()];
    for place in [0, 31, 32, sound.len() / 2, sound.len() - 1] {
        let mut bytes = sound.clone();
        bytes[place] ^= 1;
        changed.push(bytes);
    }
    for bytes in changed {
        fs::write(&path, &bytes).unwrap();
        assert!(load(&loader(NO_COMPILER, directory.path(), ROOM), &component).is_err());
        load(&loader(PROGRAM, directory.path(), ROOM), &component).unwrap();
        assert_eq!(fs::read(&path).unwrap(), sound);
    }
}

#[test]
fn an_artefact_counts_for_its_own_component_and_under_its_own_key() {
    let (one, other) = (Directory::new(), Directory::new());
    let (webhook, next) = (variant("webhook", 3), variant("webhook_next", 3));
    let maker = loader(PROGRAM, one.path(), ROOM);
    load(&maker, &webhook).unwrap();
    load(&maker, &next).unwrap();
    fs::copy(file(one.path(), &next), file(one.path(), &webhook)).unwrap();
    assert!(load(&loader(NO_COMPILER, one.path(), ROOM), &webhook).is_err());
    load(&loader(NO_COMPILER, one.path(), ROOM), &next).unwrap();

    loader(PROGRAM, other.path(), ROOM);
    fs::copy(file(one.path(), &next), file(other.path(), &next)).unwrap();
    assert!(load(&loader(NO_COMPILER, other.path(), ROOM), &next).is_err());
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    let directory = Directory::new();
    loader(PROGRAM, directory.path(), ROOM);
    fs::set_permissions(directory.path().join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let compiler = ComponentCompiler { program: PROGRAM.into(), limits: limits() };
    let mut loader = ProviderLoader::new(
        Sandbox::new(SandboxLimits::default(), Accounts::new(AccountSettings::default()).unwrap()).unwrap(),
        compiler,
    );
    let error = loader.keep_artefacts(directory.path(), None, ROOM).unwrap_err();
    assert!(error.to_string().contains("others may use this key"), "{error}");
}

#[test]
fn files_that_are_not_its_own_stay() {
    let directory = Directory::new();
    let others = ["notes.txt", "a.artefact", "old.unfinished"].map(|name| directory.path().join(name));
    others.iter().for_each(|path| fs::write(path, [0; 1000]).unwrap());
    // So little room that everything that may go does.
    load(&loader(PROGRAM, directory.path(), 1), &variant("webhook", 5)).unwrap();
    assert!(others.iter().all(|path| path.exists()));
}

#[test]
fn built_in_components_are_kept_too_and_the_oldest_make_room() {
    let directory = Directory::new();
    let sizes: Vec<u64> = BUILT_IN
        .iter()
        .map(|(_, bytes)| {
            let loader = loader(NO_COMPILER, directory.path(), ROOM);
            loader.load(bytes, ComponentTrust::BuiltIn, &Arc::default()).unwrap();
            fs::metadata(file(directory.path(), bytes)).unwrap().len()
        })
        .collect();
    let component = variant("webhook", 4);
    let room = usize::try_from(sizes.iter().sum::<u64>()).unwrap();
    load(&loader(PROGRAM, directory.path(), room), &component).unwrap();
    assert!(file(directory.path(), &component).exists(), "the newest");
    assert!(!file(directory.path(), BUILT_IN[0].1).exists(), "the oldest");
}
