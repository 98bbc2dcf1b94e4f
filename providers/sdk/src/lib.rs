//! What a provider component needs: the contract's types, one trait, one macro and a few helpers.
//!
//! A provider is a type that implements [`Provider`] and one line, `pushlet_provider::export!(MyProvider);`.
//! Everything here is pure, so a provider's tests run natively; only the export itself is wasm.
//!
//! - [`manifest`]: short constructors for the records of a manifest
//! - [`input`]: reading settings and options, with errors that name the field
//! - [`reply`]: building what `encode` and `decode` return
//! - [`json`]: objects and merging
//! - [`stream`]: providers of the world `stream-provider`, which speak over a long-lived byte stream
//! - [`time`] and [`uuid`]: `Retry-After`, and ids made from the call's entropy

#[cfg(all(target_arch = "wasm32", feature = "allocator"))]
mod allocator;
#[cfg(any(test, all(target_arch = "wasm32", feature = "allocator")))]
mod arena;
pub mod input;
pub mod json;
pub mod manifest;
mod rejection;
pub mod reply;
pub mod stream;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod uuid;

/// What `wit-bindgen` makes of the interface `manifest` of `wit/provider.wit`; `tests/bindings` writes it. Each interface
/// has bindings of its own, so that the worlds can share them.
#[allow(unsafe_code, missing_docs, clippy::all, clippy::panic, clippy::unwrap_used)]
#[rustfmt::skip]
pub mod bindings;

/// The same for the interface `codec`.
#[allow(unsafe_code, missing_docs, clippy::all, clippy::panic, clippy::unwrap_used)]
#[rustfmt::skip]
pub mod codec_bindings;

/// The same for the optional interface `management`.
#[allow(unsafe_code, missing_docs, clippy::all, clippy::panic, clippy::unwrap_used)]
#[rustfmt::skip]
pub mod manager_bindings;

/// The same for the interface `session`.
#[allow(unsafe_code, missing_docs, clippy::all, clippy::panic, clippy::unwrap_used)]
#[rustfmt::skip]
pub mod stream_bindings;

pub use bindings::exports::pushlet::provider::manifest::ProviderManifest;
pub use bindings::pushlet::provider::types::{
    Alert, Application, ConnectionHint, Context, CredentialFault, CriticalSound, Disposition, Environment,
    Fault, Localized, Notification, Outcome, Priority, Recipient, Rejection, Scope, Sound, Target, Throttle,
};
pub use codec_bindings::exports::pushlet::provider::codec::{
    Answer, Encoded, Exchange, Message, Method, Refusal, Reply, Response,
};

pub use manager_bindings::exports::pushlet::provider::management;

use bindings::exports::pushlet::provider::manifest as manifest_exports;
use codec_bindings::exports::pushlet::provider::codec;

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

/// A push provider of the world `http-provider`: pure functions from input to output.
pub trait Provider {
    /// What the provider is and needs.
    fn describe() -> ProviderManifest;

    /// Are the settings of this application complete and sound?
    fn check_application(application: &Application) -> Result<(), Rejection>;

    /// The requests that deliver `notification` to `recipients`. Each is covered exactly once, by an exchange or
    /// by a refusal; an `Err` refuses them all.
    fn encode(
        context: &Context,
        application: &Application,
        notification: &Notification,
        recipients: &[Recipient],
    ) -> Result<Encoded, Rejection>;

    /// What became of the targets of one answer, one outcome each, in its order.
    fn decode(context: &Context, application: &Application, answer: &Answer, native: bool) -> Reply;
}

impl<P: Provider> manifest_exports::Guest for P {
    fn describe() -> ProviderManifest {
        <P as Provider>::describe()
    }
}

impl<P: Provider> codec::Guest for P {
    fn check_application(application: Application) -> Result<(), Rejection> {
        P::check_application(&application)
    }

    fn encode(
        context: Context,
        application: Application,
        notification: Notification,
        recipients: Vec<Recipient>,
    ) -> Encoded {
        P::encode(&context, &application, &notification, &recipients)
            .unwrap_or_else(|rejection| reply::refuse_all(recipients.len(), rejection))
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
            $crate::bindings::export_manifest!(Exported with_types_in $crate::bindings);
            $crate::codec_bindings::export_codec!(Exported with_types_in $crate::codec_bindings);
        }
    };
}
