//! What takes too long, over real sockets.

use super::*;

const SHORT: Duration = Duration::from_millis(100);

/// Waits until the caller's end of the connection is over too.
async fn closed<T>(connection: impl Future<Output = T>) {
    timeout(PATIENT, connection).await.unwrap();
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_though_it_answers_pings() {
    let strangers = LimitsConfig { header_timeout: SHORT, ..limits() };
    let known = LimitsConfig { keep_alive: SHORT, ..limits() };
    for (limits, path) in
        [(strangers.clone(), None), (strangers, Some("/stranger")), (known, Some("/version"))]
    {
        let server = start(limits, PATIENT, None).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (mut sender, connection) =
            http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        if let Some(path) = path {
            sender.send_request(request("GET", path, "")).await.unwrap();
        }
        closed(connection).await;
    }
}

#[tokio::test]
async fn a_connection_is_kept_longer_than_a_head_may_take() {
    let server = start(LimitsConfig { header_timeout: SHORT, ..limits() }, PATIENT, None).await;
    let mut kept = server.http1().await;
    for _ in 0..2 {
        let answer = read(kept.send_request(request("GET", "/version", "")).await.unwrap()).await;
        assert_eq!(answer.0, StatusCode::OK);
        // Nobody knows how long is long enough to see that nothing happens.
        tokio::time::sleep(SHORT * 4).await;
    }
    // But not if the next head begins and does not end.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    slow.write_all(b"GET /version HTTP/1.1\r\nhost:").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENT, slow.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn an_idle_http1_connection_is_closed_in_the_end() {
    let server = start(LimitsConfig { keep_alive: SHORT, ..limits() }, PATIENT, None).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    read(sender.send_request(request("GET", "/version", "")).await.unwrap()).await;
    closed(connection).await;
}

#[tokio::test]
async fn an_http2_answer_that_is_not_read_is_reset_and_others_go_on() {
    let server = start(LimitsConfig { write_timeout: SHORT, ..limits() }, PATIENT, None).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    // The window of the connection has room for others when that of a stream is full.
    let (mut sender, connection) = h2::client::Builder::new()
        .initial_connection_window_size(1 << 20)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut get = |path: &str| {
        let request = Request::get(format!("http://localhost{path}")).body(()).unwrap();
        sender.send_request(request, true).unwrap().0
    };
    let mut unread = get("/big").await.unwrap().into_body();
    let reset = async {
        loop {
            match unread.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("it was read to its end"),
            }
        }
    };
    let error = timeout(PATIENT, reset).await.unwrap();
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    let mut other = get("/version").await.unwrap().into_body();
    assert_eq!(other.data().await.unwrap().unwrap(), "HTTP/2.0");
}

/// The status of what is sent as it stands.
async fn status_of(server: &RunningSimulator, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

#[tokio::test]
async fn a_request_has_one_host() {
    let server = start_plain().await;
    for (request, status) in [
        ("GET /version HTTP/1.1\r\nhost: a\r\n\r\n", "200"),
        ("GET /version HTTP/1.0\r\n\r\n", "200"),
        ("GET /version HTTP/1.0\r\nhost: a\r\n\r\n", "200"),
        ("GET /version HTTP/1.1\r\n\r\n", "400"),
        ("GET http://a/version HTTP/1.1\r\n\r\n", "400"),
        ("GET /version HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n", "400"),
        ("GET /version HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", "400"),
    ] {
        assert_eq!(status_of(&server, request).await, status, "{request:?}");
    }
}

/// The first bytes tell the protocol, however many of them come at once.
#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let server = start_plain().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"POST /version HTTP/1.1\r\nhost: a\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut answer = [0; 12];
    timeout(PATIENT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 405");
}
