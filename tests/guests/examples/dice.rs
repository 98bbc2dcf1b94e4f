//! Asks for random bytes, for a few and for too many.
#![allow(unsafe_code)]

use pushlet_guests::*;

#[path = "../imports/dice.rs"]
#[rustfmt::skip]
mod imports;

pub struct Dice;

impl Guest for Dice {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        match task(&application).parse() {
            Ok(count) => with_body(&targets, imports::wasi::random::random::get_random_bytes(count)),
            Err(_) => encoded(&targets),
        }
    }
}

export!(Dice);
