//! Clocks that stand still: a guest sees the call's `now`, however long it runs.
//!
//! Waiting for a moment that has come is over at once, for a later one it is never over. So neither a clock
//! nor a wait tells how fast the machine is, and no timer of the host is involved.

use std::time::Duration;

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::{self, Datetime};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

/// The clocks of one guest.
pub(super) struct FrozenClocks<'a> {
    /// Since the Unix epoch.
    pub(super) now: Duration,
    pub(super) table: &'a mut ResourceTable,
}

/// What wasmtime calls the clocks of a store by.
pub(super) struct HasClocks;

impl HasData for HasClocks {
    type Data<'a> = FrozenClocks<'a>;
}

impl FrozenClocks<'_> {
    fn nanoseconds(&self) -> u64 {
        u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn wait(&mut self, over: bool) -> wasmtime::Result<Resource<DynPollable>> {
        let wait = self.table.push(ClockWait { over })?;
        subscribe(self.table, wait)
    }
}

impl wall_clock::Host for FrozenClocks<'_> {
    fn now(&mut self) -> wasmtime::Result<Datetime> {
        Ok(Datetime { seconds: self.now.as_secs(), nanoseconds: self.now.subsec_nanos() })
    }

    fn resolution(&mut self) -> wasmtime::Result<Datetime> {
        Ok(Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

impl monotonic_clock::Host for FrozenClocks<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.nanoseconds())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1_000_000)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.wait(when <= self.nanoseconds())
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.wait(duration == 0)
    }
}

struct ClockWait {
    over: bool,
}

#[wasmtime_wasi::async_trait]
impl Pollable for ClockWait {
    async fn ready(&mut self) {
        if !self.over {
            std::future::pending().await
        }
    }
}
