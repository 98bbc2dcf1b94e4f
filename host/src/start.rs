//! Puts the parts together.

use crate::config::{Config, Problem};
use crate::gateway::Gateway;

/// The gateway that a configuration describes, with its providers loaded.
pub async fn gateway(_config: &Config) -> Result<Gateway, Problem> {
    Err(Problem::new("this build has no gateway"))
}
