//! The guest's environment: a WASI context that is empty and deterministic.
//!
//! No files, no environment, no arguments, no sockets. The interfaces of files and sockets are there, because the
//! languages' runtimes import them whatever a program does, and nothing is behind them: there is no directory to open
//! anything in, no socket can be created, no name is resolved. Randomness comes from the call's `entropy`, stdin is at
//! its end, stdout and stderr go to a bounded log. The clocks stand still: a guest sees the call's `now`, however long
//! it runs. Waiting for a time that has come ends at once, waiting for a later one never ends. So neither a clock nor a
//! wait tells how fast the machine is, and no timer of the host is involved.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng, TryRng};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::{self, Datetime};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, IpAddress, Network, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketError, bindings, subscribe};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::call_log::{GuestLog, GuestOutput};
use super::limits::{CallBounds, CallTime, SandboxLimits};
use pushlet_model::contract::Context;
use pushlet_quota::account::{MemoryReservation, MemoryUse};

/// The data of a guest's store.
pub(super) struct GuestState {
    /// Made when the guest first asks for something: built-in components never do.
    wasi: Option<WasiCtx>,
    /// Bytes of randomness that it may ask for at once.
    most_random: u64,
    table: ResourceTable,
    surroundings: Arc<Mutex<CallContext>>,
    pub(super) log: Arc<GuestLog>,
    pub(super) limiter: MemoryLimiter,
    /// Of the call that it is in.
    pub(super) time: CallTime,
    /// Bytes that this call may return.
    pub(super) most_returned: usize,
}

impl GuestState {
    pub(super) fn new(limits: &SandboxLimits, bounds: &CallBounds, log: &Arc<GuestLog>) -> Self {
        let surroundings = Arc::new(Mutex::new(CallContext::default()));
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let limiter = MemoryLimiter::new(limits, bounds);
        let time = CallTime::of(bounds.call_timeout);
        Self {
            wasi: None,
            most_random: limits.result as u64,
            table,
            surroundings,
            log: log.clone(),
            limiter,
            time,
            most_returned: limits.result,
        }
    }

    /// Sets what the next call will observe.
    pub(super) fn observe(&self, now: u64, entropy: &[u8]) {
        let mut surroundings = self.surroundings.lock();
        surroundings.now = Duration::from_millis(now);
        surroundings.entropy.clear();
        surroundings.entropy.extend_from_slice(entropy);
        surroundings.random = None;
    }

    pub(super) fn observe_context(&self, context: &Context) {
        self.observe(context.now, &context.entropy);
    }

    /// Returns the bytes of its linear memories.
    pub(super) fn memory(&self) -> usize {
        self.limiter.memory - self.limiter.memory_left
    }

    /// Returns the most bytes that these may have.
    pub(super) fn memory_limit(&self) -> usize {
        self.limiter.memory
    }

    pub(super) fn clocks(&mut self) -> FrozenClocks<'_> {
        let now = self.surroundings.lock().now;
        FrozenClocks { now, table: &mut self.table }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Self { wasi, table, surroundings, log, most_random, .. } = self;
        let ctx = wasi.get_or_insert_with(|| wasi_context(surroundings, log, *most_random));
        WasiCtxView { ctx, table }
    }
}

fn wasi_context(surroundings: &Arc<Mutex<CallContext>>, log: &Arc<GuestLog>, most_random: u64) -> WasiCtx {
    let output = GuestOutput::new(log);
    let mut wasi = WasiCtx::builder();
    wasi.secure_random(SeededRandom(surroundings.clone()))
        .insecure_random(SeededRandom(surroundings.clone()))
        .insecure_random_seed(0)
        .max_random_size(most_random)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .stdout(output.clone())
        .stderr(output);
    wasi.build()
}

/// Links the allowed interfaces and no others; no directory is opened for any guest. The asynchronous variants, so that
/// a guest that waits gives control back to us instead of blocking the thread (see `instance::now_or_never`).
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(linker)?;
    link_clocks(linker)?;
    bindings::random::insecure::add_to_linker::<_, WasiRandom>(linker, |guest| guest.ctx().ctx.random())?;
    bindings::random::insecure_seed::add_to_linker::<_, WasiRandom>(linker, |guest| {
        guest.ctx().ctx.random()
    })?;
    bindings::cli::exit::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    bindings::cli::environment::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    bindings::cli::terminal_input::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    bindings::cli::terminal_output::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    bindings::cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    bindings::cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    bindings::cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    bindings::filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, GuestState::filesystem)?;
    bindings::filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, GuestState::filesystem)?;
    link_sockets(linker)
}

