//! The attackers that hold connections: silent, trickling, or reading nothing of what they asked for.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::attackers::{Attacker, Scene};

/// More than the server takes by default.
const SILENT: usize = 1100;
const TRICKLING: usize = 32;
const UNREAD: usize = 32;
/// How often a silent connection looks whether it was closed.
const LOOK: Duration = Duration::from_secs(1);
/// RFC 9113 section 3.4: the preface and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// RFC 9113 section 6.7: the acknowledgement of a PING with these eight bytes after it.
const PING_ACK: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0";

pub fn all<'a>(scene: Scene<'a>) -> Vec<Attacker<'a>> {
    vec![
        Box::pin(async move { drop(join_all((0..SILENT).map(|_| silent(scene))).await) }),
        Box::pin(async move { drop(join_all((0..TRICKLING).map(|_| trickling(scene))).await) }),
        Box::pin(async move { drop(join_all((0..UNREAD).map(|_| unread(scene))).await) }),
    ]
}

/// Opens HTTP/2 connections that ask for nothing and answer every PING.
async fn silent(scene: Scene<'_>) {
    const ATTACK: &str = "silent HTTP/2 connections";
    while !scene.is_over() {
        let Ok(mut stream) = TcpStream::connect(scene.server.address).await else {
            scene.answers.count(ATTACK, "no connection");
            sleep(LOOK).await;
            continue;
        };
        let _ = stream.write_all(HTTP2).await;
        let mut buffer = [0; 4096];
        while !scene.is_over() {
            match timeout(LOOK, stream.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(read)) => answer_pings(&mut stream, buffer.get(..read).unwrap_or_default()).await,
                Err(_) => {}
            }
        }
        scene.answers.count(ATTACK, "closed");
        sleep(LOOK).await;
    }
}

/// Looks for PING frames where each read begins with a frame, which is so on an idle connection.
async fn answer_pings(stream: &mut TcpStream, mut frames: &[u8]) {
    while let Some((head, rest)) = frames.split_at_checked(9) {
        let length = head.iter().take(3).fold(0, |length, byte| length << 8 | usize::from(*byte));
        let Some((payload, rest)) = rest.split_at_checked(length) else { return };
        if head.get(3..5) == Some(&[6, 0]) {
            let _ = stream.write_all(&[PING_ACK, payload].concat()).await;
        }
        frames = rest;
    }
}

/// Sends the body of an upload a byte at a time, without a right credential.
async fn trickling(scene: Scene<'_>) {
    let head = "PUT /v1/providers/acme HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/wasm\r\n\
                content-length: 1000000\r\n\r\n";
    while !scene.is_over() {
        if let Ok(mut stream) = TcpStream::connect(scene.server.address).await {
            let _ = stream.write_all(head.as_bytes()).await;
            while !scene.is_over() && stream.write_all(b"x").await.is_ok() {
                sleep(LOOK).await;
            }
            scene.answers.count("trickling bodies", "closed");
        }
        sleep(LOOK).await;
    }
}

/// Asks for the largest answer that needs no credential again and again, and reads nothing.
async fn unread(scene: Scene<'_>) {
    let request = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    while !scene.is_over() {
        if let Ok(mut stream) = TcpStream::connect(scene.server.address).await {
            while !scene.is_over() {
                if let Ok(Err(_)) = timeout(LOOK, stream.write_all(request.as_bytes())).await {
                    break;
                }
            }
            scene.answers.count("answers that are not read", "closed");
        }
        sleep(LOOK).await;
    }
}
