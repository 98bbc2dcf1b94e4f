#![allow(clippy::unwrap_used)]

use std::task::Waker;

use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, oneshot};

use super::*;

#[tokio::test]
async fn who_waits_gets_the_result_and_gives_the_permit_back() {
    let in_flight = InFlightRequests::at_most(1);
    let permit = in_flight.begin(None).unwrap();
    assert_eq!(detached(permit, async { 1 }).await, 1);
    assert_eq!(in_flight.count(), 0);
}

#[tokio::test]
async fn it_goes_on_when_nobody_waits_any_more() {
    let in_flight = InFlightRequests::at_most(1);
    let gate = Arc::new(Semaphore::new(0));
    let (ended, end) = oneshot::channel();
    let permit = in_flight.begin(None).unwrap();
    let work = {
        let gate = gate.clone();
        async move {
            drop(gate.acquire().await);
            ended.send(()).unwrap();
        }
    };
    let mut waiting = Box::pin(detached(permit, work));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(waiting);
    assert_eq!(in_flight.count(), 1, "it keeps its permit");
    gate.add_permits(1);
    end.await.unwrap();
    in_flight.ended().await;
}

#[tokio::test]
async fn what_was_never_waited_for_is_done_too() {
    let (ended, end) = oneshot::channel();
    let permit = InFlightRequests::at_most(1).begin(None).unwrap();
    drop(detached(permit, async move { ended.send(()) }));
    end.await.unwrap();
}

#[tokio::test]
async fn a_panic_is_the_end_of_it() {
    let in_flight = InFlightRequests::at_most(1);
    let permit = in_flight.begin(None).unwrap();
    let waiting = tokio::spawn(detached(permit, async { panic!("as it happens") }));
    assert!(waiting.await.unwrap_err().is_panic());
    assert_eq!(in_flight.count(), 0);
}

fn holding(body: impl Into<Body>) -> (Body, Arc<()>) {
    let kept = Arc::new(());
    (until_written(body.into().into_response(), kept.clone()).into_body(), kept)
}

#[tokio::test]
async fn it_is_kept_while_the_body_is_unread() {
    let pieces = ["one", "two"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
    let (mut body, kept) = holding(Body::from_stream(futures_util::stream::iter(pieces)));
    for _ in 0..2 {
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(Arc::strong_count(&kept), 2);
    }
    assert!(body.frame().await.is_none());
    assert_eq!(Arc::strong_count(&kept), 1);
}

#[tokio::test]
async fn it_goes_with_a_body_that_is_given_up() {
    let (body, kept) = holding("text");
    assert_eq!((Arc::strong_count(&kept), body.size_hint().exact()), (2, Some(4)));
    drop(body);
    assert_eq!(Arc::strong_count(&kept), 1);
    let (_body, kept) = holding("");
    assert_eq!(Arc::strong_count(&kept), 1, "an empty body is written with its head");
}
