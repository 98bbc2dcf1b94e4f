//! Apple Push Notification service over its HTTP/2 provider API, devices and broadcast channels.
//!
//! Source: Apple's "Sending notification requests to APNs", "Generating a remote notification", "Handling
//! notification responses from APNs" and "Sending broadcast push notification requests to APNs".

mod aps;
mod channels;
mod decode;
mod dictionary;
mod encode;
mod manifest;
mod payload;
mod push_type;
mod reason;
mod topic;

use pushlet_provider::{
    Answer, Application, Context, Encoded, Notification, Provider, ProviderManifest, Recipient, Rejection,
    Reply,
};

/// The provider.
pub struct Apns;

impl Provider for Apns {
    fn describe() -> ProviderManifest {
        manifest::manifest()
    }

    fn check_application(application: &Application) -> Result<(), Rejection> {
        topic::check_application(application)
    }

    fn encode(
        context: &Context,
        application: &Application,
        notification: &Notification,
        recipients: &[Recipient],
    ) -> Result<Encoded, Rejection> {
        encode::encode(context, application, notification, recipients)
    }

    fn decode(context: &Context, _: &Application, answer: &Answer, _: bool) -> Reply {
        decode::decode(context, answer)
    }
}

pushlet_provider::export!(Apns);
pushlet_provider::export_manager!(Apns);

#[cfg(test)]
mod tests {
    use super::Apns;

    #[test]
    fn golden_vectors() {
        pushlet_provider::testing::run_vectors::<Apns>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/apns"
        ));
    }

    #[test]
    fn the_manifest_is_sound() {
        pushlet_provider::testing::check_manifest::<Apns>();
    }
}
