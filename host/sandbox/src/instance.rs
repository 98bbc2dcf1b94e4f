//! One instance of a component: a store, the guest in it, and one call at a time; and the pool of idle instances.
//!
//! All idle instances together are bounded in number and memory; when there is no room, those that waited longest are
//! dropped, and each waits for a limited time.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::component::{self, Instance, InstancePre, ResourceTableError};
use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::call_log::GuestLog;
use super::error::{LoadError, ProviderError, invalid};
use super::guest::GuestState;
use super::inspect::ComponentInterfaces;
use super::limits::{CallBounds, CallTime, SandboxLimits, TICK};
use super::usage::InstanceGuard;
use pushlet_model::contract::{codec, session};
use pushlet_quota::Shard;
use pushlet_quota::account::Account;

/// Where to find the functions of a component's world.
pub(super) enum WorldFunctions {
    Http(codec::GuestIndices),
    Stream(session::GuestIndices),
}

impl WorldFunctions {
    pub fn of(
        component: &InstancePre<GuestState>,
        interfaces: ComponentInterfaces,
    ) -> Result<Self, LoadError> {
        match interfaces.session {
            true => session::GuestIndices::new(component).map(Self::Stream).map_err(invalid),
            false => codec::GuestIndices::new(component).map(Self::Http).map_err(invalid),
        }
    }

    /// Compares the types of the functions with the contract's.
    pub fn check(&self, store: &mut Store<GuestState>, instance: &Instance) -> wasmtime::Result<()> {
        match self {
            Self::Http(codec) => codec.load(store, instance).map(drop),
            Self::Stream(session) => session.load(store, instance).map(drop),
        }
    }
}

/// `F`: the functions of the interface that it is made for.
pub(super) struct GuestInstance<F = codec::Guest> {
    store: Store<GuestState>,
    functions: F,
    /// How many calls it has answered.
    pub(super) calls: u32,
    _alive: InstanceGuard,
}

impl<F> GuestInstance<F> {
    /// `look_up` finds the functions, which costs as much as a small call: those of one interface, not of all.
    pub(super) fn new(
        engine: &Engine,
        limits: &SandboxLimits,
        alive: &Arc<AtomicUsize>,
        component: &InstancePre<GuestState>,
        bounds: &CallBounds,
        log: &Arc<GuestLog>,
        look_up: impl FnOnce(&mut Store<GuestState>, &component::Instance) -> wasmtime::Result<F>,
    ) -> Result<Self, ProviderError> {
        let mut store = Store::new(engine, GuestState::new(limits, bounds, log));
        store.limiter(|guest| &mut guest.limiter);
        store.set_max_component_handles(limits.handles);
        store.epoch_deadline_callback(|mut store| {
            let left = store.data_mut().time.left();
            Ok(left.map_or(UpdateDeadline::Interrupt, |left| UpdateDeadline::Continue(ticks(left))))
        });
        budget(&mut store, limits, bounds, 1);
        let start = async {
            let instance = component.instantiate_async(&mut store).await?;
            look_up(&mut store, &instance)
        };
        match now_or_never(start) {
            Some(Ok(functions)) => Ok(Self { store, functions, calls: 0, _alive: InstanceGuard::new(alive) }),
            Some(Err(error)) => Err(explain(&store, error)),
            None => Err(waited()),
        }
    }

