//! `serve --simulator` and `pushlet simulator`: the push services' simulators in this process.

use std::path::Path;

use crate::config::{Config, Problem};

/// The simulators; they end when this is dropped.
pub struct Running(());

/// Starts the simulators, keeps their credentials in `directory`, and points `config` at them: its
/// endpoints, and the authority that signed their certificates. Prints the commands to try.
pub async fn start(_config: &mut Config, _directory: &Path) -> Result<Running, Problem> {
    Err(Problem::new("this build has no simulator"))
}

/// Starts the simulators for servers in other processes, and prints how to point those at them.
pub async fn alone(_directory: &Path) -> Result<Running, Problem> {
    Err(Problem::new("this build has no simulator"))
}
