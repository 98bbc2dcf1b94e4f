//! Makes requests of its own.
#![allow(unsafe_code)]

use pushlet_guests::*;

#[path = "../imports/http.rs"]
#[rustfmt::skip]
mod imports;

pub struct Http;

impl Guest for Http {
    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        imports::wasi::http::outgoing_handler::handle("http://192.0.2.1/");
        encoded(&targets)
    }
}

export!(Http);
