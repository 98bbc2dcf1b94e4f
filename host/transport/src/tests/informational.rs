//! Informational answers (1xx), which are not the last.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::peer::{END_HEADERS, HEADERS, MAX_CONCURRENT_STREAMS, Peer, Setup};
use super::{LONG, push, request as http2_request, transport};
use crate::{FailureCause, Protocol, Request, RequestState};

const MOST: usize = 8;

fn https(peer: &Peer) -> Request {
    Request { protocol: Protocol::Https, ..http2_request(&peer.origin()) }
}

#[tokio::test]
async fn a_few_over_http1_are_passed_over_and_endless_ones_end_the_request() {
    for (count, is_answered) in [(MOST, true), (MOST + 1, false)] {
        let peer = Peer::with(Setup { alpn: "http/1.1", ..Setup::default() }).await;
        let transport = transport(&peer, |_| {});
        let send = push(&transport, https(&peer));
        let mut stream = peer.accept_tls().await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n{}") {
            text.push(stream.read_u8().await.unwrap());
        }
        for _ in 0..count {
            stream.write_all(b"HTTP/1.1 103 Early\r\n\r\n").await.unwrap();
        }
        if is_answered {
            stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(send.await.unwrap().unwrap().status, 200);
        } else {
            stream.flush().await.unwrap();
            let error = timeout(LONG, send).await.unwrap().unwrap().unwrap_err();
            assert_eq!((error.delivery, error.cause), (RequestState::Unknown, FailureCause::Protocol));
            // The connection is closed: nothing more of it is read.
            let _ = timeout(LONG, stream.read_to_end(&mut text)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_few_over_http2_are_passed_over_and_endless_ones_end_the_connection() {
    // HPACK: a literal field without indexing, with the name `:status` of the static table.
    let early = [0x08, 0x03, b'1', b'0', b'3'];
    for protocol in [Protocol::Http2, Protocol::Https] {
        for (count, is_answered) in [(MOST, true), (MOST + 2, false)] {
            let peer = Peer::start().await;
            let transport = transport(&peer, |_| {});
            let send = push(&transport, Request { protocol, ..https(&peer) });
            let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
            let (stream, _) = wire.request().await;
            for _ in 0..count {
                wire.send(HEADERS, END_HEADERS, stream, &early).await;
            }
            if is_answered {
                wire.answer(stream).await;
                assert_eq!(send.await.unwrap().unwrap().status, 200);
            } else {
                let error = timeout(LONG, send).await.unwrap().unwrap().unwrap_err();
                assert_eq!(error.delivery, RequestState::Unknown, "{error}");
            }
        }
    }
}
