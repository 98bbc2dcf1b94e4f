//! Its own example makes it trap: there are components that fail on their very first call.
#![allow(clippy::panic, clippy::print_stdout)]

use pushlet_guests::*;

pub struct BadExample;

impl Guest for BadExample {
    fn encode(_: Context, _: Application, _: Notification, _: Vec<Recipient>) -> Encoded {
        println!("about to fail");
        panic!("on the first call");
    }
}

export!(BadExample);
