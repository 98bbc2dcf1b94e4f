//! A request's body that remembers whether the HTTP library took it, and that can be taken back until then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

const OURS: u8 = 0;
const TAKEN: u8 = 1;
const REVOKED: u8 = 2;

/// A body in one piece. As long as it is not taken the request is not whole, and no peer processes it.
pub(super) struct HandoverBody {
    left: Option<Bytes>,
    whose: Arc<AtomicU8>,
}

/// The other end of a [`HandoverBody`].
pub(super) struct BodyHandover(Arc<AtomicU8>);

impl HandoverBody {
    pub fn new(bytes: Bytes) -> (Self, BodyHandover) {
        // hyper does not poll the body of a request that has none.
        let (whose, left) = if bytes.is_empty() { (TAKEN, None) } else { (OURS, Some(bytes)) };
        let whose = Arc::new(AtomicU8::new(whose));
        (HandoverBody { left, whose: whose.clone() }, BodyHandover(whose))
    }
}

impl BodyHandover {
    /// Takes the body back. False: it may have been sent.
    pub fn revoke(&self) -> bool {
        self.0.compare_exchange(OURS, REVOKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl hyper::body::Body for HandoverBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(bytes) = self.left.take() else { return Poll::Ready(None) };
        let taken = self.whose.compare_exchange(OURS, TAKEN, Ordering::AcqRel, Ordering::Acquire);
        Poll::Ready(Some(match taken {
            Ok(_) => Ok(Frame::data(bytes)),
            Err(_) => Err(io::Error::other("the request was taken back")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.as_ref().map_or(0, |left| left.len() as u64))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn it_belongs_to_the_one_who_takes_it_first() {
        let (body, handover) = HandoverBody::new(Bytes::from_static(b"abc"));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert!(!handover.revoke());

        let (body, handover) = HandoverBody::new(Bytes::from_static(b"abc"));
        assert!(handover.revoke());
        assert!(body.collect().await.is_err());

        let (_, handover) = HandoverBody::new(Bytes::new());
        assert!(!handover.revoke());
    }
}
