#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::super::connection::ConnectionState;
use tokio::time::Instant;

use super::*;
use pushlet_api::Peer;

fn outgoing(body: impl Into<Body>) -> (OutgoingBody, Arc<ConnectionState>, Arc<AnswerStream>) {
    let peer = Peer::new(Ipv4Addr::LOCALHOST.into(), &Arc::default());
    let connection = Arc::new(ConnectionState::new(Arc::new(peer)));
    let stream = Arc::new(AnswerStream::default());
    let outgoing = OutgoingBody::new(body.into(), Some(stream.clone()), connection.begin());
    (outgoing, connection, stream)
}

#[tokio::test]
async fn a_long_body_goes_in_pieces_of_which_the_last_is_short() {
    for (length, pieces) in [
        (1, &[1][..]),
        (LAST_PIECE, &[LAST_PIECE]),
        (LAST_PIECE + 1, &[1, LAST_PIECE]),
        (PIECE, &[PIECE - LAST_PIECE, LAST_PIECE]),
        (2 * PIECE + LAST_PIECE + 5, &[PIECE, PIECE, 5, LAST_PIECE]),
    ] {
        let (mut body, connection, _) = outgoing(vec![7; length]);
        let (mut seen, mut left) = (Vec::new(), length as u64);
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some(left));
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            left -= piece.len() as u64;
            seen.push(piece.len());
        }
        assert_eq!((seen.as_slice(), left), (pieces, 0));
        assert!(connection.activity().in_flight(), "the last piece is being written yet");
        drop(body);
        assert!(!connection.activity().in_flight());
    }
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_is_the_same() {
    let pieces = ["one", "", "three"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
    let (body, ..) = outgoing(Body::from_stream(futures_util::stream::iter(pieces)));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "onethree");
}

const GRACE: Duration = Duration::from_secs(10);

/// A stream whose caller has room for so many bytes every so often, as the library would write it.
async fn written(mut body: OutgoingBody, mut pause: impl FnMut(usize) -> Duration) {
    let mut pieces = 0;
    while let Some(Ok(_piece)) = body.frame().await {
        tokio::time::sleep(pause(pieces)).await;
        pieces += 1;
    }
}

/// How many seconds it took, and whether it was given up.
async fn run(pause: impl FnMut(usize) -> Duration + Send + 'static, rate: usize) -> (u64, bool) {
    let (body, connection, stream) = outgoing(vec![7; 32 * PIECE]);
    let start = Instant::now();
    let ended = Arc::new(AtomicBool::new(false));
    let whole = {
        let ended = ended.clone();
        async move {
            written(body, pause).await;
            ended.store(true, Ordering::Relaxed);
        }
    };
    until_stalled(whole, stream, TransferPace::new(GRACE, rate)).await;
    assert!(!connection.activity().in_flight(), "nothing is kept of it");
    (start.elapsed().as_secs(), !ended.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_given_up() {
    assert_eq!(run(|_| Duration::from_secs(3600), 1).await, (GRACE.as_secs(), true));
    let stops = |piece| if piece < 20 { Duration::ZERO } else { Duration::from_secs(3600) };
    assert_eq!(run(stops, 1).await, (GRACE.as_secs(), true));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_read_too_slowly_is_given_up_and_one_that_is_not_is_not() {
    let (seconds, given_up) = run(|_| Duration::from_secs(2), 2 * PIECE).await;
    assert!(given_up && seconds < 32, "{seconds}");
    let (_, given_up) = run(|_| Duration::from_secs(2), PIECE / 2).await;
    assert!(!given_up);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_nothing_to_say_is_waited_for() {
    let pieces = futures_util::stream::unfold(0, async |count| {
        tokio::time::sleep(GRACE * 3).await;
        (count < 3).then(|| (Ok::<_, std::io::Error>("piece"), count + 1))
    });
    let (body, _, stream) = outgoing(Body::from_stream(pieces));
    let start = Instant::now();
    until_stalled(written(body, |_| Duration::ZERO), stream, TransferPace::new(GRACE, 1)).await;
    assert_eq!(start.elapsed(), GRACE * 12);
}
