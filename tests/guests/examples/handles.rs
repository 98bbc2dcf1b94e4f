//! Takes handles and never gives them back.
#![allow(unsafe_code)]

use pushlet_guests::*;

mod clock {
    wit_bindgen::generate!({
        inline: "
            package guests:handles;
            world handles { import wasi:clocks/monotonic-clock@0.2.1; }
            package wasi:io@0.2.1 {
                interface poll { resource pollable; }
            }
            package wasi:clocks@0.2.1 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.1.{pollable};
                    type duration = u64;
                    subscribe-duration: func(when: duration) -> pollable;
                }
            }
        ",
        generate_all,
    });
}

pub struct Handles;

impl Guest for Handles {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Target>) -> Encoded {
        let count = task(&application).parse().unwrap_or(0);
        for _ in 0..count {
            std::mem::forget(clock::wasi::clocks::monotonic_clock::subscribe_duration(0));
        }
        encoded(&targets)
    }
}

export!(Handles);