    /// Runs one exported function to its end on this thread. After an error the instance is unusable.
    pub(super) fn call<T>(
        &mut self,
        limits: &SandboxLimits,
        bounds: &CallBounds,
        targets: usize,
        call: impl AsyncFnOnce(&F, &mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, ProviderError> {
        self.calls += 1;
        budget(&mut self.store, limits, bounds, targets);
        match now_or_never(call(&self.functions, &mut self.store)) {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(explain(&self.store, error)),
            None => Err(waited()),
        }
    }

    pub(super) fn guest(&self) -> &GuestState {
        self.store.data()
    }
}

/// Time and result size of one call.
fn budget(store: &mut Store<GuestState>, limits: &SandboxLimits, bounds: &CallBounds, targets: usize) {
    store.data_mut().time = CallTime::of(bounds.call_timeout);
    // The first tick asks `CallTime`, which begins to count only then.
    store.set_epoch_deadline(1);
    let per_target = limits.result_per_target.saturating_mul(targets);
    let most = limits.result.saturating_add(per_target);
    store.set_hostcall_fuel(most);
    store.data_mut().most_returned = most;
    store.data_mut().limiter.forgive();
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX).max(1)
}

/// Runs a future that must not wait: a guest that waits would block a thread that others need, and its clock stands
/// still.
fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn waited() -> ProviderError {
    ProviderError::Refused("it waits, and a provider must not wait".into())
}

/// Sorts what wasmtime says into what happened. The guest's frames go to its own log and nowhere else.
fn explain(store: &Store<GuestState>, error: wasmtime::Error) -> ProviderError {
    let guest = store.data();
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return ProviderError::Exhausted;
    }
    guest.log.failed(&format!("{error:?}\n"));
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::Interrupt => ProviderError::TimedOut,
            _ if guest.limiter.refused_by_account => ProviderError::MemoryLimit,
            _ if guest.limiter.refused => ProviderError::OutOfMemory,
            trap => ProviderError::Panicked(trap.to_string()),
        };
    }
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return ProviderError::Panicked(format!("it called exit({code})"));
    }
    if guest.limiter.refused_by_account {
        return ProviderError::MemoryLimit;
    }
    if guest.limiter.refused {
        return ProviderError::OutOfMemory;
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return ProviderError::Refused("it holds too many handles".into());
    }
    let cause = error.root_cause().to_string();
    // What wasmtime calls the bound of what is copied out of a guest.
    if cause.contains("fuel allocated for hostcalls has been exhausted") {
        let most = guest.most_returned;
        return ProviderError::BadOutput(format!("it is larger than one call may return, {most} bytes"));
    }
    // An error with frames of the guest comes from a function that it called, one without from lifting what
    // it returned (too large, not UTF-8, lying lengths).
    match error.downcast_ref::<WasmBacktrace>() {
        Some(_) => ProviderError::Refused(cause),
        None => ProviderError::BadOutput(cause),
    }
}

/// The idle instances of all tenants and components, and their totals.
#[derive(Default)]
pub(super) struct IdlePool {
    shelves: Mutex<Vec<Weak<IdleInstances>>>,
    /// Counts sweeps: a clock that costs nothing to read.
    now: AtomicU32,
    /// Bytes of linear memory on all shelves.
    memory: AtomicUsize,
}

/// The idle instances of one tenant and component.
pub(super) struct IdleInstances {
    idle: Arc<IdlePool>,
    account: Option<Arc<Account>>,
    instances: Mutex<VecDeque<IdleInstance>>,
}

struct IdleInstance {
    instance: GuestInstance,
    memory: usize,
    /// The sweep after which it was put here.
    since: u32,
    /// Whose thread used it last: its memory is in that processor's cache.
    shard: Shard,
}

impl IdlePool {
    pub(super) fn shelf(self: &Arc<Self>, account: Option<Arc<Account>>) -> Arc<IdleInstances> {
        let shelf = Arc::new(IdleInstances { idle: self.clone(), account, instances: Mutex::default() });
        self.shelves.lock().push(Arc::downgrade(&shelf));
        shelf
    }

    /// Retires the instances that waited for more than `sweeps` sweeps. Called at regular times.
    pub(super) fn sweep(&self, sweeps: u32) {
        let now = self.now.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.shelves.lock().retain(|shelf| shelf.strong_count() > 0);
        for shelf in self.alive() {
            drop(shelf.remove_oldest(|waiting| now.wrapping_sub(waiting.since) > sweeps, usize::MAX));
        }
    }

