//! The contract of `wit/provider.wit` as Rust types and bindings, generated at compile time.
//!
//! These are the nouns of the whole host: a [`Notification`] goes in at the HTTP side, an
//! [`Outcome`] comes back. A leaf module: it knows nothing of the rest.

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

pub use bindings::exports::pushlet::provider::{codec, manifest};
pub use bindings::pushlet::provider::types::{
    Alert, Application, ConnectionHint, Context, CredentialFault, CriticalSound, Disposition, Environment,
    Localized, Notification, Outcome, Priority, Rejection, Scope, Sound, Target, Throttle,
};
pub use manager_bindings::exports::pushlet::provider::management;

impl Default for Alert {
    /// Nothing to see.
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
    /// Nothing to say.
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
