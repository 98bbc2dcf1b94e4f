//! Reading and writing the credential files: owner-only, whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::error::StartError;

/// Makes the directory, for its owner only; leaves one that is there as it is.
pub(super) fn make_directory(path: &Path) -> Result<(), StartError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| failed(path, source))
}

/// Keeps other simulators of the same directory out until the file is dropped.
pub(super) fn lock(directory: &Path) -> Result<File, StartError> {
    let path = directory.join(".lock");
    let file = owner_only().open(&path).map_err(|source| failed(&path, source))?;
    file.lock().map_err(|source| failed(&path, source))?;
    Ok(file)
}

/// Reads a file; an empty one counts as missing.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Err(failed(path, io::ErrorKind::UnexpectedEof.into())),
        Ok(bytes) => Ok(bytes),
        Err(source) => Err(failed(path, source)),
    }
}

/// Writes a file beside its place and moves it there.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let written = owner_only()
        .truncate(true)
        .open(beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(beside, path));
    written.map_err(|source| failed(path, source))
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), StartError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(path, source)),
        _ => Ok(()),
    }
}

fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn failed(path: &Path, source: io::Error) -> StartError {
    StartError::Files { path: path.to_owned(), source }
}
