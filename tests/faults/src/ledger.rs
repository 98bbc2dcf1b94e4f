//! What the peer processed, and whether that agrees with what the callers were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The peer's books: how often each push was processed, and which rules the gateway broke on the wire.
pub struct Ledger {
    processed: Vec<AtomicU32>,
    /// The `apns-id` of each push that brought one, hashed to a number; 0: none so far.
    ids: Vec<AtomicU64>,
    total: AtomicU64,
    violations: Mutex<Vec<String>>,
    events: Mutex<BTreeMap<&'static str, u64>>,
}

/// What a caller was told about one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Delivered,
    /// It may or may not have arrived.
    Unknown,
    /// Certainly not delivered, and why.
    NotDelivered(String),
}

/// The comparison of all answers with the ledger.
#[derive(Debug, Default)]
pub struct Verdict {
    pub delivered: usize,
    pub not_delivered: usize,
    pub unknown: usize,
    /// Of the unknown: how many had been processed.
    pub unknown_but_processed: usize,
    /// Processed more than once, though the caller did not allow it.
    pub duplicated: usize,
    /// Processed more than once, which the operator allowed.
    pub resent: usize,
    /// Reported as delivered, and never processed.
    pub lost: usize,
    /// Reported as not delivered, and processed all the same.
    pub denied: usize,
    /// Targets without an answer.
    pub unanswered: usize,
    /// Why pushes were not delivered.
    pub reasons: BTreeMap<String, usize>,
    /// The first few pushes that make the verdict a bad one.
    pub examples: Vec<String>,
}

impl Ledger {
    /// For pushes 0 to `pushes`; further ones are counted in total only.
    pub fn new(pushes: usize) -> Self {
        Self {
            processed: (0..pushes).map(|_| AtomicU32::new(0)).collect(),
            ids: (0..pushes).map(|_| AtomicU64::new(0)).collect(),
            total: AtomicU64::new(0),
            violations: Mutex::default(),
            events: Mutex::default(),
        }
    }

    /// The push takes effect now.
    pub fn process(&self, push: usize) {
        self.total.fetch_add(1, Ordering::SeqCst);
        if let Some(count) = self.processed.get(push) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// All that was processed, duplicates counted.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// A push came with this id: it must always be the same one.
    pub fn identify(&self, push: usize, id: &str) {
        let Some(known) = self.ids.get(push) else { return };
        let id = id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let before = known.swap(id, Ordering::SeqCst);
        if before != 0 && before != id {
            self.violation(format!("push {push} was sent again under another apns-id"));
        }
    }

    /// The gateway broke a rule of the protocol.
    pub fn violation(&self, what: String) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts something that the peer did.
    pub fn event(&self, name: &'static str) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    }

    pub fn events(&self) -> BTreeMap<&'static str, u64> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Compares. `answers`: by push; `may_resend`: whether unknown pushes may have been sent again.
    pub fn compare(&self, answers: &[Option<Told>], may_resend: bool) -> Verdict {
        let mut verdict = Verdict::default();
        for (push, answer) in answers.iter().enumerate() {
            let processed = self.processed.get(push).map_or(0, |count| count.load(Ordering::SeqCst));
            verdict.add(push, answer.as_ref(), processed, may_resend);
        }
        verdict
    }
}

impl Verdict {
    fn add(&mut self, push: usize, answer: Option<&Told>, processed: u32, may_resend: bool) {
        let bad_before = self.faults();
        match answer {
            None => self.unanswered += 1,
            Some(Told::Delivered) => {
                self.delivered += 1;
                self.lost += usize::from(processed == 0);
            }
            Some(Told::Unknown) => {
                self.unknown += 1;
                self.unknown_but_processed += usize::from(processed > 0);
            }
            Some(Told::NotDelivered(reason)) => {
                self.not_delivered += 1;
                self.denied += usize::from(processed > 0);
                *self.reasons.entry(reason.clone()).or_default() += 1;
            }
        }
        if processed > 1 {
            *(if may_resend { &mut self.resent } else { &mut self.duplicated }) += 1;
        }
        if self.faults() > bad_before && self.examples.len() < 10 {
            self.examples.push(format!("push {push}: told {answer:?}, processed {processed} times"));
        }
    }

    /// Answers that are missing or wrong. Must be 0.
    pub fn faults(&self) -> usize {
        self.duplicated + self.lost + self.denied + self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(answer: Option<Told>, processed: usize, may_resend: bool) -> Verdict {
        let ledger = Ledger::new(1);
        (0..processed).for_each(|_| ledger.process(0));
        ledger.compare(&[answer], may_resend)
    }

    #[test]
    fn the_truth_has_no_fault() {
        let not = || Some(Told::NotDelivered("rejected".into()));
        for (answer, processed, may_resend) in [
            (Some(Told::Delivered), 1, false),
            (Some(Told::Delivered), 2, true),
            (Some(Told::Unknown), 0, false),
            (Some(Told::Unknown), 1, false),
            (Some(Told::Unknown), 2, true),
            (not(), 0, false),
            (not(), 0, true),
        ] {
            assert_eq!(verdict(answer.clone(), processed, may_resend).faults(), 0, "{answer:?} {processed}");
        }
    }

    #[test]
    fn every_lie_is_a_fault() {
        let not = || Some(Told::NotDelivered("rejected".into()));
        for (answer, processed, may_resend) in [
            (None, 0, false),
            (None, 1, true),
            (Some(Told::Delivered), 0, false),
            (Some(Told::Delivered), 2, false),
            (Some(Told::Unknown), 2, false),
            (not(), 1, false),
            (not(), 1, true),
        ] {
            let verdict = verdict(answer.clone(), processed, may_resend);
            assert_eq!(verdict.faults(), 1, "{answer:?} {processed}");
            assert_eq!(verdict.examples.len(), 1);
        }
    }

    #[test]
    fn another_id_for_the_same_push_is_seen() {
        let ledger = Ledger::new(1);
        ledger.identify(0, "a");
        ledger.identify(0, "a");
        assert!(ledger.violations().is_empty());
        ledger.identify(0, "b");
        assert_eq!(ledger.violations().len(), 1);
    }
}
