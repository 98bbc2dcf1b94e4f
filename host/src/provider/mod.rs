//! The sandbox: loads provider components and calls them.
//!
//! A [`Provider`] is one component, compiled once. [`Instances`] are its warm instances for one tenant:
//! a call takes one, runs it to its end on the calling thread, checks what came out, and puts it back;
//! after a trap, a time-out or a limit it is dropped. Nothing a guest does is more than a [`ProviderError`].

mod catalogue;
mod check;
mod engine;
mod guest;
mod instance;
mod instances;
mod load;
mod log;
mod manifest;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Engine;
use wasmtime::component::Linker;

pub use catalogue::{BUILT_IN, Catalogue};
pub use check::{Exchange, Message, Prepared};
pub use instances::Instances;
pub use load::{LoadError, Provider};
pub use log::GuestLog;

use crate::error::{Error, Kind};
use guest::Guest;

/// What a component may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of linear memory per instance, summed over its memories.
    pub memory: usize,
    /// Table elements per instance, summed over its tables.
    pub table_elements: usize,
    /// Bytes that one call may hand to the host, for a call about a single target.
    pub result: usize,
    /// Bytes that it may hand over beside that for each target.
    pub result_per_target: usize,
    /// Resource handles alive at once.
    pub handles: usize,
    /// Wall-clock time of one call.
    pub call_timeout: Duration,
    /// Instances alive at once in the whole process.
    pub instances: u32,
    /// Idle instances kept per tenant and component.
    pub idle: usize,
    /// Calls after which an instance is retired.
    pub calls_per_instance: u32,
    /// Bytes of a component file.
    pub component: usize,
    pub isolation: Isolation,
}

/// When an instance is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// For many calls of one tenant.
    Warm,
    /// Never: every call gets a fresh instance.
    PerCall,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            table_elements: 100_000,
            result: 256 << 10,
            result_per_target: 8 << 10,
            handles: 1024,
            call_timeout: Duration::from_millis(250),
            instances: 1000,
            idle: 4,
            calls_per_instance: 100_000,
            component: 32 << 20,
            isolation: Isolation::Warm,
        }
    }
}

/// The engine with everything that all components share.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    limits: Limits,
    _ticker: engine::Ticker,
}

impl Sandbox {
    /// Fails only where the machine can't run the sandbox (no memory to reserve, no thread to be had).
    pub fn new(limits: Limits) -> Result<Arc<Self>, Error> {
        let engine = engine::new(&limits).map_err(Error::internal)?;
        let mut linker = Linker::new(&engine);
        guest::link(&mut linker).map_err(Error::internal)?;
        let ticker = engine::Ticker::start(&engine).map_err(Error::internal)?;
        Ok(Arc::new(Self { engine, linker, limits, _ticker: ticker }))
    }
}

/// What a component did instead of answering. The caller's request fails, nobody else notices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error("the provider did not answer in time")]
    TimedOut,
    #[error("the provider reached its memory limit")]
    OutOfMemory,
    #[error("the provider stopped: {0}")]
    Panicked(String),
    #[error("the provider's answer breaks the contract: {0}")]
    BadOutput(String),
    #[error("the provider asked for what it may not have: {0}")]
    Refused(String),
    /// Not the component's fault.
    #[error("all instances are in use")]
    Exhausted,
}

impl ProviderError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::TimedOut => "provider_timeout",
            Self::OutOfMemory => "provider_memory",
            Self::Panicked(_) => "provider_panicked",
            Self::BadOutput(_) => "provider_bad_output",
            Self::Refused(_) => "provider_refused",
            Self::Exhausted => "overloaded",
        }
    }
}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        let message = error.to_string();
        match error {
            ProviderError::Exhausted => {
                Error::new(Kind::Overloaded, error.code(), message).after(Duration::from_secs(1))
            }
            ProviderError::TimedOut => Error::new(Kind::TimedOut, error.code(), message),
            _ => Error::new(Kind::Provider, error.code(), message),
        }
    }
}

#[cfg(test)]
mod tests;
