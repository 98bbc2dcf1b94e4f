//! Sends to endpoints and URLs that its manifest does not name.

use pushlet_guests::*;

pub struct Endpoints;

impl Guest for Endpoints {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let mut encoded = encoded(&targets);
        match task(&application) {
            "" => {}
            url if url.contains(':') => encoded.exchanges[0].url = Some(url.to_owned()),
            endpoint => encoded.messages[0].endpoint = endpoint.to_owned(),
        }
        encoded
    }
}

export!(Endpoints);
