//! Counts per minute, and the last failures.
#![allow(clippy::unwrap_used)]

use super::*;
use pushlet_model::error::{Error, Kind};

fn delivered(timeline: &Timeline) -> Vec<u64> {
    timeline
        .minutes(Duration::ZERO)
        .iter()
        .map(|minute| *minute.outcomes.get("delivered").unwrap_or(&0))
        .collect()
}

fn of(history: &CounterHistory, value: u64, now: u32) -> Vec<u64> {
    let mut timeline = Timeline::new(now);
    timeline.add_outcomes(Status::Delivered, history, value);
    delivered(&timeline)
}

#[test]
fn each_minute_has_what_was_counted_in_it() {
    let history = CounterHistory::default();
    assert_eq!(of(&history, 7, 0), [7], "the running minute needs no sample");
    history.sample(7, 0);
    history.sample(7, 1);
    history.sample(12, 2);
    assert_eq!(of(&history, 13, 3), [7, 0, 5, 1]);
}

#[test]
fn an_hour_is_kept_and_a_counter_that_rests_takes_nothing() {
    let history = CounterHistory::default();
    for minute in 0..200 {
        history.sample(u64::from(minute) + 1, minute);
        assert!(history.0.lock().changes.len() < KEPT);
    }
    assert_eq!(of(&history, 203, 200), [vec![1; KEPT - 1], vec![3]].concat());
    for minute in 200..260 {
        history.sample(200, minute);
    }
    assert_eq!(history.0.lock().changes.capacity(), 0);
    assert_eq!(of(&history, 200, 260), [0; KEPT]);
}

#[test]
fn minutes_begin_a_minute_apart_and_say_what_was_refused() {
    let (history, refusals) = (CounterHistory::default(), CounterHistory::default());
    history.sample(2, 0);
    refusals.sample(3, 0);
    let mut timeline = Timeline::new(1);
    timeline.add_outcomes(Status::Rejected, &history, 2);
    assert_eq!(timeline.minutes(Duration::ZERO)[0].refused, None);
    timeline.add_refused(&refusals, 4);
    let minutes = timeline.minutes(Duration::from_secs(10));
    assert_eq!(minutes[0].at + 60, minutes[1].at);
    assert_eq!((minutes[0].refused, minutes[1].refused), (Some(3), Some(1)));
    assert_eq!(minutes[0].outcomes, BTreeMap::from([("rejected", 2)]));
    assert_eq!(timeline.good_and_bad(), (vec![0, 0], vec![2, 0]));
}

fn fail(log: &FailureLog, code: String) {
    let error = Error::new(Kind::Invalid, code, "x".repeat(1000));
    let target = Target::Device("0123456789abcdef".into());
    log.record(&"shop".into(), &"apns".into(), &target, &DeliveryResult::Failed(error));
    log.record(&"shop".into(), &"apns".into(), &target, &DeliveryResult::Valid);
}

#[test]
fn the_newest_failures_are_kept_and_successes_are_not() {
    let recent = RecentFailures::default();
    let log = recent.of(&TenantId::new("acme"));
    (0..=KEPT_FAILURES).for_each(|number| fail(&log, format!("code_{number}")));
    let (kept, reasons) = recent.of(&TenantId::new("acme")).list();
    assert_eq!((kept.len(), reasons.len()), (KEPT_FAILURES, KEPT_FAILURES));
    assert_eq!(kept[0].code.as_deref(), Some(&*format!("code_{KEPT_FAILURES}")));
    assert_eq!(kept[KEPT_FAILURES - 1].code.as_deref(), Some("code_1"));
    assert_eq!(reasons[KEPT_FAILURES - 1].last.code.as_deref(), Some("code_1"));
    assert_eq!(kept[0].target, "0123456789ab…");
    assert_eq!(kept[0].message.as_ref().map(String::len), Some(LONGEST_TEXT));
    assert!(recent.of(&TenantId::new("other")).list().0.is_empty());
}

#[test]
fn a_flood_of_one_reason_does_not_hide_another() {
    let log = FailureLog::default();
    fail(&log, "rare".into());
    (0..1000).for_each(|_| fail(&log, "often".into()));
    let (recent, reasons) = log.list();
    assert!(recent.iter().all(|failure| failure.code.as_deref() == Some("often")));
    let counted: Vec<_> = reasons.iter().map(|one| (one.last.code.as_deref(), one.count)).collect();
    assert_eq!(counted, [(Some("often"), 1000), (Some("rare"), 1)]);
}
