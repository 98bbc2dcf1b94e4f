//! What happened lately: counts per minute of the last hour, and each tenant's last failures in the push service's words,
//! with how often each reason occurred. A task samples the counters once a minute, so counting costs nothing more.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use utoipa::ToSchema;

use crate::result::{DeliveryResult, Status};
use pushlet_model::contract::{Outcome, Target, unix_milliseconds};
use pushlet_model::tenant::TenantId;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// Minutes that are kept, with the running one.
const KEPT: usize = 60;
/// Failures kept for each tenant, and reasons.
const KEPT_FAILURES: usize = 50;
/// Characters of a target that are shown: enough to recognise it, too few to send to it.
const SHOWN: usize = 12;
/// Characters of a vendor's text.
const LONGEST_TEXT: usize = 300;

/// What happened in one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Minute {
    /// When it began, in seconds since the Unix epoch.
    pub at: u64,
    /// Targets, by what became of them.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Requests and sends over a limit; missing for a single application.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub refused: Option<u64>,
}

/// The minutes of the last hour in which one counter changed. Empty for a counter that rests.
#[derive(Default)]
pub(crate) struct CounterHistory(Mutex<Samples>);

#[derive(Default)]
struct Samples {
    /// The counter's value at the end of the last sampled minute.
    value: u64,
    /// The oldest first.
    changes: VecDeque<Change>,
}

struct Change {
    minute: u32,
    count: u32,
}

/// Sums over counters, by minute; the last minute is the running one.
pub(crate) struct Timeline {
    /// Minutes since the counters exist.
    now: u32,
    outcomes: Vec<[u64; Status::ALL.len()]>,
    refused: Option<Vec<u64>>,
}

impl CounterHistory {
    /// Records what was counted since the last sample; `minute` is the one that has just ended.
    pub fn sample(&self, value: u64, minute: u32) {
        let mut samples = self.0.lock();
        let count = value.saturating_sub(samples.value);
        samples.value = value;
        samples.changes.retain(|change| minute.saturating_sub(change.minute) < KEPT as u32 - 1);
        if count > 0 {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            samples.changes.push_back(Change { minute, count });
        } else if samples.changes.is_empty() {
            samples.changes.shrink_to_fit();
        }
    }

    /// Calls `add` with each minute that has a count. `value`: of the counter now; `now`: the running minute.
    fn each(&self, value: u64, now: u32, mut add: impl FnMut(u32, u64)) {
        let samples = self.0.lock();
        for change in &samples.changes {
            add(change.minute, u64::from(change.count));
        }
        add(now, value.saturating_sub(samples.value));
    }
}

impl Timeline {
    pub fn new(now: u32) -> Self {
        // No minute is older than the counters.
        let minutes = KEPT.min(now as usize + 1);
        Self { now, outcomes: vec![[0; Status::ALL.len()]; minutes], refused: None }
    }

    pub fn add_outcomes(&mut self, status: Status, history: &CounterHistory, value: u64) {
        let (now, minutes) = (self.now, &mut self.outcomes);
        history.each(value, now, |minute, count| {
            if let Some(sums) = place(minute, now, minutes.len()).and_then(|place| minutes.get_mut(place)) {
                sums[status as usize] += count;
            }
        });
    }

    pub fn add_refused(&mut self, history: &CounterHistory, value: u64) {
        let (now, length) = (self.now, self.outcomes.len());
        let refused = self.refused.get_or_insert_with(|| vec![0; length]);
        history.each(value, now, |minute, count| {
            if let Some(sum) = place(minute, now, length).and_then(|place| refused.get_mut(place)) {
                *sum += count;
            }
        });
    }

    /// Returns the minutes, the oldest first. `into`: how far the running one is.
    pub fn minutes(&self, into: Duration) -> Vec<Minute> {
        let began = (unix_milliseconds(SystemTime::now()) / 1000).saturating_sub(into.as_secs());
        let last = self.outcomes.len() - 1;
        let minute = |(place, sums): (usize, &[u64; Status::ALL.len()])| Minute {
            at: began.saturating_sub((last - place) as u64 * MINUTE.as_secs()),
            outcomes: Status::ALL
                .into_iter()
                .map(|status| (status.name(), sums[status as usize]))
                .filter(|(_, count)| *count > 0)
                .collect(),
            refused: self.refused.as_ref().map(|refused| refused[place]),
        };
        self.outcomes.iter().enumerate().map(minute).collect()
    }

