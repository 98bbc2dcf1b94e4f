//! Pushlet: an HTTP API in front of push services, each spoken by a sandboxed WebAssembly component.

pub mod account;
pub mod cli;
pub mod config;
pub mod contract;
pub mod credential;
pub mod digest;
pub mod error;
pub mod fair;
pub mod gateway;
pub mod http;
pub mod log;
pub mod notification;
pub mod provider;
pub mod registry;
pub mod server;
pub mod simulated;
pub mod start;
pub mod telemetry;
pub mod tenant;
pub mod tenants;
pub mod transport;
pub mod warnings;
pub mod web;

/// After a burst of large requests the C library's allocator keeps what was freed: each of its arenas only shrinks at
/// its end. This one returns it within seconds. See `docs/reliability.md` for the figures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
