//! The engine (wasmtime), its limits of the machine and the clock that interrupts guests; and everything else that all
//! components share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::component::{self, InstancePre, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use super::breaker::ImposedQuarantines;
use super::call_log::GuestLog;
use super::code_config::code_config;
use super::error::ProviderError;
use super::guest::{self, GuestState};
use super::instance::{GuestInstance, IdlePool};
use super::limits::{CallBounds, SandboxLimits, TICK, TenantQuotas};
use super::usage::{ProviderUsages, SandboxStats};
use pushlet_model::error::Error;
use pushlet_model::tenant::{self, TenantId};
use pushlet_quota::account::Accounts;
use pushlet_quota::{OwnedThread, Shard};

/// Interval at which idle instances are swept.
const SWEEP: Duration = Duration::from_secs(5);

/// Called at a quarantine, and at its end, with the tenant, the provider's name, the component's digest, and how long it is;
/// None: it is over.
type OnQuarantine = Box<dyn Fn(&TenantId, &str, &str, Option<Duration>) + Send + Sync>;

/// Drops idle instances.
type SweeperThread = OwnedThread<mpsc::Sender<()>>;

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
    pub(super) imposed: ImposedQuarantines,
    clock: EpochClock,
    _sweeper: SweeperThread,
}

impl Sandbox {
    /// Fails only if the machine cannot run the sandbox (no memory to reserve, no thread).
    /// `accounts`: what uploaded components use is charged there.
    pub fn new(limits: SandboxLimits, accounts: Arc<Accounts>) -> Result<Arc<Self>, Error> {
        let engine = new_engine(&limits).map_err(Error::internal)?;
        let mut linker = Linker::new(&engine);
        guest::link(&mut linker).map_err(Error::internal)?;
        let idle = Arc::<IdlePool>::default();
        let ticking = engine.clone();
        let clock = EpochClock::start(move || ticking.increment_epoch()).map_err(Error::internal)?;
        let sweeper = sweeper(&idle, limits.idle_for).map_err(Error::internal)?;
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
            imposed: ImposedQuarantines::default(),
            clock,
            _sweeper: sweeper,
        }))
    }

    /// Runs an exported function of the instance to its end on this thread. After an error the instance is unusable.
    pub(super) fn call<F, T>(
        &self,
        instance: &mut GuestInstance<F>,
        bounds: &CallBounds,
        targets: usize,
        call: impl AsyncFnOnce(&F, &mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, ProviderError> {
        let _call = self.clock.call();
        instance.call(&self.limits, bounds, targets, call)
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

    /// Sets where the tenants' own limits are found; those that are narrower than this sandbox's hold for uploaded
    /// components. The first to tell.
    pub fn limits_of(&self, limits: impl Fn(&TenantId) -> tenant::TenantLimits + Send + Sync + 'static) {
        self.shares.limits_of(Box::new(limits));
    }

    pub fn accounts(&self) -> &Arc<Accounts> {
        self.shares.accounts()
    }

    /// Sets the function that is called when a component is quarantined or no longer is, on the thread of its last call.
    /// The first call counts.
    pub fn on_quarantine(
        &self,
        act: impl Fn(&TenantId, &str, &str, Option<Duration>) + Send + Sync + 'static,
    ) {
        let _ = self.on_quarantine.set(Box::new(act));
    }

    pub(super) fn tell_quarantine(
        &self,
        tenant: &TenantId,
        provider: &str,
        digest: &str,
        pause: Option<Duration>,
    ) {
        match pause {
            Some(_) => {
                tracing::warn!(%tenant, provider, digest, "provider quarantined: it keeps failing");
            }
            None => self.imposed.set(tenant, provider, digest, None),
        }
        if let Some(act) = self.on_quarantine.get() {
            act(tenant, provider, digest, pause);
        }
    }

    /// Remembers what another server of the fleet says of a component that may be loaded later, see
    /// [`Provider::impose_quarantine`](super::Provider::impose_quarantine).
    pub fn impose_quarantine(
        &self,
        (tenant, name, digest): (&TenantId, &str, &str),
        quarantine: Option<(Duration, Duration)>,
    ) {
        self.imposed.set(tenant, name, digest, quarantine);
    }

    /// Creates an instance. When there is no room, idle ones are dropped.
    pub(super) fn instantiate<F>(
        &self,
        component: &InstancePre<GuestState>,
        bounds: &CallBounds,
        log: &Arc<GuestLog>,
        look_up: impl Fn(&mut Store<GuestState>, &component::Instance) -> wasmtime::Result<F>,
    ) -> Result<GuestInstance<F>, ProviderError> {
        let _call = self.clock.call();
        let new =
            || GuestInstance::new(&self.engine, &self.limits, &self.alive, component, bounds, log, &look_up);
        match new() {
            Err(ProviderError::Exhausted) if self.idle.evict(self.limits.eviction()) > 0 => new(),
            Err(ProviderError::MemoryLimit) if self.idle.clear(bounds.account.as_ref()) > 0 => new(),
            instance => instance,
        }
    }
}

/// Starts the thread that drops idle instances, however many tenants there are.
fn sweeper(idle: &Arc<IdlePool>, idle_for: Duration) -> std::io::Result<SweeperThread> {
    let sweeps = u32::try_from(idle_for.as_secs() / SWEEP.as_secs()).unwrap_or(u32::MAX);
    let idle = idle.clone();
    let (stop, stopped) = mpsc::channel();
    OwnedThread::start("idle".to_owned(), stop, move || {
        while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(SWEEP) {
            idle.sweep(sweeps);
        }
    })
}

/// Free memory slots that keep something …
const KEPT_SLOTS: u32 = 64;
/// … and how many bytes each.
const KEPT_PER_SLOT: usize = 512 << 10;

/// Makes the engine.
pub(super) fn new_engine(limits: &SandboxLimits) -> wasmtime::Result<Engine> {
    match Engine::new(&engine_config(limits, Enabled::Yes)) {
        Ok(engine) => Ok(engine),
        // PAGEMAP_SCAN came with Linux 6.7; without it a fresh instance costs more, and nothing else changes.
        Err(_) => Engine::new(&engine_config(limits, Enabled::No)),
    }
}

/// Creates an engine that compiles for that of [`new_engine`], on one thread, and runs nothing.
pub(super) fn compiling_engine() -> wasmtime::Result<Engine> {
    Engine::new(code_config().parallel_compilation(false))
}

fn engine_config(limits: &SandboxLimits, pagemap_scan: Enabled) -> Config {
    let mut config = code_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool_config(limits, pagemap_scan)));
    config
}

