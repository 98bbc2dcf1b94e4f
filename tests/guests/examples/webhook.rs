//! A well-behaved provider that a tenant uploads.

use pushlet_guests::*;

pub struct Webhook;

impl Guest for Webhook {
    fn describe() -> ProviderManifest {
        webhook::manifest("1")
    }

    fn check_application(application: Application) -> Result<(), Rejection> {
        webhook::check_application(&application)
    }

    fn encode(
        _: Context,
        application: Application,
        notification: Notification,
        targets: Vec<Recipient>,
    ) -> Encoded {
        webhook::encode("1", &application, &notification, &targets)
    }

    fn decode(_: Context, _: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        webhook::decode(&answers)
    }
}

export!(Webhook);
