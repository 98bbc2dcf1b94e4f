//! Files and folders that decide what the server does: no other user may change them.

use std::path::Path;

use super::Problem;

/// Refuses a file with a secret that others can write: they would choose the secret. One that everyone can read is
/// warned of and no more, since that is how Kubernetes mounts secrets. `name`: of what points at it.
pub fn check_file(name: &str, path: &Path) -> Result<(), Problem> {
    let Some(mode) = mode(path, std::fs::Metadata::is_file) else { return Ok(()) };
    let shown = path.display();
    if mode.others_write() {
        return Err(Problem::new(format_args!(
            "{name}: {shown}: others can write it (mode {:04o}); run: chmod go-w {shown}",
            mode.bits
        )));
    }
    if mode.bits & 0o004 != 0 {
        tracing::warn!(file = %shown, "{name} can be read by everyone on this machine; run: chmod o-r {shown}");
    }
    warn_of_owner(name, path, &mode);
    Ok(())
}

/// Refuses a folder in which others can put, replace or remove files.
pub fn check_folder(name: &str, path: &Path) -> Result<(), Problem> {
    let Some(mode) = mode(path, std::fs::Metadata::is_dir) else { return Ok(()) };
    let shown = path.display();
    if mode.others_write() {
        return Err(Problem::new(format_args!(
            "{name}: {shown}: others can write it (mode {:04o}); run: chmod go-w {shown}, or name a folder in it that \
             is not there yet, which will be private",
            mode.bits
        )));
    }
    warn_of_owner(name, path, &mode);
    Ok(())
}

struct FileMode {
    bits: u32,
    owner: u32,
}

impl FileMode {
    fn others_write(&self) -> bool {
        self.bits & 0o022 != 0
    }
}

/// Of what a path leads to, through links. None: it is not there, or not of that kind, such as a terminal or a pipe.
#[cfg(unix)]
fn mode(path: &Path, is_wanted: impl Fn(&std::fs::Metadata) -> bool) -> Option<FileMode> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = std::fs::metadata(path).ok().filter(is_wanted)?;
    Some(FileMode { bits: metadata.mode() & 0o7777, owner: metadata.uid() })
}

#[cfg(not(unix))]
fn mode(_: &Path, _: impl Fn(&std::fs::Metadata) -> bool) -> Option<FileMode> {
    None
}

/// Its owner can always change it. In containers it often belongs to a user of the host, so this is no refusal.
fn warn_of_owner(name: &str, path: &Path, mode: &FileMode) {
    let own = rustix::process::geteuid().as_raw();
    if mode.owner != own && mode.owner != 0 {
        let (file, owner) = (path.display(), mode.owner);
        tracing::warn!(%file, owner, "{name} belongs to another user, who can change it; run: chown {own} {file}");
    }
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_others_can_write_is_refused_with_the_command_that_helps() {
        let folder = std::env::temp_dir().join(format!("pushlet-private-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let (file, link) = (folder.join("key"), folder.join("link"));
        fs::write(&file, "secret").unwrap();
        symlink(&file, &link).unwrap();
        for (mode, refused) in [
            (0o600, false),
            (0o640, false),
            (0o644, false),
            (0o400, false),
            (0o620, true),
            (0o602, true),
            (0o666, true),
        ] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            for path in [&file, &link] {
                let told = check_file("registry.key_file", path).map_err(|problem| problem.to_string());
                let expected = format!(
                    "registry.key_file: {path}: others can write it (mode {mode:04o}); run: chmod go-w {path}",
                    path = path.display()
                );
                assert_eq!(told, if refused { Err(expected) } else { Ok(()) }, "{mode:o}");
            }
        }
        for (mode, refused) in [(0o700, false), (0o755, false), (0o770, true), (0o2775, true), (0o1777, true)]
        {
            fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
            let told = check_folder("data_dir", &folder).map_err(|problem| problem.to_string());
            assert_eq!(told.is_err(), refused, "{mode:o}: {told:?}");
            assert!(told.is_ok() || told.unwrap_err().contains("run: chmod go-w "));
        }
        // Others are no secret's place: a pipe of a shell, a file that is not there.
        assert!(
            check_file("x", Path::new("/dev/null")).is_ok() && check_folder("x", &folder.join("no")).is_ok()
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
