//! What the harness asks of `pushlet-linked`.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, at};

/// How a provider's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// As Rust functions.
    Native,
    /// In instances that are used again.
    Warm,
    /// In a fresh instance for each call.
    PerCall,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Native, Self::Warm, Self::PerCall];

    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Warm => "warm",
            Self::PerCall => "per-call",
        }
    }
}

/// Which provider's codec is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    Apns,
    /// Encrypts each message. Not linked natively.
    WebPush,
}

impl Subject {
    pub const ALL: [Self; 2] = [Self::Apns, Self::WebPush];

    /// The name of the component.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::WebPush => "webpush",
        }
    }

    /// In what ways it can run.
    pub fn modes(self) -> &'static [Mode] {
        match self {
            Self::Apns => &Mode::ALL,
            Self::WebPush => &[Mode::Warm, Mode::PerCall],
        }
    }
}

/// How the gateway's codecs run: the word after `gateway`, before the command line of `pushlet`.
pub const NATIVELY: &str = "natively";
pub const SANDBOXED: &str = "sandboxed";

/// Pushes through one codec; answered are the microseconds that each took by the wall clock.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Repeat {
    pub subject: Subject,
    pub mode: Mode,
    /// At once.
    pub threads: u32,
    /// Pushes of each thread that are neither timed nor counted.
    pub warm_up: u32,
    pub times: u32,
}

/// `pushlet-linked codec`.
pub fn codec(linked: &Path, repeat: &Repeat) -> Result<Command, Failure> {
    let mut command = Command::new(linked);
    command.arg("codec").arg(serde_json::to_string(repeat).map_err(at("orders"))?);
    Ok(command)
}

/// The bytes of a built-in component.
pub fn component(linked: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let mut command = Command::new(linked);
    let output =
        command.args(["component", name]).stderr(Stdio::inherit()).output().map_err(at("component"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Failure::new(format!("no component {name}")))
    }
}
