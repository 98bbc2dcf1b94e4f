//! The contract of `wit/provider.wit` as Rust types and bindings, generated at compile time.
//!
//! These are the nouns of the whole host: a [`Notification`] goes in at the HTTP side, an [`Outcome`] comes
//! back.

use std::time::{SystemTime, UNIX_EPOCH};

mod bindings {
    #![allow(missing_docs)]
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "http-provider",
        exports: { default: async },
        additional_derives: [PartialEq],
    });
}

mod manager_bindings {
    #![allow(missing_docs)]
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "http-manager",
        exports: { default: async },
        additional_derives: [PartialEq],
        with: { "pushlet:provider/types": super::bindings::pushlet::provider::types },
    });
}

mod stream_bindings {
    #![allow(missing_docs)]
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "stream-provider",
        exports: { default: async },
        additional_derives: [PartialEq],
        with: { "pushlet:provider/types": super::bindings::pushlet::provider::types },
    });
}

pub use bindings::exports::pushlet::provider::{codec, manifest};
pub use bindings::pushlet::provider::types::{
    Alert, Application, ConnectionHint, Context, CredentialFault, CriticalSound, Disposition, Environment,
    Fault, Localized, Notification, Outcome, Priority, Recipient, Rejection, Scope, Sound, Target, Throttle,
};
pub use manager_bindings::exports::pushlet::provider::management;
pub use stream_bindings::exports::pushlet::provider::session;

/// The text of `wit/provider.wit`, for authors of providers.
pub const WIT: &str = include_str!("../../../wit/provider.wit");

impl Context {
    /// Returns the context of a call at this time.
    pub fn at(now: SystemTime, entropy: Vec<u8>) -> Self {
        Self { now: unix_milliseconds(now), entropy }
    }
}

impl From<Target> for Recipient {
    /// Returns the target without options.
    fn from(target: Target) -> Self {
        Self { target, options: Vec::new() }
    }
}

/// Returns the milliseconds since the Unix epoch, in which the contract counts time; 0 before it.
pub fn unix_milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Default for Alert {
    /// Returns an alert without texts.
    fn default() -> Self {
        Self {
            title: None,
            subtitle: None,
            body: None,
            image: None,
            title_localized: None,
            subtitle_localized: None,
            body_localized: None,
        }
    }
}

impl Default for Notification {
    /// Returns a notification without content.
    fn default() -> Self {
        Self {
            alert: None,
            badge: None,
            sound: None,
            category: None,
            thread: None,
            data: None,
            collapse_key: None,
            time_to_live: None,
            priority: None,
            identifier: None,
            options: Vec::new(),
            native: None,
        }
    }
}