fn pool_config(limits: &SandboxLimits, pagemap_scan: Enabled) -> PoolingAllocationConfig {
    let instances = limits.instances;
    let mut pool = PoolingAllocationConfig::new();
    // A component made from Python has 38 core instances, one from QuickJS three memories.
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(4).max(64))
        .total_memories(instances.saturating_add(4))
        .total_tables(instances.saturating_mul(2).max(64))
        .total_stacks(instances)
        .total_gc_heaps(0)
        .max_core_instances_per_component(64)
        .max_memories_per_component(4)
        .max_tables_per_component(64)
        .max_memory_size(limits.memory)
        .table_elements(limits.table_elements)
        // Kept so that the next instance of the same component starts without page faults. The product of
        // these two is what free slots may hold of the machine's memory.
        .linear_memory_keep_resident(KEPT_PER_SLOT)
        .table_keep_resident(16 << 10)
        .max_unused_warm_slots(KEPT_SLOTS)
        .pagemap_scan(pagemap_scan);
    pool
}

/// Ticks without a call after which the clock stops: starting it again costs a call more than a tick costs the machine.
const QUIET: u32 = 50;

/// Interrupts guests every [`TICK`] while any of them runs, and stands still otherwise, so that an idle server does not
/// wake. An OS thread of its own: a runtime's task would stand still exactly when guests keep all workers busy.
pub(super) struct EpochClock {
    calls: Arc<GuestCalls>,
    thread: Option<JoinHandle<()>>,
}

/// The calls that run.
struct GuestCalls {
    /// One for each shard, so that they do not share a cache line, and one for all other threads.
    counts: Box<[CallCount]>,
    stands_still: AtomicBool,
    stop: AtomicBool,
}

/// Calls that run in the lower half, and all calls in the upper half.
#[derive(Default)]
#[repr(align(128))]
struct CallCount(AtomicU64);

const ONE_CALL: u64 = 1 << 32 | 1;

/// A call of a guest. While there is one, the clock ticks.
pub(super) struct RunningCall<'a>(&'a CallCount);

impl EpochClock {
    /// Starts the thread, which calls `tick`.
    pub fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let calls = Arc::new(GuestCalls {
            counts: (0..=Shard::count()).map(|_| CallCount::default()).collect(),
            stands_still: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let seen = calls.clone();
        let thread = thread::Builder::new().name("epoch".into()).spawn(move || seen.watch(tick))?;
        Ok(Self { calls, thread: Some(thread) })
    }

    /// Counts a call of a guest, which is about to begin on this thread.
    pub fn call(&self) -> RunningCall<'_> {
        let calls = &*self.calls;
        let count = calls.counts.get(Shard::current().place()).unwrap_or(&calls.counts[0]);
        count.0.fetch_add(ONE_CALL, Ordering::SeqCst);
        // Either this sees that the clock stands still, or the clock sees the call before it stands still.
        if calls.stands_still.load(Ordering::SeqCst) && calls.stands_still.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        RunningCall(count)
    }

    fn wake(&self) {
        self.thread.iter().for_each(|thread| thread.thread().unpark());
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl GuestCalls {
    fn watch(&self, tick: impl Fn()) {
        let (mut quiet, mut before) = (0, 0);
        while !self.stop.load(Ordering::Acquire) {
            thread::park_timeout(TICK);
            tick();
            let (running, all) = self.counts();
            quiet = if running || all != before { 0 } else { quiet + 1 };
            before = all;
            if quiet == QUIET {
                self.stand_still();
                quiet = 0;
            }
        }
    }

    /// Waits for the next call.
    fn stand_still(&self) {
        self.stands_still.store(true, Ordering::SeqCst);
        let (running, _) = self.counts();
        while !running && self.stands_still.load(Ordering::SeqCst) && !self.stop.load(Ordering::Acquire) {
            thread::park();
        }
        self.stands_still.store(false, Ordering::SeqCst);
    }

    /// Returns whether any call runs, and how many there were.
    fn counts(&self) -> (bool, u32) {
        self.counts
            .iter()
            .map(|count| count.0.load(Ordering::SeqCst))
            .fold((false, 0), |(running, all), count| {
                (running || count as u32 > 0, all.wrapping_add((count >> 32) as u32))
            })
    }
}

impl Drop for EpochClock {
    fn drop(&mut self) {
        self.calls.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "clock_tests.rs"]
mod tests;
