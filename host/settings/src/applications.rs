//! Applications that files describe: those of `registry.applications`, and those that `pushlet app export` writes.
//!
//! A file `NAME.toml` describes one application. Secrets stand in files of their own, which it names.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Value;
use zeroize::Zeroizing;

use super::secrets::{check_file, check_folder};
use super::{Config, Problem};
use pushlet_model::contract::Environment;

/// The key that names the directory.
const KEY: &str = "registry.applications";
/// Bytes of a secret's file: far more than any credential has.
const LARGEST_SECRET: u64 = 1 << 20;

/// An application, as a file describes it.
pub struct ApplicationFile {
    pub path: PathBuf,
    /// None: the default tenant.
    pub tenant: Option<String>,
    pub id: String,
    /// None: the one that takes the credential.
    pub provider: Option<String>,
    pub environment: Option<Environment>,
    /// By name.
    pub settings: BTreeMap<String, String>,
    /// The files of secrets, by the name of the secret's field.
    pub credentials: BTreeMap<String, PathBuf>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenApplication {
    tenant: Option<String>,
    id: Option<String>,
    provider: Option<String>,
    environment: Option<WrittenEnvironment>,
    #[serde(default)]
    settings: BTreeMap<String, Value>,
    #[serde(default)]
    credentials: BTreeMap<String, PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenEnvironment {
    Production,
    Development,
}

impl Config {
    /// Reads the files of `registry.applications`; None: it is not set.
    pub fn application_files(&self) -> Result<Option<Vec<ApplicationFile>>, Problem> {
        let Some(directory) = &self.registry.applications else { return Ok(None) };
        check_folder(KEY, directory)?;
        let files = read_applications(directory);
        files.map(Some).map_err(|problem| Problem::new(format_args!("{KEY}: {problem}")))
    }
}

/// Reads all files of a directory that end with `.toml`, in the order of their names.
pub fn read_applications(directory: &Path) -> Result<Vec<ApplicationFile>, Problem> {
    let wrong = |error| Problem::new(format_args!("{}: {error}", directory.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(wrong)? {
        paths.push(entry.map_err(wrong)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let files = paths.into_iter().map(ApplicationFile::read).collect::<Result<Vec<_>, _>>()?;
    let mut known = BTreeMap::new();
    for file in &files {
        if let Some(other) = known.insert((&file.tenant, &file.id), &file.path) {
            let (path, other, id) = (file.path.display(), other.display(), &file.id);
            return Err(Problem::new(format_args!("{path}: {other} describes the application {id} too")));
        }
    }
    Ok(files)
}

impl ApplicationFile {
    fn read(path: PathBuf) -> Result<Self, Problem> {
        let wrong = |why: &dyn std::fmt::Display| Problem::new(format_args!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
        let written: WrittenApplication = toml::from_str(&text).map_err(|error| wrong(&error))?;
        let WrittenApplication { tenant, id, provider, environment, settings, credentials } = written;
        let name = || path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let id = id.unwrap_or_else(name);
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut texts = BTreeMap::new();
        for (name, value) in settings {
            let text = match value {
                Value::String(text) => text,
                Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
                _ => {
                    return Err(wrong(&format_args!(
                        "settings.{name}: expected a text, a number or a switch"
                    )));
                }
            };
            texts.insert(name, text);
        }
        Ok(Self {
            tenant,
            id,
            provider,
            environment: environment.map(|environment| match environment {
                WrittenEnvironment::Production => Environment::Production,
                WrittenEnvironment::Development => Environment::Development,
            }),
            settings: texts,
            credentials: credentials.into_iter().map(|(name, file)| (name, directory.join(file))).collect(),
            path,
        })
    }

    /// Reads the secrets, by the name of their field.
    pub fn secrets(&self) -> Result<BTreeMap<String, Zeroizing<Vec<u8>>>, Problem> {
        let read = |(name, file): (&String, &PathBuf)| {
            check_file(&format!("credentials.{name}"), file)?;
            Ok((name.clone(), read_credential(file)?))
        };
        self.credentials.iter().map(read).collect()
    }
}

/// Reads a file with a secret. One line of text loses its line break, which editors add; other files stay as they are.
pub fn read_credential(file: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let wrong = |why: &dyn std::fmt::Display| Problem::new(format_args!("{}: {why}", file.display()));
    let opened = std::fs::File::open(file).map_err(|error| wrong(&error))?;
    let mut bytes = Zeroizing::new(Vec::new());
    opened.take(LARGEST_SECRET + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > LARGEST_SECRET {
        return Err(wrong(&"the file is too large for a credential"));
    }
    trim_line(&mut bytes);
    Ok(bytes)
}

/// Removes the line break of one line of text.
pub fn trim_line(bytes: &mut Vec<u8>) {
    let line = bytes.trim_ascii_end().len();
    if bytes.get(..line).is_some_and(|line| line.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '))
    {
        bytes.truncate(line);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_describes_an_application_and_names_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "shop.toml",
            "environment = \"development\"\n[settings]\ntopic = \"a\"\nttl = 5\n[credentials]\np8 = \"shop.p8\"\n",
        );
        write("shop.p8", "secret \n");
        write("b.toml", "tenant = \"acme\"\nid = \"news/eu\"\nprovider = \"gcm\"\n");
        write("notes.txt", "none of these");
        let all = read_applications(folder.path()).unwrap();
        assert_eq!((all.len(), all[0].id.as_str(), all[0].tenant.as_deref()), (2, "news/eu", Some("acme")));
        let shop = &all[1];
        assert_eq!((shop.id.as_str(), shop.environment), ("shop", Some(Environment::Development)));
        assert_eq!(shop.settings["topic"], "a");
        assert_eq!(shop.settings["ttl"], "5");
        assert_eq!(shop.secrets().unwrap()["p8"].as_slice(), b"secret");
        write("shop.p8", "two\nlines\n");
        assert_eq!(shop.secrets().unwrap()["p8"].as_slice(), b"two\nlines\n");

        write("twice.toml", "id = \"shop\"");
        let problem = read_applications(folder.path()).err().unwrap().to_string();
        assert!(problem.contains("twice.toml: ") && problem.contains("shop.toml describes"), "{problem}");
        write("twice.toml", "credential.p8 = \"a\"");
        let problem = read_applications(folder.path()).err().unwrap().to_string();
        assert!(problem.contains("unknown field `credential`"), "{problem}");
    }
}
