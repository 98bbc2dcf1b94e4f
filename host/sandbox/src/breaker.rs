//! Keeps a component that fails again and again from being called for a while.
//!
//! Closed: calls pass, failures within a window are counted. Open: no call passes until a moment. Then one
//! call is tried: if it succeeds the breaker closes, else it stays open for twice as long.
//!
//! This is not the transport's circuit breaker, which counts failures in a row and spreads reconnects: calls of many
//! callers overlap here, so that failures within a window count, whatever succeeds between them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// When a component is quarantined, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct BreakerPolicy {
    /// As many failures …
    pub failures: usize,
    /// … within this time open it.
    pub window: Duration,
    /// For how long, the first time.
    pub pause: Duration,
    /// For how long at most.
    pub longest_pause: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failures: 5,
            window: Duration::from_secs(30),
            pause: Duration::from_secs(30),
            longest_pause: Duration::from_secs(30 * 60),
        }
    }
}

/// The right to make one call, to be given back with what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallPass {
    trial: bool,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallVerdict {
    Good,
    Failed,
    /// The call was not made, or its failure was not the component's fault.
    Void,
}

/// The state machine. Time is an argument.
#[derive(Debug)]
struct BreakerMachine {
    policy: BreakerPolicy,
    state: BreakerPhase,
}

#[derive(Debug)]
enum BreakerPhase {
    Closed { failures: VecDeque<Instant> },
    Open { until: Instant, pause: Duration },
}

impl BreakerMachine {
    fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: BreakerPhase::Closed { failures: VecDeque::new() } }
    }

    /// Returns how long it still stays open.
    fn remaining(&self, now: Instant) -> Option<Duration> {
        match self.state {
            BreakerPhase::Open { until, .. } if now < until => Some(until - now),
            _ => None,
        }
    }

    /// `Err`: the time until the next try.
    fn admit(&mut self, now: Instant) -> Result<CallPass, Duration> {
        if let Some(remaining) = self.remaining(now) {
            return Err(remaining);
        }
        match &mut self.state {
            BreakerPhase::Closed { failures } => {
                drop_old(failures, self.policy.window, now);
                Ok(CallPass { trial: false })
            }
            BreakerPhase::Open { until, pause } => {
                // No other call passes while the trial is in flight, or for one more pause if its report is lost.
                *until = now + *pause;
                Ok(CallPass { trial: true })
            }
        }
    }

    /// Returns true if this report opened the breaker.
    fn report(&mut self, pass: CallPass, verdict: CallVerdict, now: Instant) -> bool {
        match (&mut self.state, verdict) {
            (BreakerPhase::Open { .. }, CallVerdict::Good) if pass.trial => {
                self.state = BreakerPhase::Closed { failures: VecDeque::new() };
                false
            }
            (BreakerPhase::Open { until, .. }, CallVerdict::Void) if pass.trial => {
                *until = now;
                false
            }
            (BreakerPhase::Open { until, pause }, CallVerdict::Failed) if pass.trial => {
                *pause = (*pause * 2).min(self.policy.longest_pause);
                *until = now + *pause;
                true
            }
            (BreakerPhase::Closed { failures }, CallVerdict::Failed) => {
                drop_old(failures, self.policy.window, now);
                failures.push_back(now);
                let opens = failures.len() >= self.policy.failures;
                if opens {
                    let pause = self.policy.pause;
                    self.state = BreakerPhase::Open { until: now + pause, pause };
                }
                opens
            }
            // Good calls change nothing, and late news from before it opened is no news.
            _ => false,
        }
    }

    fn quiet(&self) -> bool {
        matches!(&self.state, BreakerPhase::Closed { failures } if failures.is_empty())
    }
}

fn drop_old(failures: &mut VecDeque<Instant>, window: Duration, now: Instant) {
    while failures.front().is_some_and(|failure| now.saturating_duration_since(*failure) > window) {
        failures.pop_front();
    }
}

/// A breaker for many threads. As long as nothing fails it costs one atomic load per call.
pub(super) struct QuarantineBreaker {
    machine: Mutex<BreakerMachine>,
    /// False while the breaker is closed and has counted no failure, so that calls take no lock.
    disturbed: AtomicBool,
}

