//! The sandbox: loads provider components and calls them.
//!
//! A [`Provider`] is one component, compiled once. [`Instances`] are its warm instances for one tenant:
//! a call takes one, runs it to its end on the calling thread, checks what came out, and puts it back;
//! after a trap, a time-out or a limit it is dropped. Nothing a guest does is more than a [`ProviderError`].
//!
//! What contains a guest, from the outside in:
//! - [`shape`] and [`inspect`]: size, validity, imports, world and version, before anything is compiled
//! - [`compiler`] and [`worker`]: a process of its own that compiles, and can be killed
//! - [`artefacts`]: what is compiled, and the proof that it is ours
//! - [`breaker`] and [`share`]: whether, how many at once, and after whom its calls run at all
//! - [`bounds`]: what its tenant may use
//! - [`engine`], [`instance`] and [`guest`]: time, memory, stack, handles, and a world without effects
//! - [`check`]: what it returns
//! - [`idle`]: what it may hold between calls

mod artefacts;
mod bounds;
mod breaker;
mod catalogue;
mod check;
mod clock;
mod compiler;
mod confine;
mod engine;
mod guest;
mod idle;
mod inspect;
mod instance;
mod instances;
mod load;
mod loader;
mod log;
mod management;
mod manifest;
#[cfg(feature = "native")]
pub mod native;
mod shape;
mod share;
mod types;
mod usage;
mod worker;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wasmtime::component::{self, InstancePre, Linker};
use wasmtime::{Engine, Store};

pub use breaker::BreakerPolicy;
pub use catalogue::{BUILT_IN, Catalogue, Own, Providers};
pub use check::{
    Exchange, Message, Prepared, encoded as check_encoded, replies as check_replies, target_url,
};
pub use compiler::{CompileLimits, Compiler};
pub use instances::Instances;
pub use load::{LoadError, Provider, digest};
pub use loader::Loader;
pub use log::GuestLog;
pub use management::{Items, action};
pub use manifest::check as check_manifest;
pub use usage::{SandboxFigures, UsageFigures};
pub use worker::compile;

use bounds::Bounds;
use guest::Guest;
use idle::Idle;
use instance::Instance;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::{self, TenantId};
use pushlet_quota::account::Accounts;
use share::Shares;
use usage::Usages;

/// How often idle instances are looked through.
const SWEEP: Duration = Duration::from_secs(5);

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
    /// Processor time of one call; it may take four times as long where others keep the processors.
    pub call_timeout: Duration,
    /// Instances alive at once in the whole process.
    pub instances: u32,
    /// Idle instances kept per tenant and component.
    pub idle: usize,
    /// Bytes of linear memory that these may have.
    pub idle_memory: usize,
    /// Bytes of linear memory that all idle instances may have.
    pub idle_memory_in_all: usize,
    /// For how long an idle instance is kept.
    pub idle_for: Duration,
    /// Calls after which an instance is retired.
    pub calls_per_instance: u32,
    /// Bytes of a component file.
    pub component: usize,
    pub isolation: Isolation,
    pub breaker: BreakerPolicy,
}

impl Limits {
    /// How many idle instances go at once when there is no room for another.
    fn eviction(&self) -> usize {
        (self.instances as usize / 16).max(1)
    }
}

/// Whose code a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// This server's own. Its calls are short, and run wherever they are made.
    BuiltIn,
    /// Anyone's. Its calls wait for their turn, and their CPU time is counted.
    Uploaded,
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
            idle_memory: 64 << 20,
            idle_memory_in_all: 2 << 30,
            idle_for: Duration::from_secs(60),
            calls_per_instance: 100_000,
            component: 32 << 20,
            isolation: Isolation::Warm,
            breaker: BreakerPolicy::default(),
        }
    }
}

/// Told of a quarantine: the tenant, the provider's name, the component's digest.
type OnQuarantine = Box<dyn Fn(&TenantId, &str, &str) + Send + Sync>;

/// The engine with everything that all components share.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    limits: Limits,
    idle: Arc<Idle>,
    shares: Shares,
    usages: Usages,
    /// Instances that live.
    alive: Arc<AtomicUsize>,
    on_quarantine: OnceLock<OnQuarantine>,
    _tickers: [engine::Ticker; 2],
}

impl Sandbox {
    /// Fails only where the machine can't run the sandbox (no memory to reserve, no thread to be had).
    /// `accounts`: what uploaded components use is charged there.
    pub fn new(limits: Limits, accounts: Arc<Accounts>) -> Result<Arc<Self>, Error> {
        let engine = engine::new(&limits).map_err(Error::internal)?;
        let mut linker = Linker::new(&engine);
        guest::link(&mut linker).map_err(Error::internal)?;
        let idle = Arc::<Idle>::default();
        let tickers = tickers(&engine, &idle, limits.idle_for).map_err(Error::internal)?;
        let makes_room = idle.clone();
        accounts.on_full(move |account| makes_room.clear(Some(account)) > 0);
        Ok(Arc::new(Self {
            engine,
            linker,
            limits,
            idle,
            shares: Shares::new(accounts),
            usages: Usages::new(),
            alive: Arc::default(),
            on_quarantine: OnceLock::new(),
            _tickers: tickers,
        }))
    }

