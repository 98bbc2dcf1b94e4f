use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// A client of another make talks to the sink over a pipe.
async fn client(answer: Answer, latency: Duration, window: u32) -> h2::client::SendRequest<Bytes> {
    let (near, mut far) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let mut peer = Peer::new(answer, latency, 100);
        loop {
            write(&mut far, &mut peer).await;
            let due = peer.due_at().unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                read = far.read_buf(peer.input()) => {
                    if read.unwrap_or(0) == 0 { return; }
                    peer.received(Instant::now()).unwrap();
                }
                () = tokio::time::sleep_until(due.into()) => peer.due(Instant::now()),
            }
        }
    });
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let (sender, mut connection) = builder.handshake(near).await.unwrap();
    let mut ping = connection.ping_pong().unwrap();
    tokio::spawn(async move { connection.await.unwrap() });
    ping.ping(h2::Ping::opaque()).await.unwrap();
    sender
}

async fn write(far: &mut DuplexStream, peer: &mut Peer) {
    far.write_all(peer.output()).await.unwrap();
    peer.output().clear();
}

async fn exchange(sender: &h2::client::SendRequest<Bytes>, body: &[u8]) -> (u16, Vec<u8>) {
    let mut sender = sender.clone().ready().await.unwrap();
    let request = http::Request::post("https://localhost/3/device/aa").body(()).unwrap();
    let (response, mut sending) = sender.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        sending.send_data(Bytes::copy_from_slice(body), true).unwrap();
    }
    let response = response.await.unwrap();
    let (status, mut body) = (response.status().as_u16(), response.into_body());
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        whole.extend_from_slice(&piece);
    }
    (status, whole)
}

#[tokio::test]
async fn answers_more_requests_than_streams_at_a_time() {
    let sender = client(Answer::apns(), Duration::ZERO, 65_535).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let sender = sender.clone();
        tasks.spawn(async move { exchange(&sender, br#"{"aps":{"alert":"hi"}}"#).await });
    }
    for (status, body) in tasks.join_all().await {
        assert_eq!((status, body.len()), (200, 0));
    }
}

#[tokio::test]
async fn keeps_within_the_windows_of_the_client() {
    let sender = client(Answer::Gcm, Duration::ZERO, 1000).await;
    let ids = vec!["\"token\""; 1000].join(",");
    for _ in 0..10 {
        let (status, body) = exchange(&sender, format!("{{\"registration_ids\":[{ids}]}}").as_bytes()).await;
        assert_eq!(status, 200);
        let text = String::from_utf8(body).unwrap();
        assert_eq!(text.matches("message_id").count(), 1000);
    }
}

#[tokio::test]
async fn takes_bodies_beyond_its_own_windows() {
    let sender = client(Answer::fcm(), Duration::ZERO, 65_535).await;
    for _ in 0..3 {
        let (status, body) = exchange(&sender, &vec![b'x'; 20 << 20]).await;
        assert_eq!(status, 200);
        assert!(body.starts_with(br#"{"name":"#));
    }
}

#[tokio::test]
async fn answers_after_its_latency() {
    let sender = client(Answer::web_push(), Duration::from_millis(50), 65_535).await;
    let start = Instant::now();
    assert_eq!(exchange(&sender, b"x").await.0, 201);
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[test]
fn refuses_another_protocol() {
    let mut peer = Peer::new(Answer::apns(), Duration::ZERO, 1);
    peer.input().extend_from_slice(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(peer.received(Instant::now()).is_err());
}
