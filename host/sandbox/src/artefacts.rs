//! Compiled components: how they are kept on disk, and why they may be trusted.
//!
//! Tenants share the folder: who needs room makes it among his own files, and then it is the tenant with the most
//! who gives way; what this server itself runs is never pushed out. Files that are not ours are left alone.
//!
//! A file is the tag and the artefact. The tag is HMAC-SHA256 over everything that the artefact depends on:
//! the component, wasmtime's version, the engine's settings, the machine; so no one without the key can put
//! machine code where we would run it, and what is too old is simply not found.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use ring::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use tempfile::NamedTempFile;
use wasmtime::Engine;
use zeroize::Zeroizing;

use super::compiled::CompiledArtefact;
use pushlet_model::tenant::TenantId;

const TAG: usize = SHA256_OUTPUT_LEN;
const KEY: usize = SHA256_OUTPUT_LEN;
const KEY_FILE: &str = "key";
const EXTENSION: &str = "artefact";
/// The end of the name of a file that is being written, after this many random letters and digits.
const UNFINISHED: &str = ".unfinished";
const RANDOM: usize = 16;
/// Hex digits of a tenant's mark in a file's name.
const MARK: usize = 16;
/// No file takes so long to write: what is left unfinished after this belongs to a process that was killed.
const LONGEST_WRITE: Duration = Duration::from_secs(3600);

/// A folder of at most so many bytes, in which compiled code is kept as this tenant's for the next process.
pub struct CodeFolder {
    pub directory: PathBuf,
    pub most: usize,
    pub tenant: TenantId,
    /// Compile in any case.
    pub anew: bool,
}

/// A folder of artefacts.
pub struct ArtefactCache {
    directory: PathBuf,
    key: hmac::Key,
    /// Digest of all that decides what compiled code looks like.
    settings: Vec<u8>,
    /// Bytes of all files together.
    most: u64,
    /// Files of this server's own that this process used.
    used: Mutex<HashSet<PathBuf>>,
}

impl ArtefactCache {
    /// Opens a folder; what is missing of it is made. `key`: 32 secret bytes, else some are kept in the folder.
    pub(super) fn open(
        directory: &Path,
        key: Option<&[u8; KEY]>,
        most: usize,
        engine: &Engine,
    ) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let key = match key {
            Some(key) => Zeroizing::new(*key),
            None => own_key(&directory.join(KEY_FILE))?,
        };
        Ok(Self {
            directory: directory.to_owned(),
            key: hmac::Key::new(HMAC_SHA256, &*key),
            settings: settings(engine),
            most: most as u64,
            used: Mutex::default(),
        })
    }

    /// Returns the artefact of the component with this digest, if there is one that can be trusted. `owner`: the tenant
    /// whose component it is; None: it is the server's own.
    pub(super) fn get(&self, owner: Option<&TenantId>, component: &str) -> Option<CompiledArtefact> {
        let path = self.path(owner, component);
        let mut bytes = Vec::new();
        let file = File::open(&path).ok()?;
        // No file that counts is larger than all may be together.
        (&file).take(self.most).read_to_end(&mut bytes).ok()?;
        let tag = bytes.split_off(bytes.len().min(TAG));
        let (tag, artefact) = (bytes, tag);
        if hmac::verify(&self.key, &self.signed(component, &artefact), &tag).is_ok() {
            // The file that was not used for longest goes first. Where it cannot be written, it is the oldest one.
            let _ = file.set_modified(SystemTime::now());
            self.note_use(owner, &path);
            return Some(CompiledArtefact::compiled(artefact));
        }
        tracing::warn!(component, "an artefact is old or was tampered with; it is compiled again");
        let _ = fs::remove_file(path);
        None
    }

    /// Keeps an artefact; others go when there is no room.
    pub(super) fn put(
        &self,
        owner: Option<&TenantId>,
        component: &str,
        artefact: &CompiledArtefact,
    ) -> io::Result<()> {
        let path = self.path(owner, component);
        let tag = hmac::sign(&self.key, &self.signed(component, artefact.bytes()));
        let mut file = unfinished_file(&self.directory)?;
        file.write_all(tag.as_ref())?;
        file.write_all(artefact.bytes())?;
        // Under another name until now: no reader sees half of an artefact.
        file.persist(&path)?;
        self.note_use(owner, &path);
        self.make_room(&path)
    }

    fn make_room(&self, newest: &Path) -> io::Result<()> {
        let mut files = self.files()?;
        let mut total: u64 = files.iter().map(|file| file.size).sum();
        while total > self.most
            && let Some(next) = next_to_go(&files, newest)
        {
            let file = files.swap_remove(next);
            // Another process may have removed it meanwhile.
            let _ = fs::remove_file(file.path);
            total -= file.size;
        }
        Ok(())
    }

    /// Returns all files that this program wrote.
    fn files(&self) -> io::Result<Vec<StoredArtefact>> {
        let used = self.used.lock();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let Some(owner) = owner_of(&path) else { continue };
            // Another process may have removed it meanwhile. What a link leads to is not ours.
            let Ok(data) = path.symlink_metadata() else { continue };
            let modified = data.modified()?;
            let owner = match owner {
                FileOwner::Server if used.contains(&path) => FileOwner::InUse,
                FileOwner::Writer if modified.elapsed().is_ok_and(|age| age > LONGEST_WRITE) => {
                    FileOwner::Server
                }
                owner => owner,
            };
            files.push(StoredArtefact { owner, modified, size: data.len(), path });
        }
        Ok(files)
    }

    fn note_use(&self, owner: Option<&TenantId>, path: &Path) {
        if owner.is_none() {
            self.used.lock().insert(path.to_owned());
        }
    }

    fn path(&self, owner: Option<&TenantId>, component: &str) -> PathBuf {
        let name = match owner {
            Some(tenant) => format!("{component}.{}.{EXTENSION}", mark(tenant)),
            None => format!("{component}.{EXTENSION}"),
        };
        self.directory.join(name)
    }

    /// Returns the input of the tag. All parts but the last have a fixed length.
    fn signed(&self, component: &str, artefact: &[u8]) -> Vec<u8> {
        let component = digest::digest(&SHA256, component.as_bytes());
        let artefact = digest::digest(&SHA256, artefact);
        [b"pushlet artefact 1", &self.settings[..], component.as_ref(), artefact.as_ref()].concat()
    }
}