impl QuarantineBreaker {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self { machine: Mutex::new(BreakerMachine::new(policy)), disturbed: AtomicBool::new(false) }
    }

    pub(super) fn remaining(&self) -> Option<Duration> {
        self.disturbed
            .load(Ordering::Relaxed)
            .then(|| self.machine.lock().remaining(Instant::now()))
            .flatten()
    }

    pub(super) fn admit(&self) -> Result<CallPass, Duration> {
        if !self.disturbed.load(Ordering::Relaxed) {
            return Ok(CallPass { trial: false });
        }
        self.with(|machine| machine.admit(Instant::now()))
    }

    /// Returns true if this report opened the breaker.
    pub(super) fn report(&self, pass: CallPass, verdict: CallVerdict) -> bool {
        if verdict != CallVerdict::Failed && !pass.trial {
            return false;
        }
        self.with(|machine| machine.report(pass, verdict, Instant::now()))
    }

    /// Forgets all failures.
    pub(super) fn reset(&self) {
        self.with(|machine| machine.state = BreakerPhase::Closed { failures: VecDeque::new() });
    }

    fn with<T>(&self, act: impl FnOnce(&mut BreakerMachine) -> T) -> T {
        let mut machine = self.machine.lock();
        let result = act(&mut machine);
        self.disturbed.store(!machine.quiet(), Ordering::Relaxed);
        result
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn machine() -> (BreakerMachine, Instant) {
        let policy =
            BreakerPolicy { failures: 3, window: 10 * SECOND, pause: 5 * SECOND, longest_pause: 15 * SECOND };
        (BreakerMachine::new(policy), Instant::now())
    }

    fn fail(machine: &mut BreakerMachine, now: Instant) -> bool {
        let pass = machine.admit(now).unwrap();
        machine.report(pass, CallVerdict::Failed, now)
    }

    #[test]
    fn opens_at_the_last_of_the_failures_and_says_for_how_long() {
        let (mut machine, start) = machine();
        assert!(!fail(&mut machine, start));
        assert!(!fail(&mut machine, start + SECOND));
        assert!(fail(&mut machine, start + 2 * SECOND));
        assert_eq!(machine.admit(start + 3 * SECOND), Err(4 * SECOND));
        assert_eq!(machine.remaining(start + 3 * SECOND), Some(4 * SECOND));
    }

    #[test]
    fn failures_out_of_the_window_do_not_count() {
        let (mut machine, start) = machine();
        for second in [0, 5, 16, 22, 33] {
            assert!(!fail(&mut machine, start + second * SECOND), "at {second}");
        }
        machine.admit(start + 60 * SECOND).unwrap();
        assert!(machine.quiet());
    }

    #[test]
    fn one_trial_decides() {
        let (mut machine, start) = machine();
        (0..3).for_each(|_| _ = fail(&mut machine, start));
        let later = start + 5 * SECOND;
        let trial = machine.admit(later).unwrap();
        assert_eq!(machine.admit(later), Err(5 * SECOND), "others wait for the trial");
        assert!(
            !machine.report(CallPass { trial: false }, CallVerdict::Good, later),
            "an old call's end is no trial"
        );
        assert!(machine.remaining(later).is_some());
        machine.report(trial, CallVerdict::Good, later);
        assert!(machine.quiet());
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (mut machine, start) = machine();
        (0..3).for_each(|_| _ = fail(&mut machine, start));
        let mut now = start;
        for pause in [5, 10, 15, 15] {
            assert_eq!(machine.remaining(now), Some(pause * SECOND));
            now += pause * SECOND;
            assert!(fail(&mut machine, now));
        }
    }

    #[test]
    fn a_trial_that_was_not_made_or_got_lost_is_made_again() {
        let (mut machine, start) = machine();
        (0..3).for_each(|_| _ = fail(&mut machine, start));
        let later = start + 5 * SECOND;
        let trial = machine.admit(later).unwrap();
        machine.report(trial, CallVerdict::Void, later);
        assert!(machine.admit(later).unwrap().trial);
        assert!(machine.admit(later + 5 * SECOND).unwrap().trial);
    }

    #[test]
    fn good_calls_alone_never_reach_the_machine() {
        let breaker = QuarantineBreaker::new(BreakerPolicy { failures: 1, ..BreakerPolicy::default() });
        let pass = breaker.admit().unwrap();
        assert!(!breaker.report(pass, CallVerdict::Good));
        assert!(!breaker.disturbed.load(Ordering::Relaxed));
        assert!(breaker.report(pass, CallVerdict::Failed));
        assert!(breaker.admit().is_err() && breaker.remaining().is_some());
    }
}
