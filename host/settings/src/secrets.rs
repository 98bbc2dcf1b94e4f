//! Keys and passwords of the configuration, the callers that they let in, and the files and folders that decide what
//! the server does: no other user may change those.

use std::fmt;
use std::path::Path;

use url::Url;

use super::{
    AdminConfig, AuthConfig, Config, DeliveryConfig, HiddenText, ListenAddress, Problem, RegistryConfig,
};

/// Characters of the operator's key.
const SHORTEST_KEY: usize = 16;

/// The callers that the configuration admits, in addition to those with tenants' keys.
#[derive(Default)]
pub struct CallerConfig {
    /// The login of the default tenant.
    pub login: Option<Login>,
    /// The operator's key.
    pub admin: Option<HiddenText>,
    /// Names of this server, in addition to those of this machine.
    pub allowed_hosts: Vec<String>,
}

impl CallerConfig {
    /// Checks that other machines reach this address only if callers need credentials.
    pub fn may_listen(&self, listen: &ListenAddress) -> Result<(), Problem> {
        if self.login.is_some() || self.admin.is_some() || listen.is_local() {
            return Ok(());
        }
        Err(Problem::new(format_args!(
            "listen = \"{listen}\" can be reached from other machines: set auth.username and auth.password, or admin.key, or listen on 127.0.0.1"
        )))
    }
}

/// A name and password by HTTP Basic.
pub struct Login {
    pub username: String,
    pub password: HiddenText,
}

impl Config {
    /// Returns the callers that are let in. Without a login and an operator every caller is, which is only allowed if
    /// no other machine can reach the port.
    pub fn callers(&self) -> Result<CallerConfig, Problem> {
        let callers = CallerConfig {
            login: self.auth.login()?,
            admin: self.admin.key()?,
            allowed_hosts: self.allowed_hosts.iter().map(|name| host_name(name)).collect::<Result<_, _>>()?,
        };
        callers.may_listen(&self.listen)?;
        Ok(callers)
    }
}

impl AuthConfig {
    fn login(&self) -> Result<Option<Login>, Problem> {
        let password = secret("auth.password", self.password.as_ref(), self.password_file.as_deref())?;
        match (&self.username, password) {
            (Some(name), _) if name.contains(':') => {
                Err(Problem::new("auth.username must not hold a colon: HTTP Basic could not carry it"))
            }
            (Some(username), Some(password)) => Ok(Some(Login { username: username.clone(), password })),
            (None, None) => Ok(None),
            (Some(_), None) => {
                Err(Problem::new("auth.username is set but no auth.password or auth.password_file"))
            }
            (None, Some(_)) => Err(Problem::new("auth.password is set but no auth.username")),
        }
    }
}

impl RegistryConfig {
    /// Returns the key that the registry seals secrets with, as it was written.
    pub fn key(&self) -> Result<Option<HiddenText>, Problem> {
        secret("registry.key", self.key.as_ref(), self.key_file.as_deref())
    }

    /// Returns the NATS servers of the fleet; None: this server is alone.
    pub fn servers(&self) -> Result<Option<Vec<String>>, Problem> {
        let Some(text) = &self.url else { return Ok(None) };
        let servers = text.split(',').map(|url| nats_url(url.trim()));
        servers.collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Returns what this server logs in to NATS with: the name of the key, and the content of the file.
    pub fn login(&self) -> Result<Option<(&'static str, HiddenText)>, Problem> {
        let (name, path) = match (&self.credentials, &self.nkey) {
            (Some(_), Some(_)) => {
                return Err(Problem::new("registry.credentials and registry.nkey are both set: give one"));
            }
            (Some(path), None) => ("registry.credentials", path),
            (None, Some(path)) => ("registry.nkey", path),
            (None, None) => return Ok(None),
        };
        read_secret(name, path).map(|text| Some((name, text)))
    }
}

/// Checks the URL of a NATS server. A password in it would be shown with it.
fn nats_url(text: &str) -> Result<String, Problem> {
    let wrong = |why: &str| Problem::new(format_args!("registry.url: {why}"));
    let url = Url::parse(text).map_err(|_| wrong("expected nats://HOST:PORT or tls://HOST:PORT"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it must not hold a login: use registry.credentials or registry.nkey"));
    }
    let is_bare = url.path().is_empty() && url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "nats" | "tls") || url.host_str().is_none_or(str::is_empty) || !is_bare {
        return Err(wrong("expected nats://HOST:PORT or tls://HOST:PORT"));
    }
    Ok(text.to_owned())
}

impl DeliveryConfig {
    /// Returns the URL of the proxy, as it was written.
    pub fn proxy(&self) -> Result<Option<HiddenText>, Problem> {
        secret("delivery.proxy", self.proxy.as_ref(), self.proxy_file.as_deref())
    }
}

impl AdminConfig {
    fn key(&self) -> Result<Option<HiddenText>, Problem> {
        let key = secret("admin.key", self.key.as_ref(), self.key_file.as_deref())?;
        let long = |key: &HiddenText| key.reveal().len() >= SHORTEST_KEY;
        if key.as_ref().is_none_or(long) {
            return Ok(key);
        }
        Err(Problem::new(format_args!("admin.key must have at least {SHORTEST_KEY} characters")))
    }
}

/// Checks a name or address, as it is written in a URL without a port.
fn host_name(name: &str) -> Result<String, Problem> {
    let wrong = || {
        Problem::new(format_args!(
            "allowed_hosts: {name}: expected a name as push.example, without scheme, port and path"
        ))
    };
    let url = Url::parse(&format!("http://{name}/")).map_err(|_| wrong())?;
    let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.:[]".contains(letter));
    let is_bare = is_plain && url.port().is_none() && url.username().is_empty() && url.path() == "/";
    match url.host_str() {
        Some(host) if is_bare && host.eq_ignore_ascii_case(name) => Ok(host.to_owned()),
        _ => Err(wrong()),
    }
}

/// Returns a secret that is in the configuration, or in a file that it names.
fn secret(
    name: &str,
    inline: Option<&HiddenText>,
    file: Option<&Path>,
) -> Result<Option<HiddenText>, Problem> {
    match (inline, file) {
        (Some(_), Some(_)) => {
            Err(Problem::new(format_args!("{name} and {name}_file are both set: give one")))
        }
        (Some(secret), None) => Ok(Some(secret.clone())),
        (None, Some(path)) => read_secret(&format!("{name}_file"), path).map(Some),
        (None, None) => Ok(None),
    }
}

/// Reads the one line of a file. `name`: the key or flag that names the file.
pub fn read_secret(name: &str, path: &Path) -> Result<HiddenText, Problem> {
    let wrong = |why: &dyn fmt::Display| Problem::new(format_args!("{name}: {}: {why}", path.display()));
    check_file(name, path)?;
    let mut text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    // Only the line break goes: spaces may be part of a password.
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    if text.is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    Ok(HiddenText::new(text))
}

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
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
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
            fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
            let told = check_folder("data_dir", folder).map_err(|problem| problem.to_string());
            assert_eq!(told.is_err(), refused, "{mode:o}: {told:?}");
            assert!(told.is_ok() || told.unwrap_err().contains("run: chmod go-w "));
        }
        // Others are no secret's place: a pipe of a shell, a file that is not there.
        assert!(
            check_file("x", Path::new("/dev/null")).is_ok() && check_folder("x", &folder.join("no")).is_ok()
        );
    }
}
