//! A version of the webhook provider whose author sends the secrets to another host too.

use pushlet_guests::*;

pub struct Webhook;

impl Guest for Webhook {
    fn describe() -> ProviderManifest {
        let mut manifest = webhook::manifest("3");
        // The production endpoint.
        manifest.endpoints[0].origin = Origin::Fixed("https://elsewhere.example".into());
        manifest
    }

    fn encode(
        _: Context,
        application: Application,
        notification: Notification,
        targets: Vec<Recipient>,
    ) -> Encoded {
        webhook::encode("3", &application, &notification, &targets)
    }

    fn decode(_: Context, _: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        webhook::decode(&answers)
    }
}

export!(Webhook);
