//! Reaches for files and sockets through the interfaces that its language's library imports, and tells what came of it.

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use pushlet_guests::*;

pub struct Filesystem;

fn attempts() -> Vec<(&'static str, io::Result<()>)> {
    vec![
        ("read", std::fs::read("/etc/passwd").map(drop)),
        ("write", std::fs::write("/tmp/guest", b"was here")),
        ("list", std::fs::read_dir(".").map(drop)),
        ("create", std::fs::create_dir("guest")),
        ("remove", std::fs::remove_file("/etc/passwd")),
        ("connect", TcpStream::connect("127.0.0.1:80").map(drop)),
        ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("datagram", UdpSocket::bind("127.0.0.1:0").map(drop)),
        ("resolve", ("push.example", 443).to_socket_addrs().map(drop)),
    ]
}

impl Guest for Filesystem {
    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let line = |(what, result): (&str, io::Result<()>)| match result {
            Ok(()) => format!("{what}: done\n"),
            Err(error) => format!("{what}: {:?}\n", error.kind()),
        };
        let lines: String = attempts().into_iter().map(line).collect();
        with_body(&targets, lines.into_bytes())
    }
}

export!(Filesystem);
