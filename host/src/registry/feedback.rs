//! The tokens that a push service reported dead, until somebody asks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// A dead token, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadToken {
    pub device_token: String,
    pub since: SystemTime,
}

/// A bounded list: each token once, with its newest time; when it is full, the oldest report goes.
pub struct Feedback {
    tokens: Mutex<Reports>,
    most: usize,
}

#[derive(Default)]
struct Reports {
    next: u64,
    /// Token → (order of its report, since when).
    by_token: HashMap<String, (u64, SystemTime)>,
    /// Order → token, oldest first.
    by_order: std::collections::BTreeMap<u64, String>,
}

impl Feedback {
    pub fn new(most: usize) -> Self {
        Self { tokens: Mutex::default(), most }
    }

    pub fn report(&self, device_token: &str, since: SystemTime) {
        let mut reports = self.reports();
        let order = reports.next;
        reports.next += 1;
        if let Some((old, _)) = reports.by_token.insert(device_token.to_owned(), (order, since)) {
            reports.by_order.remove(&old);
        }
        reports.by_order.insert(order, device_token.to_owned());
        if reports.by_order.len() > self.most
            && let Some((_, oldest)) = reports.by_order.pop_first()
        {
            reports.by_token.remove(&oldest);
        }
    }

    /// All reports, oldest first; the list is empty afterwards.
    pub fn take(&self) -> Vec<DeadToken> {
        let Reports { by_order, mut by_token, .. } = std::mem::take(&mut *self.reports());
        let tokens = by_order.into_values().filter_map(|device_token| {
            let (_, since) = by_token.remove(&device_token)?;
            Some(DeadToken { device_token, since })
        });
        tokens.collect()
    }

    /// Moves another list's reports here: an application is registered anew.
    pub fn take_over(&self, old: &Self) {
        for dead in old.take() {
            self.report(&dead.device_token, dead.since);
        }
    }

    fn reports(&self) -> std::sync::MutexGuard<'_, Reports> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn tokens(feedback: &Feedback) -> Vec<(String, SystemTime)> {
        feedback.take().into_iter().map(|dead| (dead.device_token, dead.since)).collect()
    }

    #[test]
    fn reading_clears_it() {
        let feedback = Feedback::new(10);
        feedback.report("a", at(1));
        feedback.report("b", at(2));
        assert_eq!(tokens(&feedback), [("a".into(), at(1)), ("b".into(), at(2))]);
        assert_eq!(tokens(&feedback), []);
    }

    #[test]
    fn a_token_is_listed_once_and_the_newest_are_kept() {
        let feedback = Feedback::new(2);
        feedback.report("a", at(1));
        feedback.report("b", at(2));
        feedback.report("a", at(3));
        feedback.report("c", at(4));
        assert_eq!(tokens(&feedback), [("a".into(), at(3)), ("c".into(), at(4))]);
    }
}
