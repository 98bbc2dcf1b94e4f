//! Firebase Cloud Messaging over its HTTP v1 API, also for callers of the legacy protocol.
//!
//! Source: the discovery document of fcm.googleapis.com (revision 20261023), "FCM error codes", and the legacy
//! "HTTP connection server reference" for the shapes that classic callers send and expect.

mod decode;
mod encode;
mod errors;
mod manifest;
mod message;
mod multicast;
mod schema;
mod shown;
mod subscriptions;

use pushlet_provider::{
    Answer, Application, Context, Encoded, Notification, Provider, ProviderManifest, Recipient, Rejection,
    Reply,
};

/// The provider.
pub struct Fcm;

impl Provider for Fcm {
    fn describe() -> ProviderManifest {
        manifest::manifest()
    }

    fn check_application(application: &Application) -> Result<(), Rejection> {
        encode::project(application).map(drop)
    }

    fn encode(
        context: &Context,
        application: &Application,
        notification: &Notification,
        recipients: &[Recipient],
    ) -> Result<Encoded, Rejection> {
        encode::encode(context, application, notification, recipients)
    }

    fn decode(context: &Context, _: &Application, answer: &Answer, native: bool) -> Reply {
        decode::decode(context, answer, native)
    }
}

pushlet_provider::export!(Fcm);
pushlet_provider::export_manager!(Fcm);

#[cfg(test)]
mod tests {
    use super::Fcm;

    #[test]
    fn golden_vectors() {
        pushlet_provider::testing::run_vectors::<Fcm>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/fcm"
        ));
    }

    #[test]
    fn the_manifest_is_sound() {
        pushlet_provider::testing::check_manifest::<Fcm>();
    }
}
