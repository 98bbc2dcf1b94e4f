//! A body that keeps something until it has been written.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

/// Keeps `kept` until the answer's body has been written, or is given up.
pub fn until_written<T: Send + Unpin + 'static>(response: Response, kept: T) -> Response {
    use hyper::body::Body as _;
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|body| Body::new(Held { body, kept: Some(kept) }))
}

struct Held<T> {
    body: Body,
    kept: Option<T>,
}

impl<T: Unpin> hyper::body::Body for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // The last piece is being written yet: what is kept goes with the body, which is dropped then.
        if frame.is_none() {
            self.kept = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use axum::response::IntoResponse as _;
    use http_body_util::BodyExt as _;
    use hyper::body::Body as _;

    use super::*;

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
}
