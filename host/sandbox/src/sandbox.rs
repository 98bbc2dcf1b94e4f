//! The engine, and everything that all components share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wasmtime::component::{self, InstancePre, Linker};
use wasmtime::{Engine, Store};

use super::bounds::CallBounds;
use super::engine;
use super::error::ProviderError;
use super::guest::{self, GuestState};
use super::idle::IdlePool;
use super::instance::GuestInstance;
use super::limits::SandboxLimits;
use super::log::GuestLog;
use super::tenant_quota::TenantQuotas;
use super::usage::{ProviderUsages, SandboxStats};
use pushlet_model::error::Error;
use pushlet_model::tenant::{self, TenantId};
use pushlet_quota::account::Accounts;

/// Interval at which idle instances are swept.
const SWEEP: Duration = Duration::from_secs(5);

/// Called at a quarantine with the tenant, the provider's name and the component's digest.
type OnQuarantine = Box<dyn Fn(&TenantId, &str, &str) + Send + Sync>;

/// The engine with everything that all components share.
pub struct Sandbox {
    pub(super) engine: Engine,
    pub(super) linker: Linker<GuestState>,
    pub(super) limits: SandboxLimits,
    pub(super) idle: Arc<IdlePool>,
    pub(super) shares: TenantQuotas,
    pub(super) usages: ProviderUsages,
    /// The number of live instances.
    pub(super) alive: Arc<AtomicUsize>,
    on_quarantine: OnceLock<OnQuarantine>,
    _tickers: [engine::IntervalThread; 2],
}

impl Sandbox {
    /// Fails only if the machine cannot run the sandbox (no memory to reserve, no thread).
    /// `accounts`: what uploaded components use is charged there.
    pub fn new(limits: SandboxLimits, accounts: Arc<Accounts>) -> Result<Arc<Self>, Error> {
        let engine = engine::new(&limits).map_err(Error::internal)?;
        let mut linker = Linker::new(&engine);
        guest::link(&mut linker).map_err(Error::internal)?;
        let idle = Arc::<IdlePool>::default();
        let tickers = tickers(&engine, &idle, limits.idle_for).map_err(Error::internal)?;
        let makes_room = idle.clone();
        accounts.on_full(move |account| makes_room.clear(Some(account)) > 0);
        Ok(Arc::new(Self {
            engine,
            linker,
            limits,
            idle,
            shares: TenantQuotas::new(accounts),
            usages: ProviderUsages::new(),
            alive: Arc::default(),
            on_quarantine: OnceLock::new(),
            _tickers: tickers,
        }))
    }

    pub fn figures(&self) -> SandboxStats {
        let (idle, idle_memory) = self.idle.held();
        SandboxStats {
            instances: self.alive.load(Ordering::Relaxed),
            most_instances: self.limits.instances as usize,
            idle,
            idle_memory,
            usage: self.usages.figures(),
        }
    }

    /// Where the tenants' own limits are found; those that are narrower than this sandbox's hold for uploaded
    /// components. The first to tell.
    pub fn limits_of(&self, limits: impl Fn(&TenantId) -> tenant::TenantLimits + Send + Sync + 'static) {
        self.shares.limits_of(Box::new(limits));
    }

    pub fn accounts(&self) -> &Arc<Accounts> {
        self.shares.accounts()
    }

    /// Sets the function that is called when a component is quarantined, on the thread of its last call. The first call
    /// counts.
    pub fn on_quarantine(&self, act: impl Fn(&TenantId, &str, &str) + Send + Sync + 'static) {
        let _ = self.on_quarantine.set(Box::new(act));
    }

    pub(super) fn quarantined(&self, tenant: &TenantId, provider: &str, digest: &str) {
        tracing::warn!(%tenant, provider, digest, "provider quarantined: it keeps failing");
        if let Some(act) = self.on_quarantine.get() {
            act(tenant, provider, digest);
        }
    }

    /// A fresh instance. When there is no room, idle ones have to go.
    pub(super) fn instantiate<F>(
        &self,
        component: &InstancePre<GuestState>,
        bounds: &CallBounds,
        log: &Arc<GuestLog>,
        look_up: impl Fn(&mut Store<GuestState>, &component::Instance) -> wasmtime::Result<F>,
    ) -> Result<GuestInstance<F>, ProviderError> {
        let new =
            || GuestInstance::new(&self.engine, &self.limits, &self.alive, component, bounds, log, &look_up);
        match new() {
            Err(ProviderError::Exhausted) if self.idle.evict(self.limits.eviction()) > 0 => new(),
            Err(ProviderError::MemoryLimit) if self.idle.clear(bounds.account.as_ref()) > 0 => new(),
            instance => instance,
        }
    }
}

/// The two threads of a sandbox, however many tenants there are.
fn tickers(
    engine: &Engine,
    idle: &Arc<IdlePool>,
    idle_for: Duration,
) -> std::io::Result<[engine::IntervalThread; 2]> {
    let engine = engine.clone();
    let epoch = engine::IntervalThread::start("epoch", engine::TICK, move || engine.increment_epoch())?;
    let sweeps = u32::try_from(idle_for.as_secs() / SWEEP.as_secs()).unwrap_or(u32::MAX);
    let idle = idle.clone();
    Ok([epoch, engine::IntervalThread::start("idle", SWEEP, move || idle.sweep(sweeps))?])
}
