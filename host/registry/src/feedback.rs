//! The tokens that a push service reported dead, until the application fetches them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use super::journal::ChangeJournal;
use super::nats::Fleet;
use super::storage::{RecordKey, StorageChange, Table, unix_milliseconds};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};

/// A dead token, and when it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadToken {
    pub device_token: String,
    pub since: SystemTime,
}

/// Some of an application's dead tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedbackPage {
    /// Oldest first; each token once.
    pub tokens: Vec<DeadToken>,
    /// Where the next page begins: behind these.
    pub cursor: u64,
}

/// Bytes of a token that no push service can have given out; none is kept that is longer.
const LONGEST_TOKEN: usize = 4 << 10;
/// As many reports do not come in a millisecond.
const NUMBERS_PER_MILLISECOND: u64 = 1000;
/// Bytes that a report takes in addition to its token, which is stored twice.
const OVERHEAD: usize = 160;
/// Bytes that the reports of an application may take, for each one that there may be.
const BYTES_EACH: usize = 1 << 10;
/// The part of a tenant's memory that the reports of all its applications may take.
const PART: usize = 4;

/// A bounded list: each token once, with its newest time. When it is full, by number or by bytes, the oldest report
/// goes; so it does when all lists of the tenant take too much of its memory.
///
/// Each report has a number; a cursor is the number of a report. In a fleet the list is the fleet's, not this one's.
pub struct FeedbackList {
    tokens: Mutex<FeedbackReports>,
    most: usize,
    /// Where reports go in a fleet.
    fleet: Option<FleetLocation>,
    /// None: it is in memory only.
    kept: Option<FeedbackLocation>,
    /// The application has been removed: later reports are not kept. Written under the lock of `tokens`.
    retired: AtomicBool,
}

/// Where a list is kept.
pub(super) struct FeedbackLocation {
    pub journal: Arc<ChangeJournal>,
    pub tenant: TenantId,
    pub application: String,
}

/// The log of an application in a fleet.
struct FleetLocation {
    fleet: Fleet,
    tenant: TenantId,
    application: String,
}

#[derive(Default)]
struct FeedbackReports {
    next: u64,
    /// Token → (order of its report, since when).
    by_token: HashMap<String, (u64, SystemTime)>,
    /// Order → token, oldest first.
    by_order: BTreeMap<u64, String>,
    bytes: usize,
    /// The same on the tenant's account, from the first report on.
    reserved: Option<MemoryReservation>,
}

impl FeedbackList {
    /// Creates a list that ends with the process.
    pub fn new(most: usize) -> Self {
        // Greater than all numbers of earlier runs: a cursor of then is one of the past.
        let next = unix_milliseconds(SystemTime::now()).saturating_mul(NUMBERS_PER_MILLISECOND);
        let tokens = Mutex::new(FeedbackReports { next, ..FeedbackReports::default() });
        Self { tokens, most, fleet: None, kept: None, retired: AtomicBool::new(false) }
    }

    pub(super) fn shared(most: usize, fleet: Fleet, tenant: TenantId, application: String) -> Self {
        Self { fleet: Some(FleetLocation { fleet, tenant, application }), ..Self::new(most) }
    }

    pub(super) fn kept(most: usize, kept: FeedbackLocation) -> Self {
        Self { kept: Some(kept), ..Self::new(most) }
    }

    /// Adds a report. `payer`: the account that is charged; None: it is not counted.
    pub fn report(&self, device_token: &str, since: SystemTime, payer: Option<&Arc<Account>>) {
        if device_token.len() > LONGEST_TOKEN {
            return;
        }
        if let Some(FleetLocation { fleet, tenant, application }) = &self.fleet {
            if !self.is_retired() {
                fleet.report(tenant, application, device_token, since);
            }
            return;
        }
        let mut reports = self.reports();
        let mut gone = Vec::new();
        let order = reports.next;
        reports.next += 1;
        gone.extend(reports.insert(order, device_token.to_owned(), since));
        while self.is_over(&reports) || !reports.reserve(payer) {
            let Some(oldest) = reports.remove_oldest() else { break };
            gone.push(oldest);
        }
        // The new report itself may be the one that has to go; then nothing of it is stored.
        let stays = !gone.contains(&order);
        // In the order of the reports, so under their lock.
        if let Some(kept) = self.kept.as_ref().filter(|_| !self.is_retired()) {
            if stays {
                kept.note(order, device_token, since, &gone);
            } else {
                gone.iter().filter(|gone| **gone != order).for_each(|gone| kept.forget(*gone));
            }
        }
    }