    /// Retires about `count` instances, those first that waited longest. How many they were.
    pub(super) fn evict(&self, count: usize) -> usize {
        let now = self.now.load(Ordering::Relaxed);
        let age = |shelf: &IdleInstances| {
            shelf.instances.lock().front().map(|waiting| now.wrapping_sub(waiting.since))
        };
        let mut shelves: Vec<_> =
            self.alive().into_iter().filter_map(|shelf| Some((age(&shelf)?, shelf))).collect();
        shelves.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        let mut evicted = 0;
        for (_, shelf) in shelves {
            if evicted >= count {
                break;
            }
            evicted += shelf.remove_oldest(|_| true, count - evicted).len();
        }
        evicted
    }

    /// Retires all instances that are paid for by one account. How many they were.
    pub(super) fn clear(&self, account: Option<&Arc<Account>>) -> usize {
        let Some(account) = account else { return 0 };
        let pays =
            |shelf: &Arc<IdleInstances>| shelf.account.as_ref().is_some_and(|own| Arc::ptr_eq(own, account));
        self.alive().iter().filter(|shelf| pays(shelf)).map(|shelf| shelf.clear()).sum()
    }

    /// Returns how many instances wait, and the bytes of their linear memory.
    pub(super) fn held(&self) -> (usize, usize) {
        let count = self.alive().iter().map(|shelf| shelf.len()).sum();
        (count, self.memory.load(Ordering::Relaxed))
    }

    fn alive(&self) -> Vec<Arc<IdleInstances>> {
        self.shelves.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl IdleInstances {
    /// Takes the instance that was used last, by this thread if there is one.
    pub(super) fn take(&self) -> Option<GuestInstance> {
        let shard = Shard::current();
        let mut instances = self.instances.lock();
        let own = instances.iter().rposition(|waiting| waiting.shard == shard);
        let last = instances.len().checked_sub(1)?;
        let waiting = instances.remove(own.unwrap_or(last))?;
        drop(instances);
        self.idle.memory.fetch_sub(waiting.memory, Ordering::Relaxed);
        Some(waiting.instance)
    }

    /// Keeps the instance if there is room for it.
    pub(super) fn put(&self, instance: GuestInstance, limits: &SandboxLimits) {
        let memory = instance.guest().memory();
        let total = self.idle.memory.load(Ordering::Relaxed).saturating_add(memory);
        if total > limits.idle_memory_in_all && self.idle.evict(limits.eviction()) == 0 {
            return;
        }
        let since = self.idle.now.load(Ordering::Relaxed);
        let mut instances = self.instances.lock();
        let own: usize = instances.iter().map(|waiting| waiting.memory).sum();
        if instances.len() < limits.idle && own.saturating_add(memory) <= limits.idle_memory {
            self.idle.memory.fetch_add(memory, Ordering::Relaxed);
            instances.push_back(IdleInstance { instance, memory, since, shard: Shard::current() });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.instances.lock().len()
    }

    fn clear(&self) -> usize {
        self.remove_oldest(|_| true, usize::MAX).len()
    }

    /// Takes instances out from the oldest on, for the caller to drop: that takes its time, and no lock
    /// must be held meanwhile.
    fn remove_oldest(&self, goes: impl Fn(&IdleInstance) -> bool, most: usize) -> Vec<IdleInstance> {
        let mut instances = self.instances.lock();
        let count = instances.iter().take(most).take_while(|waiting| goes(waiting)).count();
        let removed: Vec<_> = instances.drain(..count).collect();
        let memory = removed.iter().map(|waiting| waiting.memory).sum();
        self.idle.memory.fetch_sub(memory, Ordering::Relaxed);
        removed
    }
}

impl Drop for IdleInstances {
    fn drop(&mut self) {
        drop(self.remove_oldest(|_| true, usize::MAX));
    }
}
