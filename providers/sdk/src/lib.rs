//! What a provider component needs: the contract's types, one trait, one macro and a few helpers.
//!
//! A provider is a type that implements [`Provider`] and one line, `pushlet_sdk::export!(MyProvider);`.
//! Everything here is pure, so a provider's tests run natively; only the export itself is wasm.
//!
//! - [`manifest`]: short constructors for the records of a manifest
//! - [`input`]: reading settings and options, with errors that name the field
//! - [`reply`]: building what `encode` and `decode` return
//! - [`json`]: objects and merging
//! - [`time`] and [`uuid`]: `Retry-After`, and ids made from the call's entropy

#[cfg(all(target_arch = "wasm32", feature = "allocator"))]
mod allocator;
pub mod input;
pub mod json;
pub mod manifest;
mod rejection;
pub mod reply;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod uuid;

/// What `wit-bindgen` makes of `wit/provider.wit`.
#[allow(unsafe_code, missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "http-provider",
        pub_export_macro: true,
        export_macro_name: "export_http_provider",
        default_bindings_module: "pushlet_sdk::bindings",
        additional_derives: [PartialEq],
    });
}

/// The same for the optional interface `management`.
#[allow(unsafe_code, missing_docs, clippy::all)]
pub mod manager_bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "http-manager",
        pub_export_macro: true,
        export_macro_name: "export_http_manager",
        default_bindings_module: "pushlet_sdk::manager_bindings",
        additional_derives: [PartialEq],
        with: { "pushlet:provider/types@0.1.0": crate::bindings::pushlet::provider::types },
    });
}

pub use bindings::exports::pushlet::provider::codec::{
    Answer, Encoded, Exchange, Message, Method, Refusal, Reply, Response,
};
pub use bindings::exports::pushlet::provider::manifest::ProviderManifest;
pub use bindings::pushlet::provider::types::{
    Alert, Application, ConnectionHint, Context, CredentialFault, CriticalSound, Disposition, Environment,
    Localized, Notification, Outcome, Priority, Rejection, Scope, Sound, Target, Throttle,
};

pub use manager_bindings::exports::pushlet::provider::management;

use bindings::exports::pushlet::provider as exports;

/// A push provider of the world `http-provider`: pure functions from input to output.
pub trait Provider {
    /// What the provider is and needs.
    fn describe() -> ProviderManifest;

    /// Are the settings of this application complete and sound?
    fn check_application(application: &Application) -> Result<(), Rejection>;

    /// The requests that deliver `notification` to `targets`. Each target is covered exactly once, by an
    /// exchange or by a refusal; an `Err` refuses them all.
    fn encode(
        context: &Context,
        application: &Application,
        notification: &Notification,
        targets: &[Target],
    ) -> Result<Encoded, Rejection>;

    /// What became of the targets of one answer, one outcome each, in its order.
    fn decode(context: &Context, application: &Application, answer: &Answer, native: bool) -> Reply;
}

impl<P: Provider> exports::manifest::Guest for P {
    fn describe() -> ProviderManifest {
        <P as Provider>::describe()
    }
}

impl<P: Provider> exports::codec::Guest for P {
    fn check_application(application: Application) -> Result<(), Rejection> {
        P::check_application(&application)
    }

    fn encode(
        context: Context,
        application: Application,
        notification: Notification,
        targets: Vec<Target>,
    ) -> Encoded {
        P::encode(&context, &application, &notification, &targets)
            .unwrap_or_else(|rejection| reply::refuse_all(targets.len(), rejection))
    }

    fn decode(context: Context, application: Application, answers: Vec<Answer>, native: bool) -> Vec<Reply> {
        answers.iter().map(|answer| P::decode(&context, &application, answer, native)).collect()
    }
}

/// The optional part of a provider: what its service keeps for an application beside its devices.
pub trait Manager {
    /// What is kept.
    fn collections() -> Vec<management::Collection>;

    /// The request that does it.
    fn encode(
        context: &Context,
        application: &Application,
        collection: &str,
        operation: &management::Operation,
    ) -> Result<management::Request, Rejection>;

    /// The items: the new one, the one that was asked for, all, or none.
    fn decode(
        context: &Context,
        application: &Application,
        collection: &str,
        operation: &management::Operation,
        response: &management::Response,
    ) -> Result<Vec<management::Item>, Outcome>;
}

impl<M: Manager> management::Guest for M {
    fn collections() -> Vec<management::Collection> {
        <M as Manager>::collections()
    }

    fn encode(
        context: Context,
        application: Application,
        collection: String,
        operation: management::Operation,
    ) -> Result<management::Request, Rejection> {
        <M as Manager>::encode(&context, &application, &collection, &operation)
    }

    fn decode(
        context: Context,
        application: Application,
        collection: String,
        operation: management::Operation,
        response: management::Response,
    ) -> Result<Vec<management::Item>, Outcome> {
        <M as Manager>::decode(&context, &application, &collection, &operation, &response)
    }
}

/// Exports the interface `management` of the named type, which implements [`Manager`], beside what [`export!`] does.
#[macro_export]
macro_rules! export_manager {
    ($manager:ident) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        mod manager_component {
            use super::$manager as Exported;
            $crate::manager_bindings::export_http_manager!(Exported with_types_in $crate::manager_bindings);
        }
    };
}

/// Makes the named type, which implements [`Provider`], the component's export. Natively it does nothing, so that
/// unit tests link.
#[macro_export]
macro_rules! export {
    ($provider:ident) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        mod component {
            use super::$provider as Exported;
            $crate::bindings::export_http_provider!(Exported with_types_in $crate::bindings);
        }
    };
}
