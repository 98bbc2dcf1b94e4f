//! Waits for a moment that never comes.

use std::time::Duration;

use pushlet_guests::*;

pub struct Waits;

impl Guest for Waits {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        match task(&application) {
            "nanosecond" => std::thread::sleep(Duration::from_nanos(1)),
            "year" => std::thread::sleep(Duration::from_secs(365 * 24 * 3600)),
            _ => {}
        }
        encoded(&targets)
    }
}

export!(Waits);