    /// Returns the reports after a cursor.
    pub fn after(&self, cursor: u64) -> FeedbackPage {
        let reports = self.reports();
        let newer = || reports.by_order.range((Bound::Excluded(cursor), Bound::Unbounded));
        let tokens = newer().filter_map(|(_, device_token)| {
            let (_, since) = *reports.by_token.get(device_token)?;
            Some(DeadToken { device_token: device_token.clone(), since })
        });
        let last = newer().next_back().map_or(cursor, |(order, _)| *order);
        FeedbackPage { tokens: tokens.collect(), cursor: last }
    }

    /// Drops the reports up to a cursor, inclusive.
    pub fn drop_until(&self, cursor: u64) {
        let mut reports = self.reports();
        while reports.by_order.first_key_value().is_some_and(|(order, _)| *order <= cursor)
            && let Some(order) = reports.remove_oldest()
        {
            if let Some(kept) = self.kept.as_ref().filter(|_| !self.is_retired()) {
                kept.forget(order);
            }
        }
        reports.release();
    }

    /// Returns all reports, oldest first; the list is empty afterwards.
    pub fn take(&self) -> Vec<DeadToken> {
        let mut reports = self.reports();
        let by_order = std::mem::take(&mut reports.by_order);
        let mut by_token = std::mem::take(&mut reports.by_token);
        (reports.bytes, reports.reserved) = (0, None);
        // Under the lock, so that no later report is cleared with these.
        if let Some(kept) = self.kept.as_ref().filter(|_| !by_order.is_empty() && !self.is_retired()) {
            kept.clear();
        }
        drop(reports);
        let tokens = by_order.into_values().filter_map(|device_token| {
            let (_, since) = by_token.remove(&device_token)?;
            Some(DeadToken { device_token, since })
        });
        tokens.collect()
    }

    /// Sets whether the application has been removed.
    pub(super) fn retire(&self, retired: bool) {
        let _order = self.reports();
        self.retired.store(retired, Ordering::Relaxed);
    }

    /// Returns true if the application has been removed. Takes no lock.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Restores a report of an earlier run. `order`: its order then; reports are restored in that order.
    pub(super) fn restore(&self, order: u64, dead: DeadToken) {
        let mut reports = self.reports();
        reports.next = reports.next.max(order + 1);
        reports.insert(order, dead.device_token, dead.since);
        while self.is_over(&reports)
            && let Some(order) = reports.remove_oldest()
        {
            self.kept.iter().for_each(|kept| kept.forget(order));
        }
    }

    fn is_over(&self, reports: &FeedbackReports) -> bool {
        reports.by_order.len() > self.most || reports.bytes > self.most.saturating_mul(BYTES_EACH)
    }

    fn reports(&self) -> MutexGuard<'_, FeedbackReports> {
        self.tokens.lock()
    }
}

impl FeedbackReports {
    /// Returns the order of an older report of the token, which is gone.
    fn insert(&mut self, order: u64, device_token: String, since: SystemTime) -> Option<u64> {
        self.bytes += size(&device_token);
        let old = self.by_token.insert(device_token.clone(), (order, since)).map(|(old, _)| old);
        if let Some(same) = old.and_then(|old| self.by_order.remove(&old)) {
            self.bytes -= size(&same);
        }
        self.by_order.insert(order, device_token);
        old
    }

    fn remove_oldest(&mut self) -> Option<u64> {
        let (order, oldest) = self.by_order.pop_first()?;
        self.by_token.remove(&oldest);
        self.bytes -= size(&oldest);
        Some(order)
    }

    /// Gives back what the account no longer has to pay for.
    fn release(&mut self) {
        let bytes = self.bytes;
        if let Some(reserved) = &mut self.reserved {
            reserved.shrink_to(bytes);
        }
    }

    /// Charges all reports to the account. Returns false if there is no room for them.
    fn reserve(&mut self, payer: Option<&Arc<Account>>) -> bool {
        let Some(payer) = payer else { return true };
        let reserved = self.reserved.get_or_insert_with(|| payer.reserve_nothing(MemoryUse::Feedback));
        reserved.shrink_to(self.bytes);
        let more = self.bytes - reserved.bytes();
        let all = payer.memory_used_for(MemoryUse::Feedback).saturating_add(more);
        all <= payer.memory_limit() / PART && reserved.grow(more).is_ok()
    }
}

fn size(device_token: &str) -> usize {
    2 * device_token.len() + OVERHEAD
}

impl FeedbackLocation {
    fn note(&self, order: u64, device_token: &str, since: SystemTime, gone: &[u64]) {
        let value = format!("{} {device_token}", unix_milliseconds(since)).into_bytes();
        let gone = gone.iter().map(|order| StorageChange::Delete(Table::Feedback, self.key(*order)));
        self.journal.add(gone.chain([StorageChange::Put(Table::Feedback, self.key(order), value)]));
    }