/// A file of ours.
struct StoredArtefact {
    owner: FileOwner,
    modified: SystemTime,
    size: u64,
    path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum FileOwner {
    /// The tenant with this mark.
    Tenant(String),
    /// This server, which does not use it.
    Server,
    /// This server, which uses it.
    InUse,
    /// A process that is still writing it.
    Writer,
}

/// Returns the owner of a file, by its name; None: it is not ours.
fn owner_of(path: &Path) -> Option<FileOwner> {
    let is_hex =
        |text: &str, length| text.len() == length && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let name = path.file_name()?.to_str()?;
    let is_random = |text: &str| text.len() == RANDOM && text.bytes().all(|c| c.is_ascii_alphanumeric());
    if name.strip_suffix(UNFINISHED).is_some_and(is_random) {
        return Some(FileOwner::Writer);
    }
    let mut parts = name.split('.');
    let parts = (parts.next()?, parts.next()?, parts.next(), parts.next());
    match parts {
        (digest, EXTENSION, None, None) if is_hex(digest, 64) => Some(FileOwner::Server),
        (digest, mark, Some(EXTENSION), None) if is_hex(digest, 64) && is_hex(mark, MARK) => {
            Some(FileOwner::Tenant(mark.to_owned()))
        }
        _ => None,
    }
}

/// Chooses the file to evict when there is no room for the newest one (LRU): an unused one, then the one that its
/// owner did not use for longest, then the same of the tenant who has the most.
fn next_to_go(files: &[StoredArtefact], newest: &Path) -> Option<usize> {
    let oldest = |may_go: &dyn Fn(&StoredArtefact) -> bool| {
        let all = files.iter().enumerate().filter(|(_, file)| may_go(file));
        all.min_by_key(|(_, file)| file.modified).map(|(number, _)| number)
    };
    let mut sizes: HashMap<&FileOwner, u64> = HashMap::new();
    for file in files.iter().filter(|file| matches!(file.owner, FileOwner::Tenant(_))) {
        *sizes.entry(&file.owner).or_default() += file.size;
    }
    let owner = files.iter().find(|file| file.path == newest).map(|file| &file.owner);
    let owner = owner.filter(|owner| sizes.contains_key(owner));
    let largest = sizes.iter().max_by_key(|(_, size)| **size).map(|(owner, _)| *owner);
    oldest(&|file| file.owner == FileOwner::Server)
        .or_else(|| oldest(&|file| Some(&file.owner) == owner && file.path != newest))
        .or_else(|| oldest(&|file| Some(&file.owner) == largest))
}

/// Stands for a tenant in names of files, whatever letters are in its own.
fn mark(tenant: &TenantId) -> String {
    let mut mark = hex::encode(digest::digest(&SHA256, tenant.as_str().as_bytes()));
    mark.truncate(MARK);
    mark
}

/// Reads the key in this file; creates one if there is none.
fn own_key(path: &Path) -> io::Result<Zeroizing<[u8; KEY]>> {
    if !path.exists() {
        make_key(path)?;
    }
    let mut key = Zeroizing::new([0; KEY]);
    let mut file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{}: others may use this key", path.display())));
    }
    file.read_exact(&mut *key)?;
    Ok(key)
}

