//! Keeps what it saw in one call and tells it in the next.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Mutex;

use pushlet_guests::*;

pub struct MemoryOfCalls;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Guest for MemoryOfCalls {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let mut seen = SEEN.lock().unwrap();
        seen.push(application.id);
        with_body(&targets, seen.join(" ").into_bytes())
    }
}

export!(MemoryOfCalls);
