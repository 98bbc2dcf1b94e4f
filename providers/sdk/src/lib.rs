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

pub mod input;
pub mod json;
pub mod manifest;
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

pub use bindings::exports::pushlet::provider::codec::{
    Answer, Encoded, Exchange, Message, Method, Refusal, Reply, Response,
};
pub use bindings::exports::pushlet::provider::manifest::ProviderManifest;
pub use bindings::pushlet::provider::types::{
    Alert, Application, ConnectionHint, Context, CredentialFault, CriticalSound, Disposition, Environment,
    Localized, Notification, Outcome, Priority, Rejection, Scope, Sound, Target, Throttle,
};

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
