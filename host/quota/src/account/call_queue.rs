//! The calls of one tenant that wait, and how many tasks take them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

pub(super) type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct CallQueue {
    waiting: VecDeque<WaitingCall>,
    /// Tasks that wait for a thread, or have one: each takes calls until none waits.
    runners: usize,
}

/// None: it has begun, or nobody wants it any more.
#[derive(Clone)]
pub(super) struct WaitingCall(Arc<Mutex<Option<Job>>>);

impl WaitingCall {
    pub fn new(job: Job) -> Self {
        Self(Arc::new(Mutex::new(Some(job))))
    }

    pub fn take(&self) -> Option<Job> {
        self.0.lock().take()
    }
}

impl CallQueue {
    /// Adds a call. Returns true if it needs a runner, which is counted then: there are fewer than `most`.
    pub fn add(&mut self, call: WaitingCall, most: usize) -> bool {
        // All wait equally long, so those that were given up are the oldest.
        while self.waiting.front().is_some_and(|call| call.0.lock().is_none()) {
            self.waiting.pop_front();
        }
        self.waiting.push_back(call);
        let more = self.runners < most;
        self.runners += usize::from(more);
        more
    }

    /// Returns the next call for a runner; None: there is none, and the runner is no longer counted. Both at once: a call
    /// that comes later needs another.
    pub fn next(&mut self) -> Option<Job> {
        while let Some(call) = self.waiting.pop_front() {
            if let Some(job) = call.take() {
                return Some(job);
            }
        }
        self.end_runner();
        None
    }

    /// Returns true if calls wait; false: the runner is no longer counted.
    pub fn has_more(&mut self) -> bool {
        let more = !self.waiting.is_empty();
        if !more {
            self.end_runner();
        }
        more
    }

    pub fn end_runner(&mut self) {
        self.runners = self.runners.saturating_sub(1);
    }

    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.waiting.len(), self.runners)
    }
}