    fn forget(&self, order: u64) {
        self.journal.add([StorageChange::Delete(Table::Feedback, self.key(order))]);
    }

    fn clear(&self) {
        let all = RecordKey::new(&[self.tenant.as_str(), &self.application]);
        self.journal.add([StorageChange::DeleteAll(Table::Feedback, all)]);
    }

    fn key(&self, order: u64) -> RecordKey {
        RecordKey::new(&[self.tenant.as_str(), &self.application, &format!("{order:016x}")])
    }
}

impl DeadToken {
    /// As [`FeedbackLocation::note`] writes it.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let (since, device_token) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since.parse().ok()?))?;
        Some(Self { device_token: device_token.to_owned(), since })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pushlet_quota::account::{AccountSettings, Accounts};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn tokens(feedback: &FeedbackList) -> Vec<(String, SystemTime)> {
        feedback.take().into_iter().map(|dead| (dead.device_token, dead.since)).collect()
    }

    #[test]
    fn reading_clears_it() {
        let feedback = FeedbackList::new(10);
        feedback.report("a", at(1), None);
        feedback.report("b", at(2), None);
        assert_eq!(tokens(&feedback), [("a".into(), at(1)), ("b".into(), at(2))]);
        assert_eq!(tokens(&feedback), []);
    }

    #[test]
    fn reading_from_a_cursor_keeps_and_dropping_drops_what_was_read() {
        let feedback = FeedbackList::new(10);
        let names = |page: &FeedbackPage| -> Vec<String> {
            page.tokens.iter().map(|dead| dead.device_token.clone()).collect()
        };
        ["a", "b"].iter().for_each(|token| feedback.report(token, at(1), None));
        let first = feedback.after(0);
        assert_eq!(names(&first), ["a", "b"]);
        assert_eq!(feedback.after(first.cursor), FeedbackPage { tokens: Vec::new(), cursor: first.cursor });
        ["a", "c"].iter().for_each(|token| feedback.report(token, at(2), None));
        assert_eq!(names(&feedback.after(first.cursor)), ["a", "c"], "reported again");
        assert_eq!(names(&feedback.after(0)), ["b", "a", "c"]);
        feedback.drop_until(first.cursor);
        assert_eq!(names(&feedback.after(0)), ["a", "c"]);
        feedback.drop_until(u64::MAX);
        assert_eq!((names(&feedback.after(0)), feedback.reports().bytes), (Vec::new(), 0));
        // The next run begins later.
        std::thread::sleep(Duration::from_millis(2));
        assert!(FeedbackList::new(1).reports().next > first.cursor, "its reports are newer");
    }

    #[test]
    fn a_token_is_listed_once_and_the_newest_are_kept() {
        let feedback = FeedbackList::new(2);
        feedback.report("a", at(1), None);
        feedback.report("b", at(2), None);
        feedback.report("a", at(3), None);
        feedback.report("c", at(4), None);
        assert_eq!(tokens(&feedback), [("a".into(), at(3)), ("c".into(), at(4))]);
    }

    #[test]
    fn reports_are_bounded_by_their_bytes_too() {
        let feedback = FeedbackList::new(4);
        let token = |number: usize| format!("{number}{}", "x".repeat(1500));
        (0..4).for_each(|number| feedback.report(&token(number), at(1), None));
        feedback.report(&"x".repeat(LONGEST_TOKEN + 1), at(2), None);
        assert_eq!(tokens(&feedback), [(token(3), at(1))], "4 KiB for four: one of 3 KiB");
        feedback.report("a", at(1), None);
        feedback.report("a", at(2), None);
        assert_eq!(feedback.reports().bytes, size("a"));
    }

    #[test]
    fn all_lists_of_a_tenant_together_take_no_more_than_their_part() {
        let settings = AccountSettings { tenant_memory: 100 << 10, ..AccountSettings::default() };
        let account = Accounts::new(settings).unwrap().of(&TenantId::new("a"));
        let lists: Vec<_> = (0..10).map(|_| FeedbackList::new(1000)).collect();
        for number in 0..1000 {
            lists.iter().for_each(|list| list.report(&format!("{number:0100}"), at(1), Some(&account)));
        }
        let used = account.memory_used_for(MemoryUse::Feedback);
        assert!((20 << 10..=25 << 10).contains(&used), "{used}");
        // The newest report of each is kept, whatever the others have.
        assert!(lists.iter().all(|list| tokens(list).last().is_some_and(|last| last.0.ends_with("999"))));
        assert_eq!(account.memory_used(), 0);
    }
}
