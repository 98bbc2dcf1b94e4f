//! Asks for the path that it is told to.

use pushlet_guests::*;

pub struct Paths;

impl Guest for Paths {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let mut encoded = encoded(&targets);
        if let Some((_, path)) = application.settings.iter().find(|(name, _)| name == "do") {
            encoded.exchanges[0].path = path.clone();
        }
        encoded
    }
}

export!(Paths);
