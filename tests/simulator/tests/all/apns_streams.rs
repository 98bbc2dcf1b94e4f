//! How many streams a connection may open.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Apns, PAYLOAD, TOKEN, TOPIC, TokenSpec, start, tls};
use pushlet_simulator::{Script, Service};

#[tokio::test]
async fn a_certificate_has_all_streams_from_the_start() {
    let simulator = start().await;
    let apns = Apns::with_certificate(&simulator).await;
    assert_eq!(apns.h2.current_max_send_streams(), 1000);
}

#[tokio::test]
async fn a_token_has_one_stream_until_a_valid_one_was_answered() {
    let simulator = start().await;
    let apns = Apns::without(&simulator).await;
    assert_eq!(apns.h2.current_max_send_streams(), 1);
    assert_eq!(apns.push(TOKEN, &[("authorization", "bearer x")], PAYLOAD).await.status, 403);
    apns.push(TOKEN, &[], PAYLOAD).await;
    assert_eq!(apns.h2.current_max_send_streams(), 1, "a refused token changes nothing");
    let bearer = TokenSpec::of(&simulator).bearer();
    let headers = [("authorization", bearer.as_str()), ("apns-topic", TOPIC)];
    assert_eq!(apns.push(TOKEN, &headers, PAYLOAD).await.status, 200);
    tokio::time::timeout(Duration::from_secs(30), async {
        while apns.h2.current_max_send_streams() != 1000 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the new limit is announced");

    // The client opens both at once now, and neither is refused.
    simulator.script(Script { delay_ms: 50, ..Script::new(Service::Apns) }).unwrap();
    let (first, second) =
        tokio::join!(apns.push(TOKEN, &headers, PAYLOAD), apns.push("ab", &headers, PAYLOAD));
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(simulator.connections().list[0].refused_streams, 0);
}

/// Speaks HTTP/2 by hand, since no client library would break the limit.
#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let simulator = start().await;
    let mut tls = tls(&simulator, None, &["h2"]).await.unwrap();
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    tls.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let (kind, flags, _, settings) = read(&mut tls).await;
    assert_eq!((kind, flags), (4, 0));
    assert!(settings.chunks(6).any(|entry| entry == [0, 3, 0, 0, 0, 1]), "{settings:?}");
    tls.write_all(&frame(4, 1, 0, &[])).await.unwrap();
    // :method POST, :scheme https, :path and :authority as literals; END_HEADERS, but not END_STREAM.
    let head = [&[0x83, 0x87, 0x04, 12][..], b"/3/device/ab", &[0x01, 1], b"a"].concat();
    tls.write_all(&[frame(1, 4, 1, &head), frame(1, 4, 3, &head)].concat()).await.unwrap();
    let reset = async {
        loop {
            let (kind, _, stream, payload) = read(&mut tls).await;
            if kind == 3 {
                return (stream, payload);
            }
        }
    };
    let reset = tokio::time::timeout(Duration::from_secs(30), reset).await.expect("RST_STREAM arrives");
    assert_eq!(reset, (3, vec![0, 0, 0, 7]), "REFUSED_STREAM for the second stream");
    assert_eq!(simulator.connections().list[0].refused_streams, 1);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

async fn read(tls: &mut (impl AsyncReadExt + Unpin)) -> (u8, u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    tls.read_exact(&mut head).await.unwrap();
    let [a, b, c, kind, flags, rest @ ..] = head;
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
    tls.read_exact(&mut payload).await.unwrap();
    (kind, flags, u32::from_be_bytes(rest), payload)
}
