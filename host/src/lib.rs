//! Pushlet: an HTTP API in front of push services, each implemented by a sandboxed WebAssembly component.
//!
//! This crate is the program: the command line, the listener, and what puts the rooms together. A push goes through
//! the crates in this order, and comes back the same way:
//!
//! - [`server`]: the listener: connections, TLS, time-outs
//! - [`pushlet_api`]: routes, authentication, bodies, responses
//! - [`pushlet_gateway`]: from a send to its results: applications, delivery, retries, streams, uploads, tenants
//! - [`pushlet_sandbox`]: calls the provider component, which encodes requests and decodes answers
//! - [`pushlet_credential`]: client certificates and provider tokens
//! - [`pushlet_transport`]: sockets to the push services
//!
//! Below them: [`pushlet_registry`] (what is kept), [`pushlet_quota`] (what each tenant may use),
//! [`pushlet_settings`] (what an operator can set), [`pushlet_model`] (the nouns). [`pushlet_client`] has the commands
//! that talk to a running server, [`pushlet_conformance`] the offline check of a component. `Cargo.toml` of each crate
//! has its edges.

pub mod bootstrap;
pub mod cli;
mod program_pages;
pub mod server;
#[cfg(feature = "simulator")]
pub mod simulator;
#[cfg(not(feature = "simulator"))]
#[path = "no_simulator.rs"]
pub mod simulator;

/// After a burst of large requests the C library's allocator keeps what was freed: each of its arenas only shrinks at
/// its end. This one returns it within seconds. See `docs/reliability.md` for the figures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena per processor instead of four: what is left after a burst is scattered over fewer pages. A thread looks
/// through what it keeps for its next allocations once in a mebibyte instead of sixteen times, which spares a push two
/// hundredths of its instructions.
#[allow(unsafe_code)] // The name under which jemalloc looks for its options (jemalloc(3), "TUNING").
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_OPTIONS: Option<&'static u8> = b"narenas_ratio:1,tcache_gc_incr_bytes:1048576\0".first();
