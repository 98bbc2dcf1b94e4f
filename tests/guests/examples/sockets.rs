//! Opens a connection of its own.
#![allow(unsafe_code)]

use pushlet_guests::*;

mod imports {
    wit_bindgen::generate!({
        inline: "
            package guests:sockets;
            world sockets { import wasi:sockets/tcp@0.3.0; }
            package wasi:sockets@0.3.0 {
                interface tcp { send: func(address: string, data: string); }
            }
        ",
        generate_all,
    });
}

pub struct Sockets;

impl Guest for Sockets {
    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Target>) -> Encoded {
        imports::wasi::sockets::tcp::send("192.0.2.1:80", "secret");
        encoded(&targets)
    }
}

export!(Sockets);
