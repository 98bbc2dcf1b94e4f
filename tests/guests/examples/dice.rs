//! Asks for random bytes, for a few and for too many.
#![allow(unsafe_code)]

use pushlet_guests::*;

mod imports {
    wit_bindgen::generate!({
        inline: "
            package guests:dice;
            world dice { import wasi:random/random@0.2.1; }
            package wasi:random@0.2.1 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                }
            }
        ",
        generate_all,
    });
}

pub struct Dice;

impl Guest for Dice {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Target>) -> Encoded {
        match task(&application).parse() {
            Ok(count) => with_body(&targets, imports::wasi::random::random::get_random_bytes(count)),
            Err(_) => encoded(&targets),
        }
    }
}

export!(Dice);
