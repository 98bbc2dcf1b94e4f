//! One request whose body is a line for each target, and whose answer is a line for each.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::http1::Client;
use super::template::Template;
use super::{Figures, Plan};
use crate::failure::{Failure, at};

/// Lines in one chunk of the body.
const LINES: u64 = 256;

/// Sends `lines` targets and counts the answers. `plan.body` is the first line; each further one names a token.
pub(super) async fn run(plan: &Plan, lines: u64) -> Result<Figures, Failure> {
    let stream = Client::connect(&plan.address).await.map_err(at("load"))?.into_stream();
    let start = Instant::now();
    let (reader, writer) = TcpStream::into_split(stream);
    let sending = tokio::spawn(send(writer, plan.clone(), lines));
    let (status, accepted, first) = receive(reader, &plan.accepted).await.map_err(at("load"))?;
    sending.abort();
    let complaint = (status != 200).then(|| String::from_utf8_lossy(&first).into_owned());
    Ok(Figures {
        seconds: start.elapsed().as_secs_f64(),
        requests: 1,
        pushes: accepted,
        statuses: [(status, 1)].into(),
        complaint,
        ..Figures::default()
    })
}

/// Returns the writer: dropping it closes this half of the connection, which servers take for a caller that went away.
async fn send(mut writer: OwnedWriteHalf, plan: Plan, lines: u64) -> std::io::Result<OwnedWriteHalf> {
    let Plan { address, path, content_type, body, .. } = &plan;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{body}\n\r\n",
        body.len() + 1
    );
    writer.write_all(head.as_bytes()).await?;
    let mut line = Template::new("{\"target\":\"{token}\"}\n", &Plan::default(), 0, 1);
    let mut chunk = Vec::new();
    let mut left = lines;
    while left > 0 {
        let count = left.min(LINES);
        left -= count;
        let mut content = Vec::new();
        for _ in 0..count {
            content.extend_from_slice(line.next());
        }
        chunk.clear();
        chunk.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
        chunk.extend_from_slice(&content);
        chunk.extend_from_slice(b"\r\n");
        writer.write_all(&chunk).await?;
    }
    writer.write_all(b"0\r\n\r\n").await?;
    Ok(writer)
}

/// Status, how often `mark` came, and the beginning of the answer. The mark may lie across two reads.
async fn receive(mut reader: OwnedReadHalf, mark: &str) -> std::io::Result<(u16, u64, Vec<u8>)> {
    let mut first = Vec::new();
    let mut accepted = 0;
    let mut window: Vec<u8> = Vec::with_capacity(128 << 10);
    let mark = mark.as_bytes();
    loop {
        let read = reader.read_buf(&mut window).await?;
        if first.len() < 4096 {
            let new = window.get(window.len() - read..).unwrap_or_default();
            first.extend_from_slice(new);
        }
        accepted += super::occurrences(&window, mark);
        if read == 0 {
            break;
        }
        let last = window.windows(mark.len()).rposition(|part| part == mark).map_or(0, |at| at + mark.len());
        let keep = last.max((window.len() + 1).saturating_sub(mark.len()));
        window.drain(..keep);
    }
    let status = first.get(9..12).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    Ok((status.unwrap_or(0), accepted, first))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    /// As axum's server does.
    async fn answer_unless_closed(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n0\r\n\r\n") {
            stream.read_buf(&mut read).await.unwrap();
        }
        let lines = String::from_utf8(read).unwrap().matches("{\"target\"").count();
        if tokio::time::timeout(Duration::from_millis(100), stream.read_buf(&mut Vec::new())).await.is_err() {
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{}", "ok\n".repeat(lines));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn its_half_of_the_connection_stays_open_until_the_answer_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(answer_unless_closed(listener));
        let figures = run(&Plan { address, accepted: "ok".into(), ..Plan::default() }, 300).await.unwrap();
        assert_eq!((figures.pushes, figures.statuses), (300, [(200, 1)].into()));
        server.await.unwrap();
    }
}
