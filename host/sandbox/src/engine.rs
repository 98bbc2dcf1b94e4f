//! The wasmtime engine: what a component may use of the machine, and the clock that interrupts it.

use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

use super::limits::SandboxLimits;

/// How often a running guest looks whether its time is up.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// Free memory slots that keep something …
const KEPT_SLOTS: u32 = 64;
/// … and how many bytes each.
const KEPT_PER_SLOT: usize = 512 << 10;

/// Makes the engine. Everything that is not needed is off: threads, GC, exceptions, 64-bit memories.
pub(super) fn new(limits: &SandboxLimits) -> wasmtime::Result<Engine> {
    match Engine::new(&config(limits, Enabled::Yes)) {
        Ok(engine) => Ok(engine),
        // PAGEMAP_SCAN came with Linux 6.7; without it a fresh instance costs more, and nothing else changes.
        Err(_) => Engine::new(&config(limits, Enabled::No)),
    }
}

/// An engine that compiles for [`new`]'s, on one thread, and runs nothing.
pub(super) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(code_config().parallel_compilation(false))
}

fn config(limits: &SandboxLimits, pagemap_scan: Enabled) -> Config {
    let mut config = code_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits, pagemap_scan)));
    config
}

/// All that decides what compiled code looks like.
fn code_config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .epoch_interruption(true)
        .concurrency_support(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .gc_support(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        // What a computation gives must not depend on the machine.
        .wasm_relaxed_simd(false)
        .cranelift_nan_canonicalization(true)
        // The difference is what host functions have, and guests call none that needs much.
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20)
        .memory_init_cow(true)
        .memory_reservation(4 << 30)
        .memory_guard_size(32 << 20)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(8));
    config
}

fn pool(limits: &SandboxLimits, pagemap_scan: Enabled) -> PoolingAllocationConfig {
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

/// Calls a function at regular intervals until it is dropped. An OS thread of its own: a runtime's task would
/// stand still exactly when guests keep all workers busy.
pub(super) struct IntervalThread {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IntervalThread {
    pub(super) fn start(
        name: &str,
        period: Duration,
        act: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(period) {
                act();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for IntervalThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
