//! The key that the registry seals secrets with.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Hidden, Problem, read_secret};

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    pub key: Option<Hidden>,
    pub key_file: Option<PathBuf>,
}

impl Registry {
    /// The key as it was written, wherever it stands.
    pub fn key(&self) -> Result<Option<Hidden>, Problem> {
        match (&self.key, &self.key_file) {
            (Some(_), Some(_)) => {
                Err(Problem::new("registry.key and registry.key_file are both set: give one"))
            }
            (Some(key), None) => Ok(Some(key.clone())),
            (None, Some(path)) => Ok(Some(read_secret("registry.key_file", path)?)),
            (None, None) => Ok(None),
        }
    }
}
