use proptest::prelude::*;

use super::*;
use crate::frames::{KEPT, take};

fn wire_frame(kind: u8, flags: u8, stream: u32) -> WireFrame {
    WireFrame { kind, flags, stream, payload: Vec::new() }
}

#[test]
fn so_many_informational_answers_and_no_more() {
    let mut heads = HeaderCounts::default();
    for _ in 0..=MOST_INFORMATIONAL {
        assert!(heads.received(&wire_frame(HEADERS, 4, 1)));
    }
    assert!(heads.received(&wire_frame(HEADERS, 4, 3)), "each stream has its own");
    assert!(!heads.received(&wire_frame(HEADERS, 4, 1)));
}

#[test]
fn nothing_is_kept_of_what_has_been_answered() {
    let mut heads = HeaderCounts::default();
    for (stream, (kind, flags)) in
        (1..).step_by(2).zip([(DATA, 0), (DATA, END_STREAM), (HEADERS, END_STREAM), (RST_STREAM, 0)])
    {
        assert!(heads.received(&wire_frame(HEADERS, 4, stream)));
        assert!(heads.received(&wire_frame(kind, flags, stream)));
    }
    assert!(heads.0.is_empty());
    for stream in 0..30_000 {
        heads.received(&wire_frame(HEADERS, 4, stream));
    }
    assert!(heads.0.len() <= MOST_STREAMS);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Feeds both directions in pieces of the given sizes.
fn observe(sent: &[u8], received: &[u8], sizes: &[usize]) -> Arc<ConnectionRecord> {
    let record = Arc::new(ConnectionRecord::new());
    let mut observed = ObservedStream::new((), record.clone());
    let mut sizes = sizes.iter().copied().cycle();
    let (mut sent, mut received) = (sent, received);
    while !sent.is_empty() {
        observed.wrote(take(&mut sent, sizes.next().unwrap()));
    }
    while !received.is_empty() {
        let piece = take(&mut received, sizes.next().unwrap());
        observed.heard(piece);
    }
    record
}

fn goaway(last: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &code.to_be_bytes(), debug].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn pieces_of_any_size_give_the_same_record(sizes in proptest::collection::vec(1usize..40, 1..8)) {
        let sent = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[0; 12]),
            frame(HEADERS, 4, 1, &[0; 20]),
            frame(HEADERS, 4 | END_STREAM, 3, &[0; 20]),
            frame(DATA, 0, 1, &[0; 33]),
            frame(HEADERS, 4, 5, &[0; 20]),
            frame(DATA, END_STREAM, 1, &[]),
            frame(HEADERS, 4 | END_STREAM, 7, &[0; 20]),
            frame(RST_STREAM, 0, 7, &[0; 4]),
        ].concat();
        let received = [frame(4, 0, 0, &[0; 6]), goaway(3, 2, b"why"), frame(DATA, 0, 1, &[7; 50])].concat();
        let record = observe(&sent, &received, &sizes);
        let written = [1, 3, 5, 7, 9].map(|stream| record.is_written(stream));
        prop_assert_eq!(written, [true, true, false, false, false]);
        let expected = GoAway { last_stream_id: 3, code: 2, debug: b"why".to_vec() };
        prop_assert_eq!(record.goaway(), Some(expected));
    }

    #[test]
    fn hostile_bytes_do_no_harm(received in proptest::collection::vec(any::<u8>(), 0..2000)) {
        observe(&[], &received, &[1, 100, 7]);
    }
}

#[test]
fn a_frame_counts_when_its_last_byte_has_left() {
    let record = Arc::new(ConnectionRecord::new());
    let mut observed = ObservedStream::new((), record.clone());
    observed.wrote(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    observed.wrote(&frame(HEADERS, 4, 1, &[0; 20]));
    let data = frame(DATA, END_STREAM, 1, &[0; 10]);
    let (most, last) = data.split_at(data.len() - 1);
    observed.wrote(most);
    assert!(!record.is_written(1));
    observed.wrote(last);
    assert!(record.is_written(1));
    record.forget(1);
    assert!(!record.is_written(1));
}

#[test]
fn nothing_is_kept_of_streams_that_have_ended() {
    let record = Arc::new(ConnectionRecord::new());
    let mut observed = ObservedStream::new((), record.clone());
    observed.wrote(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    observed.wrote(&frame(HEADERS, 4, 1, &[]));
    record.forget(1);
    observed.wrote(&frame(DATA, END_STREAM, 1, &[]));
    observed.wrote(&frame(HEADERS, 4, 3, &[]));
    observed.wrote(&frame(RST_STREAM, 0, 3, &[0; 4]));
    assert!(record.seen.lock().written.is_empty());
}

#[test]
fn the_debug_data_is_bounded_and_its_reason_is_read() {
    let record = observe(&[], &goaway(1, 0, &[b'x'; 100_000]), &[1000]);
    assert_eq!(record.goaway().unwrap().debug.len(), KEPT - 8);
    let reason = |debug: &[u8]| match observe(&[], &goaway(1, 0, debug), &[3]).goaway().unwrap().cause() {
        FailureCause::GoAway { reason, .. } => reason,
        _ => None,
    };
    assert_eq!(reason(br#"{"reason":"Shutdown","timestamp":1}"#).as_deref(), Some("Shutdown"));
    assert_eq!(reason(b"max_age").as_deref(), Some("max_age"));
    assert_eq!(reason(b""), None);
}
