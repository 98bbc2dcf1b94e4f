//! Calls of uploaded components. They wait in a queue of their tenant, and the thread that ends one takes the next: a
//! thread is woken for many calls, and not for each.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Account;
use super::call_queue::{Job, WaitingCall};

/// How long a thread takes one call of a tenant after the other, before other tenants have their turn.
const TURN: Duration = Duration::from_millis(1);

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
        let owner = CallOwner(WaitingCall::new(Box::new(job)));
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
        let needs_runner = self.work.calls.lock().add(call, self.work.most_runners);
        if needs_runner {
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

    fn next(&mut self) -> Option<Job> {
        let job = self.account.work.calls.lock().next();
        self.is_counted = job.is_some();
        job
    }

    fn has_more(&mut self) -> bool {
        self.is_counted = self.account.work.calls.lock().has_more();
        self.is_counted
    }
}

impl Drop for CallRunner {
    fn drop(&mut self) {
        // With its runtime.
        if self.is_counted {
            self.account.work.calls.lock().end_runner();
        }
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
