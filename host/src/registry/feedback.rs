//! The tokens that a push service reported dead, until somebody asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::journal::Journal;
use super::storage::{Change, Key, Table};
use super::unix_milliseconds;
use crate::tenant::TenantId;

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
    /// None: it is not kept.
    kept: Option<Kept>,
}

/// Where a list is kept.
pub(super) struct Kept {
    pub journal: Arc<Journal>,
    pub tenant: TenantId,
    pub application: String,
}

#[derive(Default)]
struct Reports {
    next: u64,
    /// Token → (order of its report, since when).
    by_token: HashMap<String, (u64, SystemTime)>,
    /// Order → token, oldest first.
    by_order: BTreeMap<u64, String>,
    /// The application is gone: what is still reported is not kept.
    retired: bool,
}

impl Feedback {
    /// A list that ends with the process.
    pub fn new(most: usize) -> Self {
        Self { tokens: Mutex::default(), most, kept: None }
    }

    pub(super) fn kept(most: usize, kept: Kept) -> Self {
        Self { kept: Some(kept), ..Self::new(most) }
    }

    pub fn report(&self, device_token: &str, since: SystemTime) {
        let mut reports = self.reports();
        let mut gone = Vec::new();
        let order = reports.next;
        reports.next += 1;
        if let Some((old, _)) = reports.by_token.insert(device_token.to_owned(), (order, since)) {
            reports.by_order.remove(&old);
            gone.push(old);
        }
        reports.by_order.insert(order, device_token.to_owned());
        if reports.by_order.len() > self.most
            && let Some((order, oldest)) = reports.by_order.pop_first()
        {
            reports.by_token.remove(&oldest);
            gone.push(order);
        }
        // In the order of the reports, so under their lock.
        if let Some(kept) = self.kept.as_ref().filter(|_| !reports.retired) {
            kept.note(order, device_token, since, &gone);
        }
    }

    /// All reports, oldest first; the list is empty afterwards.
    pub fn take(&self) -> Vec<DeadToken> {
        let mut reports = self.reports();
        let by_order = std::mem::take(&mut reports.by_order);
        let mut by_token = std::mem::take(&mut reports.by_token);
        if let Some(kept) = self.kept.as_ref().filter(|_| !by_order.is_empty() && !reports.retired) {
            kept.clear();
        }
        drop(reports);
        let tokens = by_order.into_values().filter_map(|device_token| {
            let (_, since) = by_token.remove(&device_token)?;
            Some(DeadToken { device_token, since })
        });
        tokens.collect()
    }

    /// The application is gone, or is not after all.
    pub(super) fn retire(&self, retired: bool) {
        self.reports().retired = retired;
    }

    /// Puts in what was kept by an earlier run. `order`: as it was then; they come in that order.
    pub(super) fn restore(&self, order: u64, dead: DeadToken) {
        let mut reports = self.reports();
        reports.next = reports.next.max(order + 1);
        reports.by_token.insert(dead.device_token.clone(), (order, dead.since));
        reports.by_order.insert(order, dead.device_token);
        if reports.by_order.len() > self.most
            && let Some((order, oldest)) = reports.by_order.pop_first()
        {
            reports.by_token.remove(&oldest);
            self.kept.iter().for_each(|kept| kept.forget(order));
        }
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn note(&self, order: u64, device_token: &str, since: SystemTime, gone: &[u64]) {
        let value = format!("{} {device_token}", unix_milliseconds(since)).into_bytes();
        let gone = gone.iter().map(|order| Change::Delete(Table::Feedback, self.key(*order)));
        self.journal.add(gone.chain([Change::Put(Table::Feedback, self.key(order), value)]));
    }

    fn forget(&self, order: u64) {
        self.journal.add([Change::Delete(Table::Feedback, self.key(order))]);
    }

    fn clear(&self) {
        let all = Key::new(&[self.tenant.as_str(), &self.application]);
        self.journal.add([Change::DeleteAll(Table::Feedback, all)]);
    }

    fn key(&self, order: u64) -> Key {
        Key::new(&[self.tenant.as_str(), &self.application, &format!("{order:016x}")])
    }
}

impl DeadToken {
    /// As [`Kept::note`] writes it.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let (since, device_token) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since.parse().ok()?))?;
        Some(Self { device_token: device_token.to_owned(), since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
