//! The attackers that hold connections: silent, trickling, reading slowly or nothing of what they asked for.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::attackers::{Attacker, Attackers};
use super::server::apns_application;
use crate::peer::Failure;

/// More than the server takes by default.
const SILENT: usize = 1100;
/// How often a silent connection looks whether it was closed, and the pause after one that was.
const LOOK: Duration = Duration::from_secs(1);
/// No attacker waits longer for anything.
const LONGEST: Duration = Duration::from_secs(90);
/// RFC 9113 section 3.4: the preface and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// RFC 9113 section 6.7: the acknowledgement of a PING with these eight bytes after it.
const PING_ACK: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0";

pub async fn prepare(all: &mut Attackers) -> Result<(), Failure> {
    let stranger = |all: &Attackers, attack| all.caller(String::new(), attack);
    let attacker = stranger(all, "silent HTTP/2 connections")?;
    all.add(SILENT, attacker, |attacker| hold(attacker, silence));
    let attacker = stranger(all, "answers that are not read")?;
    let request = Bytes::from("GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100));
    all.add(32, attacker, move |attacker| {
        hold(attacker, repeating(Bytes::new(), request.clone(), Duration::ZERO))
    });
    let attacker = stranger(all, "two Host headers")?;
    all.add(2, attacker, |attacker| hold(attacker, two_hosts));

    let attacker = all.tenant("connects", "trickling bodies").await?;
    let request = attacker.request(Method::PUT, "/v1/applications/app").json(&apns_application()?);
    attacker.set_up(request).await?;
    let upload = head(
        &attacker,
        "PUT /v1/providers/acme",
        "content-type: application/wasm\r\ncontent-length: 1000000",
    );
    let stream = head(
        &attacker,
        "POST /v1/notifications:stream",
        "content-type: application/x-ndjson\r\ntransfer-encoding: chunked",
    );
    let blank = Bytes::from_static(b"1\r\n\n\r\n");
    let (first, lines) =
        (Bytes::from([&stream[..], &chunk(&stream_header())].concat()), chunk(&stream_lines()));
    for (attack, tasks, first, further, pause) in [
        ("trickling bodies", 32, upload, Bytes::from_static(b"x"), LOOK),
        ("streams that are not read", 8, first, lines, Duration::ZERO),
        ("blank lines before a stream's header", 8, stream, blank, LOOK),
    ] {
        all.add(tasks, attacker.with(attack), move |attacker| {
            hold(attacker, repeating(first.clone(), further.clone(), pause))
        });
    }
    let body = Bytes::from(long_answer());
    let rest = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    let request = Bytes::from([&head(&attacker, "POST /v1/notifications", &rest)[..], &body].concat());
    all.add(8, attacker.with("answers that are read slowly"), move |attacker| {
        let request = request.clone();
        hold(attacker, move |stream| slow_reader(stream, request.clone()))
    });
    all.add(4, attacker.with("HTTP/2 answers that are not read"), move |attacker| {
        let (body, key) = (body.clone(), attacker.api_key.clone());
        hold(attacker, move |stream| unread_http2(stream, body.clone(), key.clone()))
    });
    Ok(())
}

/// Opens a connection again each time that it was closed, and has `attack` keep it busy. The kernel takes little of
/// what is not read.
async fn hold<F: Future<Output = io::Result<()>>>(attacker: Attacker, attack: impl Fn(TcpStream) -> F) {
    loop {
        let outcome = match connect(attacker.server.address).await {
            Ok(stream) => match timeout(LONGEST, attack(stream)).await {
                Ok(_) => "closed",
                Err(_) => "held for 90 s",
            },
            Err(_) => "no connection",
        };
        attacker.count(outcome);
        sleep(LOOK).await;
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(address).await
}

/// Sends `first`, then `further` again and again, and reads nothing.
fn repeating(
    first: Bytes,
    further: Bytes,
    pause: Duration,
) -> impl Fn(TcpStream) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    move |mut stream| {
        let (first, further) = (first.clone(), further.clone());
        Box::pin(async move {
            stream.write_all(&first).await?;
            loop {
                stream.write_all(&further).await?;
                sleep(pause).await;
            }
        })
    }
}

/// Speaks HTTP/2, asks for nothing, and answers every PING.
async fn silence(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(HTTP2).await?;
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        answer_pings(&mut stream, buffer.get(..read).unwrap_or_default()).await?;
    }
}

/// Looks for PING frames where each read begins with a frame, which is so on an idle connection.
async fn answer_pings(stream: &mut TcpStream, mut frames: &[u8]) -> io::Result<()> {
    while let Some((head, rest)) = frames.split_at_checked(9) {
        let length = head.iter().take(3).fold(0, |length, byte| length << 8 | usize::from(*byte));
        let Some((payload, rest)) = rest.split_at_checked(length) else { return Ok(()) };
        if head.get(3..5) == Some(&[6, 0]) {
            stream.write_all(&[PING_ACK, payload].concat()).await?;
        }
        frames = rest;
    }
    Ok(())
}

/// The head of a request with a right credential.
fn head(attacker: &Attacker, line: &str, rest: &str) -> Bytes {
    let key = &attacker.api_key;
    let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n{rest}\r\n\r\n");
    Bytes::from(head)
}

fn chunk(text: &str) -> Bytes {
    Bytes::from(format!("{:x}\r\n{text}\r\n", text.len()))
}

fn stream_header() -> String {
    json!({"application_id": "app", "notification": {"body": "x"}}).to_string() + "\n"
}

fn stream_lines() -> String {
    (0..500).map(|number| format!("{{\"target\":\"{number:064x}\"}}\n")).collect()
}

/// Sends what a proxy in front might understand otherwise.
async fn two_hosts(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

/// A request whose answer is long.
fn long_answer() -> String {
    let targets: Vec<_> = (0..10_000).map(|number| format!("{number:064x}")).collect();
    let body = json!({
        "application_id": "app",
        "notification": {"body": "x"},
        "targets": targets,
        "validate_only": true,
    });
    body.to_string()
}

/// Has a long answer made, and takes it at a pace that is none.
async fn slow_reader(mut stream: TcpStream, request: Bytes) -> io::Result<()> {
    stream.write_all(&request).await?;
    let mut piece = [0; 2048];
    while stream.read(&mut piece).await? > 0 {
        sleep(LOOK).await;
    }
    Ok(())
}

/// Has many long answers made on one HTTP/2 connection, and takes none.
async fn unread_http2(stream: TcpStream, body: Bytes, key: String) -> io::Result<()> {
    let failed = |error: h2::Error| io::Error::other(error);
    let (mut sender, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    let asking = async {
        let mut answers = Vec::new();
        for _ in 0..64 {
            let request = http::Request::post("http://localhost/v1/notifications")
                .header("authorization", format!("Bearer {key}"))
                .header("content-type", "application/json")
                .body(())
                .map_err(io::Error::other)?;
            sender = sender.ready().await.map_err(failed)?;
            let (answer, mut sending) = sender.send_request(request, false).map_err(failed)?;
            sending.send_data(body.clone(), true).map_err(failed)?;
            answers.push(answer);
        }
        // Whatever comes of them, nothing of it is read.
        let answers = futures_util::future::join_all(answers).await;
        sleep(LONGEST).await;
        drop(answers);
        Ok(())
    };
    tokio::select! {
        ended = connection => ended.map_err(failed),
        asked = asking => asked,
    }
}
