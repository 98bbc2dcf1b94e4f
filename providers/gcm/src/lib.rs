//! Google Cloud Messaging, the legacy HTTP protocol with JSON bodies.
//!
//! Google switched its own servers off in 2024. The protocol lives on behind endpoints that an operator configures.
//! Source: Google's "HTTP connection server reference" for GCM and legacy FCM.

mod decode;
mod encode;
mod manifest;

use pushlet_sdk::{
    Answer, Application, Context, Encoded, Notification, Provider, ProviderManifest, Rejection, Reply, Target,
};

/// The provider.
pub struct Gcm;

impl Provider for Gcm {
    fn describe() -> ProviderManifest {
        manifest::manifest()
    }

    fn check_application(_: &Application) -> Result<(), Rejection> {
        Ok(())
    }

    fn encode(
        _: &Context,
        _: &Application,
        notification: &Notification,
        targets: &[Target],
    ) -> Result<Encoded, Rejection> {
        encode::encode(notification, targets)
    }

    fn decode(context: &Context, _: &Application, answer: &Answer, native: bool) -> Reply {
        decode::decode(context, answer, native)
    }
}

pushlet_sdk::export!(Gcm);

#[cfg(test)]
mod tests {
    use super::Gcm;

    #[test]
    fn golden_vectors() {
        pushlet_sdk::testing::run_vectors::<Gcm>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/gcm"
        ));
    }

    #[test]
    fn the_manifest_is_sound() {
        pushlet_sdk::testing::check_manifest::<Gcm>();
    }
}
