//! Keeps a component that fails again and again from being called for a while.
//!
//! Closed: calls pass, failures within a window are counted. Open: no call passes until a moment. Then one
//! call is tried: if it succeeds the breaker closes, else it stays open for twice as long.
//!
//! This is not the transport's circuit breaker, which counts failures in a row and spreads reconnects: calls of many
//! callers overlap here, so that failures within a window count, whatever succeeds between them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use pushlet_model::tenant::TenantId;

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

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerChange {
    /// It is open for so long.
    Opened(Duration),
    Closed,
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

    fn report(&mut self, pass: CallPass, verdict: CallVerdict, now: Instant) -> Option<BreakerChange> {
        match (&mut self.state, verdict) {
            (BreakerPhase::Open { .. }, CallVerdict::Good) if pass.trial => {
                self.state = BreakerPhase::Closed { failures: VecDeque::new() };
                Some(BreakerChange::Closed)
            }
            (BreakerPhase::Open { until, .. }, CallVerdict::Void) if pass.trial => {
                *until = now;
                None
            }
            (BreakerPhase::Open { until, pause }, CallVerdict::Failed) if pass.trial => {
                *pause = (*pause * 2).min(self.policy.longest_pause);
                *until = now + *pause;
                Some(BreakerChange::Opened(*pause))
            }
            (BreakerPhase::Closed { failures }, CallVerdict::Failed) => {
                drop_old(failures, self.policy.window, now);
                failures.push_back(now);
                let pause = self.policy.pause;
                let opens = failures.len() >= self.policy.failures;
                opens.then(|| {
                    self.state = BreakerPhase::Open { until: now + pause, pause };
                    BreakerChange::Opened(pause)
                })
            }
            // Good calls change nothing, and late news from before it opened is no news.
            _ => None,
        }
    }

    /// Opens it as another server did, unless it is open for longer.
    fn impose(&mut self, remaining: Duration, pause: Duration, now: Instant) {
        let longest = self.policy.longest_pause;
        let (remaining, pause) = (remaining.min(longest), pause.clamp(self.policy.pause, longest));
        if self.remaining(now).is_none_or(|own| own < remaining) {
            self.state = BreakerPhase::Open { until: now + remaining, pause };
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, BreakerPhase::Open { .. })
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

    /// Returns what this report changed.
    pub(super) fn report(&self, pass: CallPass, verdict: CallVerdict) -> Option<BreakerChange> {
        if verdict != CallVerdict::Failed && !pass.trial {
            return None;
        }
        self.with(|machine| machine.report(pass, verdict, Instant::now()))
    }

    /// Forgets all failures. Returns true if it was open.
    pub(super) fn reset(&self) -> bool {
        self.with(|machine| {
            let was_open = machine.is_open();
            machine.state = BreakerPhase::Closed { failures: VecDeque::new() };
            was_open
        })
    }

    /// Opens it for as long as another server has it open.
    pub(super) fn impose(&self, remaining: Duration, pause: Duration) {
        self.with(|machine| machine.impose(remaining, pause, Instant::now()));
    }

    fn with<T>(&self, act: impl FnOnce(&mut BreakerMachine) -> T) -> T {
        let mut machine = self.machine.lock();
        let result = act(&mut machine);
        self.disturbed.store(!machine.quiet(), Ordering::Relaxed);
        result
    }
}

/// Quarantines that other servers found out, for components that are loaded later.
#[derive(Default)]
pub(super) struct ImposedQuarantines(Mutex<HashMap<ComponentPlace, (Instant, Duration)>>);

/// Tenant, provider and digest.
type ComponentPlace = (TenantId, String, String);

/// Quarantines that are remembered.
const MOST_IMPOSED: usize = 10_000;

impl ImposedQuarantines {
    pub fn set(&self, tenant: &TenantId, name: &str, digest: &str, quarantine: Option<(Duration, Duration)>) {
        let place = (tenant.clone(), name.to_owned(), digest.to_owned());
        let (mut all, now) = (self.0.lock(), Instant::now());
        all.remove(&place);
        let end = quarantine.and_then(|(remaining, pause)| Some((now.checked_add(remaining)?, pause)));
        let Some(end) = end else { return };
        if all.len() >= MOST_IMPOSED {
            all.retain(|_, (until, _)| *until > now);
        }
        if all.len() < MOST_IMPOSED {
            all.insert(place, end);
        }
    }

    /// Returns for how long the component is quarantined yet, and the pause.
    pub fn of(&self, tenant: &TenantId, name: &str, digest: &str) -> Option<(Duration, Duration)> {
        let all = self.0.lock();
        if all.is_empty() {
            return None;
        }
        let (until, pause) = *all.get(&(tenant.clone(), name.to_owned(), digest.to_owned()))?;
        let remaining = until.checked_duration_since(Instant::now())?;
        Some((remaining, pause))
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
        machine.report(pass, CallVerdict::Failed, now).is_some()
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
            machine.report(CallPass { trial: false }, CallVerdict::Good, later).is_none(),
            "an old call's end is no trial"
        );
        assert!(machine.remaining(later).is_some());
        assert_eq!(machine.report(trial, CallVerdict::Good, later), Some(BreakerChange::Closed));
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
    fn what_another_server_opened_is_open_and_its_next_pause_is_longer() {
        let (mut machine, start) = machine();
        machine.impose(2 * SECOND, 10 * SECOND, start);
        assert_eq!(machine.admit(start), Err(2 * SECOND));
        machine.impose(SECOND, 5 * SECOND, start);
        assert_eq!(machine.remaining(start), Some(2 * SECOND), "it is not shortened");
        assert!(fail(&mut machine, start + 2 * SECOND));
        assert_eq!(machine.remaining(start + 2 * SECOND), Some(15 * SECOND));
        machine.impose(Duration::MAX, Duration::MAX, start);
        assert_eq!(machine.remaining(start + 2 * SECOND), Some(15 * SECOND), "nor is it open for ever");
    }

    #[test]
    fn good_calls_alone_never_reach_the_machine() {
        let breaker = QuarantineBreaker::new(BreakerPolicy { failures: 1, ..BreakerPolicy::default() });
        let pass = breaker.admit().unwrap();
        assert!(breaker.report(pass, CallVerdict::Good).is_none());
        assert!(!breaker.disturbed.load(Ordering::Relaxed));
        assert!(breaker.report(pass, CallVerdict::Failed).is_some());
        assert!(breaker.admit().is_err() && breaker.remaining().is_some());
    }
}
