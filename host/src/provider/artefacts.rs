//! Compiled components: how they are kept on disk, and why they may be trusted.
//!
//! A file is the tag and the artefact. The tag is HMAC-SHA256 over everything that the artefact depends on:
//! the component, wasmtime's version, the engine's settings, the machine; so nobody who lacks the key can put
//! machine code where we would run it, and what is too old is simply not found.

use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ring::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

const TAG: usize = SHA256_OUTPUT_LEN;
const KEY: usize = SHA256_OUTPUT_LEN;
const KEY_FILE: &str = "key";
const EXTENSION: &str = "artefact";

/// What this program compiled, in this process, its child, or one before it.
pub(super) struct Artefact(Vec<u8>);

impl Artefact {
    /// `bytes` must be what our compiler gave us.
    pub(super) fn compiled(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    #[allow(unsafe_code)]
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: deserializing is unsafe because the bytes become machine code. An `Artefact` is made in two
        // places: of what our own compiler gave us, and of a file whose tag proves that it was the first.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

/// A folder of artefacts.
pub struct Artefacts {
    directory: PathBuf,
    key: hmac::Key,
    /// Digest of all that decides what compiled code looks like.
    settings: Vec<u8>,
    /// Bytes of all files together.
    most: u64,
}

impl Artefacts {
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
        })
    }

    /// The artefact of the component with this digest, if there is one that can be trusted.
    pub(super) fn get(&self, component: &str) -> Option<Artefact> {
        let path = self.path(component);
        let mut bytes = Vec::new();
        File::open(&path).ok()?.take(self.most).read_to_end(&mut bytes).ok()?;
        let tag = bytes.split_off(bytes.len().min(TAG));
        let (tag, artefact) = (bytes, tag);
        if hmac::verify(&self.key, &self.signed(component, &artefact), &tag).is_ok() {
            return Some(Artefact(artefact));
        }
        tracing::warn!(component, "an artefact is old or was tampered with; it is made anew");
        let _ = fs::remove_file(path);
        None
    }

    /// Keeps an artefact; others go, oldest first, when there is no room.
    pub(super) fn put(&self, component: &str, artefact: &Artefact) -> io::Result<()> {
        let tag = hmac::sign(&self.key, &self.signed(component, &artefact.0));
        let unfinished = unfinished(&self.path(component))?;
        let written = create(&unfinished).and_then(|mut file| {
            file.write_all(tag.as_ref())?;
            file.write_all(&artefact.0)
        });
        let kept = written.and_then(|()| fs::rename(&unfinished, self.path(component)));
        if kept.is_err() {
            let _ = fs::remove_file(unfinished);
        }
        kept.and_then(|()| self.make_room())
    }

    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            // Another process may have removed it meanwhile.
            if let Ok(data) = path.metadata()
                && path.file_name().is_some_and(|name| name != KEY_FILE)
            {
                files.push((data.modified()?, data.len(), path));
            }
        }
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort();
        for (_, size, path) in files {
            if total <= self.most {
                break;
            }
            let _ = fs::remove_file(path);
            total -= size;
        }
        Ok(())
    }

    fn path(&self, component: &str) -> PathBuf {
        self.directory.join(component).with_extension(EXTENSION)
    }

    /// What the tag is made of. All parts but the last have a fixed length.
    fn signed(&self, component: &str, artefact: &[u8]) -> Vec<u8> {
        let component = digest::digest(&SHA256, component.as_bytes());
        let artefact = digest::digest(&SHA256, artefact);
        [b"pushlet artefact 1", &self.settings[..], component.as_ref(), artefact.as_ref()].concat()
    }
}

/// The key in this file; a new one if there is none.
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

/// It appears whole, and only once: other processes may be at it too.
fn make_key(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; KEY]);
    fill(&mut *key)?;
    let unfinished = unfinished(path)?;
    let written = create(&unfinished).and_then(|mut file| {
        file.write_all(&*key)?;
        file.sync_all()
    });
    let linked = written.and_then(|()| fs::hard_link(&unfinished, path));
    let _ = fs::remove_file(unfinished);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

/// A name that nobody else uses, beside the one that the file will have.
fn unfinished(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    fill(&mut random)?;
    Ok(path.with_file_name(format!("{}.unfinished", hex::encode(random))))
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| io::Error::other("no randomness"))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn settings(engine: &Engine) -> Vec<u8> {
    let mut sha256 = Sha256(digest::Context::new(&SHA256));
    env!("WASMTIME_VERSION").hash(&mut sha256);
    // The target and the CPU's features are in it too.
    engine.precompile_compatibility_hash().hash(&mut sha256);
    sha256.0.finish().as_ref().to_vec()
}

/// What others give to a hash table's hash.
struct Sha256(digest::Context);

impl Hasher for Sha256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