    pub fn figures(&self) -> SandboxFigures {
        let (idle, idle_memory) = self.idle.held();
        SandboxFigures {
            instances: self.alive.load(Ordering::Relaxed),
            most_instances: self.limits.instances as usize,
            idle,
            idle_memory,
            usage: self.usages.figures(),
        }
    }

    /// Where the tenants' own limits are found; those that are narrower than this sandbox's hold for uploaded
    /// components. The first to tell.
    pub fn limits_of(&self, limits: impl Fn(&TenantId) -> tenant::Limits + Send + Sync + 'static) {
        self.shares.limits_of(Box::new(limits));
    }

    pub fn accounts(&self) -> &Arc<Accounts> {
        self.shares.accounts()
    }

    /// Who shall be told when a component is quarantined, on the thread of its last call. The first to ask.
    pub fn on_quarantine(&self, act: impl Fn(&TenantId, &str, &str) + Send + Sync + 'static) {
        let _ = self.on_quarantine.set(Box::new(act));
    }

    fn quarantined(&self, tenant: &TenantId, provider: &str, digest: &str) {
        tracing::warn!(%tenant, provider, digest, "provider quarantined: it keeps failing");
        if let Some(act) = self.on_quarantine.get() {
            act(tenant, provider, digest);
        }
    }

    /// A fresh instance. When there is no room, idle ones have to go.
    fn instantiate<F>(
        &self,
        component: &InstancePre<Guest>,
        bounds: &Bounds,
        log: &Arc<GuestLog>,
        look_up: impl Fn(&mut Store<Guest>, &component::Instance) -> wasmtime::Result<F>,
    ) -> Result<Instance<F>, ProviderError> {
        let new = || Instance::new(self, component, bounds, log, &look_up);
        match new() {
            Err(ProviderError::Exhausted) if self.idle.evict(self.limits.eviction()) > 0 => new(),
            Err(ProviderError::MemoryLimit) if self.idle.clear(bounds.account.as_ref()) > 0 => new(),
            instance => instance,
        }
    }
}

/// The two threads of a sandbox, however many tenants there are.
fn tickers(engine: &Engine, idle: &Arc<Idle>, idle_for: Duration) -> std::io::Result<[engine::Ticker; 2]> {
    let engine = engine.clone();
    let epoch = engine::Ticker::start("epoch", engine::TICK, move || engine.increment_epoch())?;
    let sweeps = u32::try_from(idle_for.as_secs() / SWEEP.as_secs()).unwrap_or(u32::MAX);
    let idle = idle.clone();
    Ok([epoch, engine::Ticker::start("idle", SWEEP, move || idle.sweep(sweeps))?])
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
    /// It failed so often that it is not called for a while.
    #[error("the provider kept failing and is not called for now")]
    Quarantined { retry_after: Duration },
    #[error("the tenant's providers used up their CPU time (limit cpu_milliseconds_per_second)")]
    CpuLimit { retry_after: Duration },
    #[error("the tenant's providers use all the memory that they may have (limit memory_bytes)")]
    MemoryLimit,
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
            Self::Quarantined { .. } => "provider_quarantined",
            Self::CpuLimit { .. } => "provider_cpu_limit",
            Self::MemoryLimit => "provider_memory_limit",
            Self::Exhausted => "overloaded",
        }
    }

    /// Did it do wrong in a call that was made?
    pub fn is_components_fault(&self) -> bool {
        !matches!(
            self,
            Self::Quarantined { .. } | Self::CpuLimit { .. } | Self::MemoryLimit | Self::Exhausted
        )
    }
}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        let message = error.to_string();
        match error {
            ProviderError::Exhausted => {
                Error::new(Kind::Overloaded, error.code(), message).after(Duration::from_secs(1))
            }
            ProviderError::MemoryLimit => {
                Error::new(Kind::Throttled, error.code(), message).after(Duration::from_secs(1))
            }
            ProviderError::CpuLimit { retry_after } => {
                Error::new(Kind::Throttled, error.code(), message).after(retry_after)
            }
            ProviderError::Quarantined { retry_after } => {
                Error::new(Kind::Provider, error.code(), message).after(retry_after)
            }
            ProviderError::TimedOut => Error::new(Kind::TimedOut, error.code(), message),
            _ => Error::new(Kind::Provider, error.code(), message),
        }
    }
}

#[cfg(test)]
mod tests;
