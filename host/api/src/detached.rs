//! Work that goes on when its caller goes away.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::admission::Place;

/// Runs it to its end: here while somebody waits for it, and in a task of its own once nobody does. So who waits,
/// as nearly all do, pays for no task.
pub fn detached<T, F>(place: Place, work: F) -> impl Future<Output = T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let work = async move {
        let _place = place;
        work.await
    };
    Detached(Some(Box::pin(work)))
}

/// None: at its end, or it panicked.
struct Detached<T: Send + 'static>(Option<BoxFuture<'static, T>>);

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out meanwhile: after a panic there is nothing left that could go on.
        let Some(mut work) = self.0.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        // Without a runtime everything has come to its end.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::task::Waker;

    use tokio::sync::{Semaphore, oneshot};

    use super::super::admission::UnderWay;
    use super::*;

    #[tokio::test]
    async fn who_waits_gets_the_result_and_gives_the_place_back() {
        let under_way = UnderWay::at_most(1);
        let place = under_way.begin(None).unwrap();
        assert_eq!(detached(place, async { 1 }).await, 1);
        assert_eq!(under_way.count(), 0);
    }

    #[tokio::test]
    async fn it_goes_on_when_nobody_waits_any_more() {
        let under_way = UnderWay::at_most(1);
        let gate = Arc::new(Semaphore::new(0));
        let (ended, end) = oneshot::channel();
        let place = under_way.begin(None).unwrap();
        let work = {
            let gate = gate.clone();
            async move {
                drop(gate.acquire().await);
                ended.send(()).unwrap();
            }
        };
        let mut waiting = Box::pin(detached(place, work));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(waiting);
        assert_eq!(under_way.count(), 1, "it keeps its place");
        gate.add_permits(1);
        end.await.unwrap();
        under_way.ended().await;
    }

    #[tokio::test]
    async fn what_was_never_waited_for_is_done_too() {
        let (ended, end) = oneshot::channel();
        let place = UnderWay::at_most(1).begin(None).unwrap();
        drop(detached(place, async move { ended.send(()) }));
        end.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_the_end_of_it() {
        let under_way = UnderWay::at_most(1);
        let place = under_way.begin(None).unwrap();
        let waiting = tokio::spawn(detached(place, async { panic!("as it happens") }));
        assert!(waiting.await.unwrap_err().is_panic());
        assert_eq!(under_way.count(), 0);
    }
}
