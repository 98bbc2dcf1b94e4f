//! The key that the registry seals secrets with.

use std::path::PathBuf;

use serde::Deserialize;

use super::callers::secret;
use super::{HiddenText, Problem};

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    pub key: Option<HiddenText>,
    pub key_file: Option<PathBuf>,
}

impl RegistryConfig {
    /// The key as it was written, wherever it stands.
    pub fn key(&self) -> Result<Option<HiddenText>, Problem> {
        secret("registry.key", self.key.as_ref(), self.key_file.as_deref())
    }
}
