//! The sandbox: loads provider components and calls them.
//!
//! A [`Provider`] is one component, compiled once. [`Instances`] are its warm instances for one tenant:
//! a call takes one, runs it to its end on the calling thread, checks what came out, and puts it back;
//! after a trap, a time-out or a limit it is dropped. A [`Session`] is an instance that lives as long as a connection.
//! Nothing a guest does is more than a [`ProviderError`].
//!
//! What contains a guest, from the outside in:
//! - [`inspect`]: size, validity, imports, world and version, before anything is compiled
//! - [`compiler`]: a process of its own that compiles, and can be killed
//! - [`compiled`] and [`artefacts`]: compiled code that may be run, the cache of it, and the proof that this server wrote it
//! - [`breaker`] and [`limits`]: whether a call may run, how many at once, and what its tenant may use
//! - [`sandbox`], [`instance`] and [`guest`]: time, memory, stack, handles, and a world without effects
//! - [`check`] and [`headers`]: what it returns

mod artefacts;
mod breaker;
mod call_log;
mod catalogue;
mod check;
mod code_config;
mod compiled;
mod compiler;
mod contract;
mod error;
mod guest;
mod headers;
mod inspect;
mod instance;
mod instances;
mod limits;
mod management;
#[cfg(feature = "native")]
pub mod native;
mod operations;
mod provider;
mod sandbox;
mod session;
mod type_difference;
mod usage;

pub use artefacts::CodeFolder;
pub use breaker::BreakerPolicy;
pub use call_log::{CallRecord, GuestLog};
pub use catalogue::{OwnProvider, ProviderCatalogue, TenantProviders};
pub use check::{
    Exchange, Message, PreparedRequests, encoded as check_encoded, replies as check_replies, target_url,
};
pub use compiler::{CompileLimits, ComponentCompiler, compile};
pub use contract::check_manifest;
pub use error::{ForbiddenImports, LoadError, ProviderError};
pub use inspect::{digest, interface_names};
pub use instances::Instances;
pub use limits::{ComponentTrust, InstanceIsolation, SandboxLimits};
pub use management::{CollectionItems, action};
pub use provider::{Provider, ProviderLoader};
pub use sandbox::Sandbox;
pub use session::{Session, SessionInput};
pub use usage::{SandboxStats, UsageStats};

/// Name and component file of each built-in provider, made by `build.rs` from `providers/`.
pub const BUILT_IN: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// Name and compiled code of each built-in provider, if the program was built with the feature `precompiled`.
const PRECOMPILED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/precompiled.rs"));

#[cfg(test)]
mod tests;
