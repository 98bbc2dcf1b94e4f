//! A provider's codec as code of this program in place of its component, to measure what the sandbox costs.
//! Compiled for `tests/bench/linked` alone.

use std::sync::OnceLock;

use pushlet_model::contract::codec::{Answer, Encoded, Reply};
use pushlet_model::contract::{Application, Context, Notification, Recipient};

/// The functions of the interface `codec` that every push takes.
pub trait NativeCodec: Sync {
    /// Returns the requests that deliver `notification` to `recipients`.
    fn encode(
        &self,
        context: &Context,
        application: &Application,
        notification: &Notification,
        recipients: &[Recipient],
    ) -> Encoded;

    /// Returns one reply for each answer.
    fn decode(
        &self,
        context: &Context,
        application: &Application,
        answers: &[Answer],
        native: bool,
    ) -> Vec<Reply>;
}

/// Names of providers, and what is called in place of their components.
pub type LinkedCodecs = &'static [(&'static str, &'static dyn NativeCodec)];

static LINKED: OnceLock<LinkedCodecs> = OnceLock::new();

/// From now on these are called, in whatever is loaded under their names. The first to say it.
pub fn link(codecs: LinkedCodecs) {
    let _ = LINKED.set(codecs);
}

pub(super) fn linked(provider: &str) -> Option<&'static dyn NativeCodec> {
    let codecs = LINKED.get().copied().unwrap_or_default();
    codecs.iter().find(|(name, _)| *name == provider).map(|(_, codec)| *codec)
}
