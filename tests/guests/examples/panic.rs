//! Panics with a message that nobody but its tenant shall read.
#![allow(clippy::panic)]

use pushlet_guests::*;

pub struct Panic;

impl Guest for Panic {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        if task(&application) == "panic" {
            panic!("the tenant's own words: {}", application.id);
        }
        encoded(&targets)
    }
}

export!(Panic);
