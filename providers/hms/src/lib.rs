//! Huawei Push Kit: the API v1 for HMS Core on Android, and the API v3 for HarmonyOS 5 and later.
//!
//! Which of the two is spoken follows from the application's credential. Source: Huawei's "Push Kit" references of both
//! APIs, and its own server demos.

mod decode;
mod draft;
mod encode;
mod manifest;
mod message_v1;
mod message_v3;

use pushlet_provider::{
    Answer, Application, Context, Encoded, Notification, Provider, ProviderManifest, Recipient, Rejection,
    Reply,
};

/// The provider.
pub struct Hms;

impl Provider for Hms {
    fn describe() -> ProviderManifest {
        manifest::manifest()
    }

    fn check_application(application: &Application) -> Result<(), Rejection> {
        encode::Api::of(application).map(drop)
    }

    fn encode(
        _: &Context,
        application: &Application,
        notification: &Notification,
        recipients: &[Recipient],
    ) -> Result<Encoded, Rejection> {
        encode::encode(application, notification, recipients)
    }

    fn decode(context: &Context, _: &Application, answer: &Answer, _: bool) -> Reply {
        decode::decode(context, answer)
    }
}

pushlet_provider::export!(Hms);

#[cfg(test)]
mod tests {
    use super::Hms;

    #[test]
    fn golden_vectors() {
        pushlet_provider::testing::run_vectors::<Hms>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/hms"
        ));
    }

    #[test]
    fn the_manifest_is_sound() {
        pushlet_provider::testing::check_manifest::<Hms>();
    }
}
