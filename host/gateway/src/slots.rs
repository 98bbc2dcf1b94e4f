//! Futures that run at once within one task, each in a slot that is used again when it has ended.
//!
//! A send has thousands of them, one after the other in the same slots, so that none takes memory of its own.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::Stream;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// After so many futures that have given their turn away at once, the task gives its own away.
const MOST_YIELDS: usize = 2;

/// A stream of the outputs of its futures, as they end.
pub struct FutureSlots<F> {
    slots: Vec<Slot<F>>,
    /// Those without a future.
    free: Vec<usize>,
    ready: Arc<ReadySlots>,
}

struct Slot<F> {
    future: Pin<Box<Option<F>>>,
    signal: Arc<Signal>,
    waker: Waker,
}

/// The slots whose futures were woken, in that order.
#[derive(Default)]
struct ReadySlots {
    task: AtomicWaker,
    queue: Mutex<VecDeque<usize>>,
}

/// Wakes the future of one slot.
struct Signal {
    slot: usize,
    is_queued: AtomicBool,
    ready: Arc<ReadySlots>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.ready.queue.lock().push_back(self.slot);
            self.ready.task.wake();
        }
    }
}

impl<F: Future> FutureSlots<F> {
    pub fn new() -> Self {
        FutureSlots { slots: Vec::new(), free: Vec::new(), ready: Arc::default() }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a future, which runs when the stream is polled. It is made in its slot: futures are large.
    pub fn push(&mut self, make: impl FnOnce() -> F) {
        let index = self.free.pop().unwrap_or_else(|| self.add_slot());
        if let Some(slot) = self.slots.get_mut(index) {
            slot.future.set(Some(make()));
            slot.signal.wake_by_ref();
        }
    }

    fn add_slot(&mut self) -> usize {
        let slot = self.slots.len();
        let signal = Arc::new(Signal { slot, is_queued: AtomicBool::new(false), ready: self.ready.clone() });
        let waker = Waker::from(signal.clone());
        self.slots.push(Slot { future: Box::pin(None), signal, waker });
        slot
    }
}

impl<F: Future> Slot<F> {
    /// Pending also where the future has ended, and was woken late.
    fn poll(&mut self) -> Poll<F::Output> {
        // Whatever wakes it from now on queues it again.
        self.signal.is_queued.store(false, Ordering::Release);
        let Some(future) = self.future.as_mut().as_pin_mut() else { return Poll::Pending };
        let output = ready!(future.poll(&mut Context::from_waker(&self.waker)));
        self.future.set(None);
        Poll::Ready(output)
    }
}

impl<F: Future> Stream for FutureSlots<F> {
    type Item = F::Output;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        if self.is_empty() {
            return Poll::Ready(None);
        }
        let ready = self.ready.clone();
        ready.task.register(cx.waker());
        let mut yields = 0;
        // What is woken meanwhile wakes the task, and has its turn then.
        let turns = ready.queue.lock().len();
        for _ in 0..turns {
            let Some(index) = ready.queue.lock().pop_front() else { break };
            let Some(slot) = self.slots.get_mut(index) else { continue };
            if let Poll::Ready(output) = slot.poll() {
                self.free.push(index);
                return Poll::Ready(Some(output));
            }
            yields += usize::from(slot.signal.is_queued.load(Ordering::Relaxed));
            if yields >= MOST_YIELDS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::time::Duration;

    use futures_util::{FutureExt, StreamExt};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn outputs_come_as_futures_end() {
        let mut slots = FutureSlots::new();
        assert_eq!(slots.next().await, None);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..10).map(|_| oneshot::channel::<usize>()).unzip();
        receivers.into_iter().for_each(|receiver| slots.push(|| receiver));
        assert!(slots.next().now_or_never().is_none());
        for (index, sender) in senders.into_iter().enumerate().rev() {
            sender.send(index).unwrap();
            assert_eq!(slots.next().await, Some(Ok(index)));
            assert_eq!(slots.len(), index);
        }
        assert_eq!(slots.next().await, None);
    }

    #[tokio::test]
    async fn slots_are_used_again() {
        let mut slots = FutureSlots::new();
        for round in 0..100 {
            (0..7).for_each(|index| slots.push(|| async move { round * 7 + index }));
            for _ in 0..7 {
                assert_eq!(slots.next().await.unwrap() / 7, round);
            }
        }
        assert_eq!(slots.slots.len(), 7);
    }

    #[tokio::test]
    async fn each_future_is_woken_from_other_threads() {
        let mut slots = FutureSlots::new();
        for index in 0..1000_u64 {
            let run = std::thread::spawn;
            slots.push(|| async move {
                for _ in 0..3 {
                    let (sender, receiver) = oneshot::channel();
                    if index % 50 == 0 {
                        run(move || sender.send(index).unwrap());
                    } else {
                        tokio::spawn(async move { sender.send(index).unwrap() });
                    }
                    assert_eq!(receiver.await, Ok(index));
                }
                index
            });
        }
        let collect = slots.collect::<Vec<_>>();
        let mut ended = tokio::time::timeout(Duration::from_secs(30), collect).await.unwrap();
        ended.sort_unstable();
        assert_eq!(ended, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_late_waker_of_a_future_that_has_ended_does_nothing() {
        let mut slots = FutureSlots::new();
        let mut late = None;
        slots.push(|| {
            poll_fn(|cx| {
                late.get_or_insert(cx.waker().clone());
                Poll::Ready(1)
            })
        });
        assert_eq!(slots.next().now_or_never(), Some(Some(1)));
        drop(slots);
        late.unwrap().wake();

        let mut slots: FutureSlots<Pin<Box<dyn Future<Output = u8>>>> = FutureSlots::new();
        slots.push(|| Box::pin(async { 1 }));
        let waker = slots.slots[0].waker.clone();
        assert_eq!(slots.next().now_or_never(), Some(Some(1)));
        waker.wake_by_ref();
        slots.push(|| Box::pin(pending()));
        waker.wake();
        assert_eq!(slots.next().now_or_never(), None);
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn futures_that_wake_themselves_leave_others_their_turn() {
        let mut slots: FutureSlots<Pin<Box<dyn Future<Output = u8>>>> = FutureSlots::new();
        let busy = || {
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::<u8>::Pending
            })
        };
        (0..10).for_each(|_| slots.push(|| Box::pin(busy())));
        slots.push(|| Box::pin(async { 7 }));
        // Two at a time, and then the task is woken again.
        for _ in 0..5 {
            assert_eq!(slots.next().now_or_never(), None);
        }
        assert_eq!(slots.next().now_or_never(), Some(Some(7)));
    }
}
