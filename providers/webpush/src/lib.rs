//! Web Push: messages to browsers over the push service that each subscription names, encrypted for it.
//!
//! Sources: RFC 8030 (the protocol), RFC 8188 and RFC 8291 (the encryption), RFC 8292 (VAPID, which the host signs),
//! and what Apple, Google, Microsoft and Mozilla document of their services.

mod decode;
mod encode;
mod encrypt;
mod manifest;
mod payload;

use pushlet_provider::{
    Answer, Application, Context, Encoded, Notification, Provider, ProviderManifest, Recipient, Rejection,
    Reply,
};

/// The provider.
pub struct WebPush;

impl Provider for WebPush {
    fn describe() -> ProviderManifest {
        manifest::manifest()
    }

    fn check_application(application: &Application) -> Result<(), Rejection> {
        manifest::check_subject(application)
    }

    fn encode(
        context: &Context,
        _: &Application,
        notification: &Notification,
        recipients: &[Recipient],
    ) -> Result<Encoded, Rejection> {
        encode::encode(context, notification, recipients)
    }

    fn decode(context: &Context, _: &Application, answer: &Answer, _: bool) -> Reply {
        decode::decode(context, answer)
    }
}

pushlet_provider::export!(WebPush);

#[cfg(test)]
mod tests {
    use super::WebPush;

    #[test]
    fn golden_vectors() {
        pushlet_provider::testing::run_vectors::<WebPush>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/webpush"
        ));
    }

    #[test]
    fn the_manifest_is_sound() {
        pushlet_provider::testing::check_manifest::<WebPush>();
    }
}