/// Links the interfaces of sockets: what they are made with answers `access-denied`.
fn link_sockets(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let options = bindings::sockets::network::LinkOptions::default();
    bindings::sockets::network::add_to_linker::<_, WasiSockets>(linker, &options, GuestState::sockets)?;
    bindings::sockets::instance_network::add_to_linker::<_, WasiSockets>(linker, GuestState::sockets)?;
    bindings::sockets::tcp::add_to_linker::<_, WasiSockets>(linker, GuestState::sockets)?;
    bindings::sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(linker, GuestState::sockets)?;
    bindings::sockets::udp::add_to_linker::<_, WasiSockets>(linker, GuestState::sockets)?;
    bindings::sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(linker, GuestState::sockets)?;
    ip_name_lookup::add_to_linker::<_, HasNoNames>(linker, |_| NoNames)
}

/// Links both clocks in place of those that are there.
fn link_clocks(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    bindings::clocks::monotonic_clock::add_to_linker::<_, HasClocks>(linker, GuestState::clocks)?;
    bindings::clocks::wall_clock::add_to_linker::<_, HasClocks>(linker, GuestState::clocks)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Time and randomness of one call.
#[derive(Default)]
struct CallContext {
    now: Duration,
    entropy: Vec<u8>,
    /// Made from `entropy` when the guest first asks.
    random: Option<StdRng>,
}

impl CallContext {
    fn random(&mut self) -> &mut StdRng {
        self.random.get_or_insert_with(|| {
            let digest = ring::digest::digest(&ring::digest::SHA256, &self.entropy);
            let mut seed = [0; 32];
            seed.copy_from_slice(digest.as_ref());
            StdRng::from_seed(seed)
        })
    }
}

/// Randomness that the call's entropy determines.
struct SeededRandom(Arc<Mutex<CallContext>>);

impl SeededRandom {
    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> Result<T, Infallible> {
        Ok(draw(self.0.lock().random()))
    }
}

impl TryRng for SeededRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.with(Rng::next_u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.with(Rng::next_u64)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.with(|random| random.fill_bytes(bytes))
    }
}

/// Bounds the memory of a store as a sum over all its memories, and those of all stores of a tenant;
/// wasmtime's own limit is per memory.
pub(super) struct MemoryLimiter {
    memory: usize,
    memory_left: usize,
    table_elements_left: usize,
    /// Reserved on the tenant's account; None: it is not counted.
    reserved: Option<MemoryReservation>,
    /// Was growth refused? Tells a memory limit from other traps.
    pub(super) refused: bool,
    /// Was it refused because of what the tenant's other instances have?
    pub(super) refused_by_account: bool,
}

impl MemoryLimiter {
    fn new(limits: &SandboxLimits, bounds: &CallBounds) -> Self {
        Self {
            memory: bounds.memory,
            memory_left: bounds.memory,
            table_elements_left: limits.table_elements,
            reserved: bounds.account.as_ref().map(|account| account.reserve_nothing(MemoryUse::Instances)),
            refused: false,
            refused_by_account: false,
        }
    }

    /// A new call has done nothing wrong yet.
    pub(super) fn forgive(&mut self) {
        self.refused = false;
        self.refused_by_account = false;
    }
}

impl wasmtime::ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        if growth > self.memory_left || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = true;
            return Ok(false);
        }
        if self.reserved.as_mut().is_some_and(|reserved| reserved.grow(growth).is_err()) {
            self.refused_by_account = true;
            return Ok(false);
        }
        self.memory_left -= growth;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        if growth > self.table_elements_left || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = true;
            return Ok(false);
        }
        self.table_elements_left -= growth;
        Ok(true)
    }
}

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

/// Resolves no name. The library's own resolver would start a runtime even to refuse.
struct NoNames;

/// What wasmtime calls it by.
struct HasNoNames;

impl HasData for HasNoNames {
    type Data<'a> = NoNames;
}

impl network::Host for NoNames {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, _: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for NoNames {
    fn drop(&mut self, _: Resource<Network>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl ip_name_lookup::Host for NoNames {
    fn resolve_addresses(
        &mut self,
        _: Resource<Network>,
        _: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        Err(ErrorCode::AccessDenied.into())
    }
}

impl ip_name_lookup::HostResolveAddressStream for NoNames {
    fn resolve_next_address(
        &mut self,
        _: Resource<ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        Err(ErrorCode::AccessDenied.into())
    }

    fn subscribe(&mut self, _: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        wasmtime::bail!("no name is resolved")
    }

    fn drop(&mut self, _: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}
