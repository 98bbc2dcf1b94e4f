//! Calls of uploaded components. They wait in a queue of their tenant, and the thread that ends one takes the next: a
//! thread is woken for many calls, and not for each.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Account;

/// How long a thread takes one call of a tenant after the other, before other tenants have their turn.
const TURN: Duration = Duration::from_millis(1);

type Job = Box<dyn FnOnce() + Send>;

/// The calls of one tenant that wait.
#[derive(Default)]
pub(super) struct CallQueue {
    waiting: VecDeque<WaitingCall>,
    /// Tasks that wait for a thread, or have one: each takes calls until none waits.
    runners: usize,
}

/// None: it has begun, or nobody wants it any more.
#[derive(Clone)]
struct WaitingCall(Arc<Mutex<Option<Job>>>);

impl WaitingCall {
    fn take(&self) -> Option<Job> {
        self.0.lock().take()
    }
}

/// Takes a call back that has not begun.
struct CallOwner(WaitingCall);

impl Drop for CallOwner {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl Account {
    /// Runs a call of an uploaded component on a low-priority thread. It waits among the tenant's own calls first, then
    /// among those of all tenants. Returns None if it did not begin in time.
    ///
    /// When the future is dropped, a call that has not begun does not begin; one that has runs to its end.
    pub async fn run_call<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, mut result) = oneshot::channel();
        let job = move || {
            // A caller that went away needs no result.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(call)));
        };
        let owner = CallOwner(WaitingCall(Arc::new(Mutex::new(Some(Box::new(job))))));
        self.enqueue(owner.0.clone());
        let ended = match timeout(self.work.wait, &mut result).await {
            Ok(ended) => ended,
            Err(_) if owner.0.take().is_some() => return None,
            Err(_) => result.await,
        };
        match ended.ok()? {
            Ok(value) => Some(value),
            Err(panic) => resume_unwind(panic),
        }
    }

    fn enqueue(self: &Arc<Self>, call: WaitingCall) {
        let mut calls = self.work.calls.lock();
        // All wait equally long, so those that were given up are the oldest.
        while calls.waiting.front().is_some_and(|call| call.0.lock().is_none()) {
            calls.waiting.pop_front();
        }
        calls.waiting.push_back(call);
        if calls.runners < self.work.most_runners {
            calls.runners += 1;
            drop(calls);
            tokio::spawn(CallRunner { account: self.clone(), is_counted: true }.run());
        }
    }
}

/// Runs calls of a tenant until none waits.
struct CallRunner {
    account: Arc<Account>,
    /// Among the tenant's runners.
    is_counted: bool,
}

impl CallRunner {
    /// Takes a place among the tenant's jobs and a thread, again and again.
    async fn run(mut self) {
        while let Some(permit) = self.account.permit().await {
            let is_light = permit.is_light;
            match permit.run(move || self.take_turn(is_light)).await {
                Some(Some(runner)) => self = runner,
                _ => return,
            }
        }
    }

    /// Runs calls that wait. Returns the runner if it is to have another turn.
    fn take_turn(mut self, is_light: bool) -> Option<Self> {
        let start = Instant::now();
        while start.elapsed() < TURN && self.account.is_light() == is_light {
            self.next()?();
        }
        self.has_more().then_some(self)
    }

    /// Returns the next call; None: there is none, and this runner has ended.
    fn next(&mut self) -> Option<Job> {
        let mut calls = self.account.work.calls.lock();
        while let Some(call) = calls.waiting.pop_front() {
            if let Some(job) = call.take() {
                return Some(job);
            }
        }
        // Together with the look into the queue: a call that comes later starts another.
        calls.runners -= 1;
        self.is_counted = false;
        None
    }

    /// Returns true if calls wait. False: this runner has ended.
    fn has_more(&mut self) -> bool {
        let mut calls = self.account.work.calls.lock();
        self.is_counted = !calls.waiting.is_empty();
        calls.runners -= usize::from(!self.is_counted);
        self.is_counted
    }
}

impl Drop for CallRunner {
    fn drop(&mut self) {
        // With its runtime.
        if self.is_counted {
            self.account.work.calls.lock().runners -= 1;
        }
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