/// Creates the key whole, and only once: other processes may do the same.
fn make_key(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; KEY]);
    SystemRandom::new().fill(&mut *key).map_err(|_| io::Error::other("no randomness"))?;
    let mut file = unfinished_file(path.parent().unwrap_or(path))?;
    file.write_all(&*key)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        kept => Ok(kept.map(drop)?),
    }
}

/// Creates a file that only this user can read. It is removed again unless it is kept under its final name.
fn unfinished_file(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix("").rand_bytes(RANDOM).suffix(UNFINISHED).tempfile_in(folder)
}

fn settings(engine: &Engine) -> Vec<u8> {
    let mut sha256 = Sha256Hasher(digest::Context::new(&SHA256));
    env!("WASMTIME_VERSION").hash(&mut sha256);
    // The target and the CPU's features are in it too.
    engine.precompile_compatibility_hash().hash(&mut sha256);
    sha256.0.finish().as_ref().to_vec()
}

/// What others give to a hash table's hash.
struct Sha256Hasher(digest::Context);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kept(name: &str, modified: u64, size: u64) -> StoredArtefact {
        let path = PathBuf::from(name);
        let owner = match owner_of(&path).unwrap() {
            FileOwner::Server => FileOwner::InUse,
            owner => owner,
        };
        StoredArtefact { owner, modified: SystemTime::UNIX_EPOCH + Duration::from_secs(modified), size, path }
    }

    fn of_tenant(tenant: &str, number: u8) -> String {
        format!("{}.{}.artefact", hex::encode([number; 32]), mark(&TenantId::new(tenant)))
    }

    /// Returns the files that are left when there is room for so many bytes, the newest among them.
    fn left(mut files: Vec<StoredArtefact>, newest: &str, most: u64) -> Vec<String> {
        while files.iter().map(|file| file.size).sum::<u64>() > most
            && let Some(next) = next_to_go(&files, Path::new(newest))
        {
            files.remove(next);
        }
        files.into_iter().map(|file| file.path.display().to_string()).collect()
    }

    #[test]
    fn who_needs_room_makes_it_among_its_own_files() {
        let [small, one, two, three] =
            [of_tenant("small", 1), of_tenant("big", 1), of_tenant("big", 2), of_tenant("big", 3)];
        let files = || vec![kept(&small, 1, 10), kept(&one, 2, 30), kept(&two, 3, 30), kept(&three, 4, 30)];
        assert_eq!(left(files(), &three, 70), [small.clone(), two.clone(), three.clone()]);
        assert_eq!(left(files(), &three, 40), [small.clone(), three.clone()]);
        assert_eq!(
            left(files(), &three, 39),
            std::slice::from_ref(&small),
            "it does not fit beside what others have"
        );
        // Also one who has less than others.
        let newest = of_tenant("small", 2);
        let files_of_both = vec![kept(&small, 1, 10), kept(&one, 2, 30), kept(&newest, 5, 10)];
        assert_eq!(left(files_of_both, &newest, 45), [one.clone(), newest]);
        // The newest of one who has nothing else: the tenant with the most gives way.
        assert_eq!(left(files(), &small, 70), [small, two, three]);
    }

    #[test]
    fn what_the_server_runs_is_not_pushed_out_by_tenants() {
        let own = format!("{}.artefact", "ab".repeat(32));
        let other = of_tenant("a", 1);
        let files = vec![kept(&own, 1, 50), kept(&other, 2, 50)];
        assert_eq!(left(files, &other, 60), [own]);
    }

    #[test]
    fn only_names_that_it_gives_are_its_own() {
        let digest = "0f".repeat(32);
        for name in
            ["key", "notes.txt", "a.artefact", "x.unfinished", &digest, &format!("{digest}.artefact.old")]
        {
            assert_eq!(owner_of(Path::new(name)), None, "{name}");
        }
        assert_eq!(owner_of(Path::new(&format!("{digest}.artefact"))), Some(FileOwner::Server));
        let unfinished = unfinished_file(&std::env::temp_dir()).unwrap();
        assert_eq!(owner_of(unfinished.path()), Some(FileOwner::Writer));
        let mark = mark(&TenantId::new("Größe/1"));
        assert_eq!(owner_of(Path::new(&format!("{digest}.{mark}.artefact"))), Some(FileOwner::Tenant(mark)));
    }
}
