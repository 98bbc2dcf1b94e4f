//! Whom the configuration lets in.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

use super::{Config, HiddenText, Problem, private};

/// Characters of the operator's key.
const SHORTEST_KEY: usize = 16;

/// Who may call.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    pub username: Option<String>,
    pub password: Option<HiddenText>,
    pub password_file: Option<PathBuf>,
}

/// The operator, as a caller.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    pub key: Option<HiddenText>,
    pub key_file: Option<PathBuf>,
}

/// The callers that the configuration admits, in addition to those with tenants' keys.
#[derive(Default)]
pub struct CallerConfig {
    /// Who is the default tenant.
    pub login: Option<Login>,
    /// The operator's key.
    pub admin: Option<HiddenText>,
    /// Names of this server, in addition to those of this machine.
    pub allowed_hosts: Vec<String>,
}

/// A name and password by HTTP Basic.
pub struct Login {
    pub username: String,
    pub password: HiddenText,
}

impl Config {
    /// Who may call. Without a login and an operator everybody may, which is only allowed where nobody else can
    /// reach the port.
    pub fn callers(&self) -> Result<CallerConfig, Problem> {
        let callers = CallerConfig {
            login: self.auth.login()?,
            admin: self.admin.key()?,
            allowed_hosts: self.allowed_hosts.iter().map(|name| host_name(name)).collect::<Result<_, _>>()?,
        };
        let guarded = callers.login.is_some() || callers.admin.is_some();
        if !guarded && !self.listen.ip().to_canonical().is_loopback() {
            let listen = self.listen;
            return Err(Problem::new(format_args!(
                "listen = \"{listen}\" can be reached from other machines: set auth.username and auth.password, or admin.key, or listen on 127.0.0.1"
            )));
        }
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

/// A name or address as it stands in a URL, without a port.
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

/// A secret that stands in the configuration, or in a file that it names.
pub(super) fn secret(
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

/// The one line of a file. `name`: of what points at it.
pub fn read_secret(name: &str, path: &Path) -> Result<HiddenText, Problem> {
    let wrong = |why: &dyn fmt::Display| Problem::new(format_args!("{name}: {}: {why}", path.display()));
    private::check_file(name, path)?;
    let mut text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    if text.is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    Ok(HiddenText::new(text))
}
