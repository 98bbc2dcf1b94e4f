//! One instance of a component: a store, the guest in it, and one call at a time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasmtime::component::{self, InstancePre, ResourceTableError};
use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bounds::CallBounds;
use super::call_time::CallTime;
use super::engine;
use super::error::ProviderError;
use super::guest::GuestState;
use super::limits::SandboxLimits;
use super::log::GuestLog;
use super::usage::InstanceGuard;
use pushlet_model::contract::codec;

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
    store.set_epoch_deadline(1);
    let per_target = limits.result_per_target.saturating_mul(targets);
    let most = limits.result.saturating_add(per_target);
    store.set_hostcall_fuel(most);
    store.data_mut().most_returned = most;
    store.data_mut().limiter.forgive();
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(engine::TICK.as_millis())).unwrap_or(u64::MAX).max(1)
}

/// A guest that waits for anything would block a thread that others need, and time stands still for it.
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
