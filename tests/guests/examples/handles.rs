//! Takes handles and never gives them back.
#![allow(unsafe_code)]

use pushlet_guests::*;

#[path = "../imports/handles.rs"]
#[rustfmt::skip]
mod clock;

pub struct Handles;

impl Guest for Handles {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let count = task(&application).parse().unwrap_or(0);
        for _ in 0..count {
            std::mem::forget(clock::wasi::clocks::monotonic_clock::subscribe_duration(0));
        }
        encoded(&targets)
    }
}

export!(Handles);
