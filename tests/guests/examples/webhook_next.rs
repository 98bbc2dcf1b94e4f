//! The next version of the webhook provider. It fails when it is asked to, which the first one does not.
#![allow(clippy::panic)]

use pushlet_guests::*;

pub struct Webhook;

impl Guest for Webhook {
    fn describe() -> ProviderManifest {
        webhook::manifest("2")
    }

    fn encode(
        _: Context,
        application: Application,
        notification: Notification,
        targets: Vec<Recipient>,
    ) -> Encoded {
        if webhook::shall_trap(&notification) {
            panic!("the next version is broken");
        }
        webhook::encode("2", &application, &notification, &targets)
    }

    fn decode(_: Context, _: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        webhook::decode(&answers)
    }
}

export!(Webhook);
