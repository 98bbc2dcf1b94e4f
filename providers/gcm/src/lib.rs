//! Google Cloud Messaging, the legacy HTTP protocol with JSON bodies.
//!
//! Google switched its own servers off in 2024. The protocol lives on behind endpoints that an operator configures.
//! Source: Google's "HTTP connection server reference" for GCM and legacy FCM.

mod decode;
mod encode;
mod manifest;

use pushlet_provider::{
    Answer, Application, Context, Encoded, Notification, Provider, ProviderManifest, Recipient, Rejection,
    Reply,
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
        recipients: &[Recipient],
    ) -> Result<Encoded, Rejection> {
        encode::encode(notification, recipients)
    }

    fn decode(context: &Context, _: &Application, answer: &Answer, native: bool) -> Reply {
        decode::decode(context, answer, native)
    }
}

pushlet_provider::export!(Gcm);

#[cfg(test)]
mod tests {
    use super::Gcm;

    #[test]
    fn golden_vectors() {
        pushlet_provider::testing::run_vectors::<Gcm>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/gcm"
        ));
    }

    #[test]
    fn the_manifest_is_sound() {
        pushlet_provider::testing::check_manifest::<Gcm>();
    }
}
