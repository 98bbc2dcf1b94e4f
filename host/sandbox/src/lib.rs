//! The sandbox: loads provider components and calls them.
//!
//! A [`Provider`] is one component, compiled once. [`Instances`] are its warm instances for one tenant:
//! a call takes one, runs it to its end on the calling thread, checks what came out, and puts it back;
//! after a trap, a time-out or a limit it is dropped. Nothing a guest does is more than a [`ProviderError`].
//!
//! What contains a guest, from the outside in:
//! - [`shape`] and [`inspect`]: size, validity, imports, world and version, before anything is compiled
//! - [`compiler`] and [`worker`]: a process of its own that compiles, and can be killed
//! - [`artefacts`]: what is compiled, and the proof that it is ours
//! - [`breaker`] and [`tenant_quota`]: whether, how many at once, and after whom its calls run at all
//! - [`bounds`]: what its tenant may use
//! - [`engine`], [`instance`] and [`guest`]: time, memory, stack, handles, and a world without effects
//! - [`check`]: what it returns
//! - [`idle`]: what it may hold between calls

mod artefacts;
mod bounds;
mod breaker;
mod built_in;
mod call_time;
mod catalogue;
mod check;
mod clock;
mod compiler;
mod confine;
mod engine;
mod error;
mod guest;
mod idle;
mod inspect;
mod instance;
mod instances;
mod limits;
mod load;
mod loaded;
mod loader;
mod log;
mod management;
mod manifest;
#[cfg(feature = "native")]
pub mod native;
mod sandbox;
mod shape;
mod tenant_quota;
mod types;
mod usage;
mod worker;

pub use breaker::BreakerPolicy;
pub use built_in::BUILT_IN;
pub use catalogue::{OwnProvider, ProviderCatalogue, TenantProviders};
pub use check::{
    Exchange, Message, PreparedRequests, encoded as check_encoded, replies as check_replies, target_url,
};
pub use compiler::{CompileLimits, ComponentCompiler};
pub use error::{LoadError, ProviderError};
pub use instances::Instances;
pub use limits::{ComponentTrust, InstanceIsolation, SandboxLimits};
pub use load::{Provider, digest};
pub use loader::ProviderLoader;
pub use log::GuestLog;
pub use management::{CollectionItems, action};
pub use manifest::check as check_manifest;
pub use sandbox::Sandbox;
pub use usage::{SandboxStats, UsageStats};
pub use worker::compile;

#[cfg(test)]
mod tests;