    /// Returns the targets of each minute that needed nothing more, and the others.
    pub fn good_and_bad(&self) -> (Vec<u64>, Vec<u64>) {
        let sum = |sums: &[u64; Status::ALL.len()], good: bool| {
            let statuses = Status::ALL.into_iter().filter(|status| status.is_good() == good);
            statuses.map(|status| sums[status as usize]).sum::<u64>()
        };
        self.outcomes.iter().map(|sums| (sum(sums, true), sum(sums, false))).unzip()
    }

    pub fn refused(&self) -> Vec<u64> {
        self.refused.clone().unwrap_or_default()
    }
}

/// Returns the place of a minute among `length`, whose last is `now`.
fn place(minute: u32, now: u32, length: usize) -> Option<usize> {
    (length - 1).checked_sub(now.checked_sub(minute)? as usize)
}

/// A push that failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RecentFailure {
    /// Seconds since the Unix epoch.
    pub at: u64,
    #[schema(value_type = String)]
    pub application: Arc<str>,
    #[schema(value_type = String)]
    pub provider: Arc<str>,
    /// The beginning of the token, topic or URL.
    pub target: String,
    pub status: Status,
    /// The service's own reason, or ours.
    pub code: Option<String>,
    pub message: Option<String>,
}

/// The failures that have the same provider, status and code.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FailureReason {
    /// How many there were.
    pub count: u64,
    /// When the first one was, in seconds since the Unix epoch.
    pub since: u64,
    pub last: RecentFailure,
}

/// The failures of all tenants that had some.
#[derive(Default)]
pub(super) struct RecentFailures(RwLock<HashMap<TenantId, Arc<FailureLog>>>);

/// The failures of one tenant.
#[derive(Default)]
pub(super) struct FailureLog(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    /// The oldest first.
    recent: VecDeque<RecentFailure>,
    /// The one that occurred last is the last.
    reasons: Vec<FailureReason>,
}

impl RecentFailures {
    pub fn forget(&self, tenant: &TenantId) {
        self.0.write().remove(tenant);
    }

    pub fn of(&self, tenant: &TenantId) -> Arc<FailureLog> {
        let known = self.0.read().get(tenant).cloned();
        known.unwrap_or_else(|| {
            let mut all = self.0.write();
            all.entry(tenant.clone()).or_default().clone()
        })
    }
}

impl FailureLog {
    /// Records the result if it is a failure; drops the oldest failure and reason if there are too many.
    pub fn record(
        &self,
        application: &Arc<str>,
        provider: &Arc<str>,
        target: &Target,
        result: &DeliveryResult,
    ) {
        let status = result.status();
        if status.is_good() {
            return;
        }
        let (code, message) = match result {
            DeliveryResult::Settled(Outcome { code, message, .. }) => (code.as_deref(), message.as_deref()),
            DeliveryResult::Failed(error) | DeliveryResult::Lost(error) => {
                (Some(&*error.code), Some(&*error.message))
            }
            DeliveryResult::Valid | DeliveryResult::Duplicate(_) => (None, None),
        };
        let failure = RecentFailure {
            at: unix_milliseconds(SystemTime::now()) / 1000,
            application: application.clone(),
            provider: provider.clone(),
            target: beginning(target),
            status,
            code: code.map(excerpt),
            message: message.map(excerpt),
        };
        let mut failures = self.0.lock();
        failures.count(failure.clone());
        if failures.recent.len() == KEPT_FAILURES {
            failures.recent.pop_front();
        }
        failures.recent.push_back(failure);
    }

    /// Returns the last failures, and the reasons of all; the newest first.
    pub fn list(&self) -> (Vec<RecentFailure>, Vec<FailureReason>) {
        let failures = self.0.lock();
        (failures.recent.iter().rev().cloned().collect(), failures.reasons.iter().rev().cloned().collect())
    }
}

impl Failures {
    fn count(&mut self, last: RecentFailure) {
        let is_same = |reason: &FailureReason| {
            let known = &reason.last;
            (known.status, &known.code, &known.provider) == (last.status, &last.code, &last.provider)
        };
        match self.reasons.iter().rposition(is_same) {
            Some(place) => {
                let FailureReason { count, since, .. } = self.reasons.remove(place);
                self.reasons.push(FailureReason { count: count + 1, since, last });
            }
            None => {
                if self.reasons.len() == KEPT_FAILURES {
                    self.reasons.remove(0);
                }
                self.reasons.push(FailureReason { count: 1, since: last.at, last });
            }
        }
    }
}

fn beginning(target: &Target) -> String {
    let (Target::Device(text)
    | Target::Topic(text)
    | Target::Condition(text)
    | Target::Channel(text)
    | Target::Url(text)) = target;
    let mut letters = text.chars();
    let mut shown: String = letters.by_ref().take(SHOWN).collect();
    if letters.next().is_some() {
        shown.push('…');
    }
    shown
}

fn excerpt(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
