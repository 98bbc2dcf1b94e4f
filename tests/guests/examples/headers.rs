//! Writes the header that it is told to: `do` is its name, the setting `value` its value.

use pushlet_guests::*;

pub struct Headers;

impl Guest for Headers {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let mut encoded = encoded(&targets);
        let header = (task(&application).to_owned(), setting(&application, "value").to_owned());
        match setting(&application, "where") {
            "message" => encoded.messages[0].headers.push(header),
            "exchange" => encoded.exchanges[0].headers.push(header),
            _ => {}
        }
        encoded
    }
}

export!(Headers);
