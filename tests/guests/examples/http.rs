//! Makes requests of its own.
#![allow(unsafe_code)]

use pushlet_guests::*;

mod imports {
    wit_bindgen::generate!({
        inline: "
            package guests:http;
            world http { import wasi:http/outgoing-handler@0.3.0; }
            package wasi:http@0.3.0 {
                interface outgoing-handler { handle: func(url: string); }
            }
        ",
        generate_all,
    });
}

pub struct Http;

impl Guest for Http {
    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Target>) -> Encoded {
        imports::wasi::http::outgoing_handler::handle("http://192.0.2.1/");
        encoded(&targets)
    }
}

export!(Http);
