//! Connections and streams on which time stands still.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Harness, Manner, PushService, expect, expect_error, wait_until};

/// Longer than anything here may take.
const PATIENT: Duration = Duration::from_secs(60);
/// What the defaults allow in half a minute, in one second.
const QUICK: &str =
    "limits.header_timeout = \"1s\"\nlimits.body_timeout = \"1s\"\nlimits.write_timeout = \"1s\"\n";

/// An HTTP/2 connection that answers PINGs and does nothing else.
async fn silent(harness: &Harness) -> tokio::task::JoinHandle<()> {
    let stream = TcpStream::connect(harness.server.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _sender = sender;
        let _ = connection.await;
    })
}

/// Status and time-outs of one small request on a connection of its own.
async fn status(harness: &Harness, path: &str) -> u16 {
    let url = harness.server.url(path);
    let client = pushlet_test_support::http_client();
    client.get(url).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_http2_connections_do_not_shut_others_out() {
    let mut harness = Harness::start("limits.connections = 64").await;
    let attack = || async {
        let mut all = Vec::new();
        for _ in 0..256 {
            all.push(silent(&harness).await);
            if all.len() % 32 == 0 {
                assert_eq!(status(&harness, "/healthz").await, 200);
                // 401: it is served, and would be let in with a credential.
                assert_eq!(status(&harness, "/v1/status").await, 401);
            }
        }
        // Those that are left are closed, though they answer every PING.
        for connection in all {
            timeout(PATIENT, connection).await.unwrap().unwrap();
        }
    };
    harness.victim.unharmed_by(attack).await;
    harness.server.assert_alive();
}

/// One small request on a connection that stays open.
async fn kept_alive(harness: &Harness, authorization: &str) -> TcpStream {
    let mut stream = TcpStream::connect(harness.server.address).await.unwrap();
    let head = format!("GET /v1/status HTTP/1.1\r\nhost: x\r\n{authorization}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    let expected = if authorization.is_empty() { "HTTP/1.1 401" } else { "HTTP/1.1 200" };
    assert_eq!(String::from_utf8_lossy(&start), expected);
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_kept_alive_make_room() {
    let keep_alive = "limits.connections = 64\nlimits.keep_alive = \"2s\"";
    let mut harness = Harness::start(&format!("{QUICK}{keep_alive}")).await;
    let own = format!("authorization: Bearer {}\r\n", harness.attacker);
    let attack = || async {
        let mut all = Vec::new();
        for number in 0..192 {
            let authorization = if number % 2 == 0 { "" } else { &own };
            all.push(kept_alive(&harness, authorization).await);
            if all.len() % 32 == 0 {
                assert_eq!(status(&harness, "/healthz").await, 200);
                assert_eq!(status(&harness, "/v1/status").await, 401);
            }
        }
        for mut connection in all {
            // In one way or another: it may be closed with bytes of its response unread.
            let mut rest = Vec::new();
            let _ = timeout(PATIENT, connection.read_to_end(&mut rest)).await.expect("it stays open");
        }
    };
    harness.victim.unharmed_by(attack).await;
    harness.server.assert_alive();
}

/// An address of this machine that is not loopback. No packet is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").expect("this test needs a network");
    socket.local_addr().unwrap().ip()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_only_so_many_connections() {
    let mut harness = Harness::start("listen = \"0.0.0.0:0\"\nlimits.connections_per_address = 8").await;
    let from_outside = SocketAddr::new(own_address(), harness.server.address.port());
    // Made before anything is measured: each reads all root certificates. None keeps a connection.
    let client = |from: Option<Ipv4Addr>| {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        client.local_address(from.map(IpAddr::V4)).build().unwrap()
    };
    let here = client(None);
    let others: Vec<_> = (2..18).map(|last| client(Some(Ipv4Addr::new(127, 0, 0, last)))).collect();
    let ask = |client: &reqwest::Client, address: SocketAddr| {
        client.get(format!("http://{address}/v1/status")).bearer_auth(&harness.attacker)
    };
    let attack = || async {
        let mut streams = Vec::new();
        for _ in 0..8 {
            streams.push(waiting_stream(&harness, from_outside).await);
        }
        // All of them are served before another one comes: eight, the one that asks, and the victim.
        timeout(PATIENT, in_flight(&harness, |count| count >= 10.0)).await.unwrap();
        for _ in 0..8 {
            expect_error(ask(&here, from_outside), 503, "too_many_connections").await;
        }
        // The bound is the address's own: others have their places.
        for other in &others {
            expect(ask(other, harness.server.address), 200).await;
        }
        drop(streams);
        timeout(PATIENT, nothing_in_flight(&harness)).await.unwrap();
        expect(ask(&here, from_outside), 200).await;
    };
    harness.victim.unharmed_by(attack).await;
    harness.server.assert_alive();
}

/// A stream of the attacker that waits for its first line.
async fn waiting_stream(harness: &Harness, address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/notifications:stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n",
        harness.attacker
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_when_every_place_is_taken_by_requests() {
    let mut harness = Harness::start("limits.connections = 4").await;
    // The victim has one; streams that wait for their lines have the others.
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(waiting_stream(&harness, harness.server.address).await);
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(status(&harness, path).await, 200, "{path}");
    }
    drop(streams);
    harness.server.assert_alive();
}

/// An application of the attacker, and a request whose answer is long.
async fn long_answers(harness: &Harness) -> Bytes {
    harness.register_apns(&harness.attacker, "long").await;
    let targets: Vec<String> = (0..10_000).map(|index| format!("{index:064x}")).collect();
    let body = json!({
        "application_id": "long",
        "notification": {"body": "x"},
        "targets": targets,
        "validate_only": true,
    });
    Bytes::from(serde_json::to_vec(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_answers_that_are_not_read_are_not_kept() {
    let mut harness = Harness::start(QUICK).await;
    let body = long_answers(&harness).await;
    let attack = || async {
        let stream = TcpStream::connect(harness.server.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut answers = Vec::new();
        for _ in 0..32 {
            let request = http::Request::post("http://localhost/v1/notifications")
                .header("authorization", format!("Bearer {}", harness.attacker))
                .header("content-type", "application/json")
                .body(())
                .unwrap();
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, mut sending) = sender.send_request(request, false).unwrap();
            sending.send_data(body.clone(), true).unwrap();
            answers.push(answer);
        }
        // Whatever comes of each, it is not read; in the end the server has none of them any more.
        let bodies = futures_util::future::join_all(answers).await;
        let unread: Vec<_> =
            bodies.into_iter().filter_map(Result::ok).map(http::Response::into_body).collect();
        timeout(PATIENT, nothing_in_flight(&harness)).await.unwrap();
        drop(unread);
    };
    harness.victim.unharmed_by(attack).await;
    assert!(harness.server.peak_resident() < 768 << 20, "{}", harness.server.peak_resident());
    harness.server.assert_alive();
}

/// Waits until no request but the one that asks, and the victim's, is in flight.
async fn nothing_in_flight(harness: &Harness) {
    in_flight(harness, |count| count <= 2.0).await;
}

/// Waits until as many requests are in flight as it says.
async fn in_flight(harness: &Harness, is_so: impl Fn(f64) -> bool) {
    wait_until("the number of requests in flight is right", async || {
        let request = harness.server.client.get(harness.server.url("/metrics"));
        let text = request.bearer_auth(crate::harness::ADMIN).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.contains("limit=\"requests\"") && line.contains("_used"));
        let line = line.unwrap_or_else(|| panic!("no such metric: {text}"));
        is_so(line.rsplit(' ').next().unwrap().parse().unwrap())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_results_are_not_read_gives_its_place_back() {
    let mut harness = Harness::start(QUICK).await;
    harness.register_apns(&harness.attacker, "unread").await;
    let header = json!({"application_id": "unread", "notification": {"body": "x"}, "validate_only": true});
    let text = format!("{header}\n{}", "{\"target\":\"00aa\"}\n".repeat(5_000));
    let attack = || async {
        let stream = TcpStream::connect(harness.server.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut streams = Vec::new();
        for _ in 0..4 {
            let request = http::Request::post("http://localhost/v1/notifications:stream")
                .header("authorization", format!("Bearer {}", harness.attacker))
                .header("content-type", "application/x-ndjson")
                .body(())
                .unwrap();
            let mut sender = sender.clone().ready().await.unwrap();
            let (response, mut sending) = sender.send_request(request, false).unwrap();
            // More results than the window has room for, and no end.
            sending.send_data(Bytes::from(text.clone()), false).unwrap();
            streams.push((response.await.unwrap(), sending));
        }
        timeout(PATIENT, nothing_in_flight(&harness)).await.unwrap();
        drop(streams);
    };
    harness.victim.unharmed_by(attack).await;
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn informational_answers_without_end_end_the_exchange() {
    // So many before the answer itself, and what was on its way when there were too many.
    const MOST: usize = 8 + 40;
    let service = PushService::start(Manner::Informational).await;
    let mut harness = Harness::start_with_service(&service, "delivery.retries = 0").await;
    harness.upload_webhook().await;
    harness.register_webhook("app", "production").await;
    let body = json!({"application_id": "app", "notification": {"body": "x"}, "targets": ["someone"]});
    let attack = || async {
        let before = service.responses();
        let answer = expect(harness.attack(Method::POST, "/v1/notifications").json(&body), 200).await;
        assert_eq!(answer["results"][0]["status"], "unknown", "{answer}");
        let responses = service.responses() - before;
        assert!((9..=MOST).contains(&responses), "{responses}");
    };
    harness.victim.unharmed_by(attack).await;
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_read_too_slowly_ends() {
    // Much more than the readers take; and a write has time to make some progress, which must not be enough.
    let mut harness = Harness::start("limits.write_timeout = \"3s\"\nlimits.min_data_rate = \"64MiB\"").await;
    let attack = || async {
        let readers = (0..4).map(|_| slow_reader(harness.server.address, &harness.attacker));
        let answers = timeout(PATIENT, futures_util::future::join_all(readers)).await.unwrap();
        assert!(answers.iter().all(|answers| *answers < PIPELINED), "{answers:?} of {PIPELINED}");
    };
    harness.victim.unharmed_by(attack).await;
    harness.server.assert_alive();
}

/// Requests in a row on one connection: no buffer of the kernel has room for all answers.
const PIPELINED: usize = 64;

/// Asks for the longest answer, and reads a little at a time. Returns how many answers began before the server had
/// enough.
async fn slow_reader(address: SocketAddr, api_key: &str) -> usize {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // Else the kernel reads much of it in the reader's place.
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let (mut reading, mut writing) = socket.connect(address).await.unwrap().into_split();
    let head = format!("GET /openapi.json HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api_key}\r\n\r\n");
    let write = async {
        // It breaks when the server has enough.
        let _ = writing.write_all(head.repeat(PIPELINED).as_bytes()).await;
    };
    let read = async {
        let (mut piece, mut all) = ([0; 4096], Vec::new());
        while let Ok(read @ 1..) = reading.read(&mut piece).await {
            all.extend_from_slice(&piece[..read]);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        all
    };
    let ((), all) = tokio::join!(write, read);
    String::from_utf8_lossy(&all).matches("HTTP/1.1 200 OK").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_lines_do_not_keep_a_stream_that_has_not_begun() {
    let mut harness = Harness::start(QUICK).await;
    let attack = || async {
        let lines = futures_util::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Some((Ok::<_, std::io::Error>("\n"), ()))
        });
        let request = harness
            .attack(Method::POST, "/v1/notifications:stream")
            .header("content-type", "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(lines));
        timeout(PATIENT, expect_error(request, 400, "request_timeout")).await.unwrap();
    };
    harness.victim.unharmed_by(attack).await;
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_slowed_and_right_ones_work() {
    let mut harness = Harness::start("").await;
    let attack = || async {
        let guess = |key: String| {
            let url = harness.server.url("/v1/status");
            harness.server.client.get(url).bearer_auth(key).send()
        };
        let mut statuses = Vec::new();
        for index in 0..12 {
            statuses.push(guess(format!("guess-{index}")).await.unwrap().status().as_u16());
        }
        assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
        expect(harness.attack(Method::GET, "/v1/status"), 200).await;
    };
    harness.victim.unharmed_by(attack).await;
    assert!(harness.server.log().contains("peer=127.0.0.1"), "{}", harness.server.log());
    harness.server.assert_alive();
}
