//! How the heads of requests are coded (RFC 7541).

use http::HeaderValue;
use http::header::AUTHORIZATION;

use super::peer::{MAX_CONCURRENT_STREAMS, Peer, Wire};
use super::{push, request, transport};

const HEADER_TABLE_SIZE: u16 = 1;

#[tokio::test]
async fn path_and_authorization_are_never_indexed() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let mut with_token = request(&peer.origin());
    with_token.headers.push((AUTHORIZATION, HeaderValue::from_static("bearer abc")));
    let send = push(&transport, with_token);
    let mut wire = peer.accept(&[]).await;
    let (stream, block) = wire.request().await;
    wire.answer(stream).await;
    send.await.unwrap().unwrap();
    let fields = fields(&block);
    assert!(fields.contains(&(Form::WithoutIndexing, 4)), ":path {fields:?}");
    assert!(fields.contains(&(Form::NeverIndexed, 23)), "authorization {fields:?}");
}

#[tokio::test]
async fn a_table_that_the_peer_makes_smaller_is_used_no_more() {
    let peer = Peer::start().await;
    let transport = transport(&peer, |_| {});
    let send = || push(&transport, request(&peer.origin()));
    let pushes = [send(), send()];
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    let blocks = [served(&mut wire).await, served(&mut wire).await];
    assert_eq!(fields(&blocks[0])[2], (Form::WithIndexing, 1), "the authority");
    assert_eq!(fields(&blocks[1])[2], (Form::Indexed, 62), "the authority again");
    wire.settings(&[(HEADER_TABLE_SIZE, 0)]).await;
    while wire.acks < 2 {
        wire.any_frame().await.unwrap();
    }
    let last = send();
    let block = served(&mut wire).await;
    let rest = block.strip_prefix(b"\x20").expect("a table size update to 0");
    let all = fields(rest.strip_prefix(b"\x20").unwrap_or(rest));
    assert_eq!(all[2], (Form::WithoutIndexing, 1), "the authority {all:?}");
    assert!(all.iter().all(|(form, name)| *form != Form::WithIndexing && *name < 62), "{all:?}");
    for push in pushes.into_iter().chain([last]) {
        push.await.unwrap().unwrap();
    }
}

/// Answers a request. Returns its header block.
async fn served(wire: &mut Wire) -> Vec<u8> {
    let (stream, block) = wire.request().await;
    wire.answer(stream).await;
    block
}

#[derive(Debug, PartialEq)]
enum Form {
    Indexed,
    WithIndexing,
    WithoutIndexing,
    NeverIndexed,
}

/// The form and name index of each field of a header block (RFC 7541, section 6).
fn fields(block: &[u8]) -> Vec<(Form, usize)> {
    let mut rest = block;
    let mut fields = Vec::new();
    while let Some(first) = rest.first() {
        let (form, bits) = match first {
            0x80.. => (Form::Indexed, 7),
            0x40.. => (Form::WithIndexing, 6),
            0x20.. => panic!("a table size update"),
            0x10.. => (Form::NeverIndexed, 4),
            _ => (Form::WithoutIndexing, 4),
        };
        let name = integer(&mut rest, bits);
        let strings = if form == Form::Indexed { 0 } else { 1 + usize::from(name == 0) };
        for _ in 0..strings {
            let length = integer(&mut rest, 7);
            rest = &rest[length..];
        }
        fields.push((form, name));
    }
    fields
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1).
fn integer(rest: &mut &[u8], bits: u32) -> usize {
    let most = (1 << bits) - 1;
    let mut value = usize::from(rest[0]) & most;
    *rest = &rest[1..];
    let mut shift = 0;
    while value >= most {
        let byte = rest[0];
        *rest = &rest[1..];
        value += usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
