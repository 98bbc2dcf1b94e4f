//! What a record is: the table that it is in, and its key; and the log of the keys that changed, which is followed where
//! other processes change records too.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

/// The kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Records of the registry itself: `format`, `key`.
    Meta,
    /// By tenant.
    Tenants,
    /// By tenant and application.
    Applications,
    /// By tenant, application and order.
    Feedback,
    /// Metadata of a component: by tenant, name and digest.
    Versions,
    /// The component file, of any size: by tenant, name and digest. Never replaced under the same key by another one.
    Components,
    /// Answers by `Idempotency-Key`: by tenant and key.
    Answers,
    /// By tenant, or a name that no tenant has for the operator, and time.
    Audit,
    /// By tenant, kind (`day`, `month` or `key`), period or key, and node.
    Usage,
    /// By tenant and webhook.
    Webhooks,
    /// Messages of a webhook that have not arrived: by tenant, webhook and number.
    Messages,
}

impl Table {
    pub const ALL: [Self; 11] = [
        Self::Meta,
        Self::Tenants,
        Self::Applications,
        Self::Feedback,
        Self::Versions,
        Self::Components,
        Self::Answers,
        Self::Audit,
        Self::Usage,
        Self::Webhooks,
        Self::Messages,
    ];

    /// Returns its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Tenants => "tenants",
            Self::Applications => "applications",
            Self::Feedback => "feedback",
            Self::Versions => "versions",
            Self::Components => "components",
            Self::Answers => "answers",
            Self::Audit => "audit",
            Self::Usage => "usage",
            Self::Webhooks => "webhooks",
            Self::Messages => "messages",
        }
    }

    /// Returns true if its changes are in the log. The others come with sends, and are in memory once; in a fleet, each
    /// server has its own.
    pub(super) fn is_logged(self) -> bool {
        !matches!(self, Self::Feedback | Self::Answers | Self::Messages)
    }
}

/// A sequence of parts; sorted by the first, then the second. Each part ends with a byte 0, so that the
/// key of the first parts is the beginning of the whole one; a 0 or 1 within a part is written as two bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordKey(Vec<u8>);

const END: u8 = 0;
const ESCAPE: u8 = 1;

impl RecordKey {
    pub fn new(parts: &[&str]) -> Self {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
        for part in parts {
            for byte in part.bytes() {
                match byte {
                    END | ESCAPE => bytes.extend([ESCAPE, byte + 1]),
                    _ => bytes.push(byte),
                }
            }
            bytes.push(END);
        }
        Self(bytes)
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the first key that does not begin with this one; None: every key does.
    pub fn end(&self) -> Option<Self> {
        let mut bytes = self.0.clone();
        *bytes.last_mut()? = END + 1;
        Some(Self(bytes))
    }

    /// Returns the parts, if it is a key of `N` parts.
    pub fn parts<const N: usize>(&self) -> Option<[String; N]> {
        self.all_parts()?.try_into().ok()
    }

    /// Returns the parts; None: there are none, or it is no key.
    pub(super) fn all_parts(&self) -> Option<Vec<String>> {
        // Within a part, END is escaped: each one that is left ends a part.
        let whole = self.0.strip_suffix(&[END])?;
        whole.split(|byte| *byte == END).map(|part| String::from_utf8(unescaped(part)).ok()).collect()
    }
}

fn unescaped(part: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.iter();
    while let Some(byte) = rest.next() {
        match *byte {
            ESCAPE => bytes.extend(rest.next().map(|escaped| escaped.saturating_sub(1))),
            byte => bytes.push(byte),
        }
    }
    bytes
}

/// Records of applications and components that a newer program wrote. This one keeps what it knew of them before, and neither
/// uses nor changes what is there now.
#[derive(Default)]
pub(super) struct NewerRecords(RwLock<BTreeSet<(Table, RecordKey)>>);

impl NewerRecords {
    pub fn add(&self, table: Table, key: &RecordKey) {
        if self.0.write().insert((table, key.clone())) {
            let place = key.all_parts().unwrap_or_default().join("/");
            let table = table.name();
            tracing::error!(
                table,
                place,
                "a newer server of the fleet wrote this record: it is not used here"
            );
        }
    }

    /// It can be read again, or is gone.
    pub fn remove(&self, table: Table, key: &RecordKey) {
        self.0.write().remove(&(table, key.clone()));
    }

    pub fn has(&self, table: Table, key: &RecordKey) -> bool {
        self.0.read().contains(&(table, key.clone()))
    }

    /// Returns true if there is one whose key begins with the parts of `prefix`.
    pub fn has_some(&self, table: Table, prefix: &RecordKey) -> bool {
        let all = self.0.read();
        all.iter().any(|(of, key)| *of == table && key.as_bytes().starts_with(prefix.as_bytes()))
    }
}

/// Entries that are kept; a follower that is further behind reads everything again.
const MOST_KEPT: usize = 1024;

/// A position in the order of all changes. Greater than those before it; two implementations count differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

/// What changed since a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The revision of the last change: the next question begins here.
    pub until: Revision,
    /// Keys in the order of their changes, deleted ones too. None: the log does not reach back so far.
    pub keys: Option<Vec<(Table, RecordKey)>>,
}

/// The latest keys that changed.
#[derive(Default)]
pub struct ChangeLog {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    last: u64,
    /// All changes up to this one are no longer in the log.
    forgotten: u64,
    entries: VecDeque<(u64, Table, RecordKey)>,
}

impl ChangeLog {
    /// Returns the revision of the last change.
    pub fn last(&self) -> Revision {
        Revision(self.state.lock().last)
    }

    /// Returns what changed after a revision. If nothing did, waits for the next change, at most this long.
    pub fn after(&self, revision: Revision, wait: Duration) -> Changes {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| state.last == revision.0, wait);
        let until = Revision(state.last);
        // A revision that is still to come is one of before a restart of the log.
        if revision.0 < state.forgotten || revision.0 > state.last {
            return Changes { until, keys: None };
        }
        let new = state.entries.iter().filter(|(at, ..)| *at > revision.0);
        Changes { until, keys: Some(new.map(|(_, table, key)| (*table, key.clone())).collect()) }
    }

    /// Waits until this revision is reached. Returns false if it was not in time.
    pub(super) fn wait_until(&self, revision: Revision, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        while state.last < revision.0 {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return state.last >= revision.0;
            }
        }
        true
    }

    /// Adds the keys of one batch, under the next revision.
    pub(super) fn append(&self, keys: impl IntoIterator<Item = (Table, RecordKey)>) {
        let mut state = self.state.lock();
        let next = state.last + 1;
        state.append(next, keys);
        drop(state);
        self.changed.notify_all();
    }

    /// Adds keys under a revision that is not below the last one.
    pub(super) fn append_as(&self, revision: Revision, keys: impl IntoIterator<Item = (Table, RecordKey)>) {
        self.state.lock().append(revision.0, keys);
        self.changed.notify_all();
    }

    /// Forgets the past: whoever follows reads everything again.
    pub(super) fn restart(&self, revision: Revision) {
        *self.state.lock() = LogState { last: revision.0, forgotten: revision.0, entries: VecDeque::new() };
        self.changed.notify_all();
    }
}

impl LogState {
    fn append(&mut self, revision: u64, keys: impl IntoIterator<Item = (Table, RecordKey)>) {
        self.last = self.last.max(revision);
        let logged = keys.into_iter().filter(|(table, _)| table.is_logged());
        self.entries.extend(logged.map(|(table, key)| (revision, table, key)));
        // All entries of a revision go together: half a batch is none.
        while self.entries.len() > MOST_KEPT
            || self.entries.front().is_some_and(|(at, ..)| *at <= self.forgotten)
        {
            if let Some((gone, ..)) = self.entries.pop_front() {
                self.forgotten = gone;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_their_parts_and_come_apart_again() {
        let parts = ["a\0b\u{1}c".to_owned(), String::new(), "ü".to_owned()];
        let key = RecordKey::new(&[&parts[0], &parts[1], &parts[2]]);
        assert_eq!(key.parts::<3>().unwrap(), parts);
        assert_eq!(key.parts::<2>(), None);
        let mut keys =
            [&["a", "b"][..], &["a\0", "a"], &["a", "a", "z"], &["a!", "a"], &["b"]].map(RecordKey::new);
        keys.sort();
        assert_eq!(
            keys,
            [&["a", "a", "z"][..], &["a", "b"], &["a\0", "a"], &["a!", "a"], &["b"]].map(RecordKey::new)
        );
    }

    #[test]
    fn a_prefix_covers_its_own_and_no_namesake() {
        let prefix = RecordKey::new(&["acme"]);
        let within = |key: &RecordKey| *key >= prefix && *key < prefix.end().unwrap();
        for own in [&["acme"][..], &["acme", ""], &["acme", "\0"], &["acme", "\u{10ffff}"]] {
            assert!(within(&RecordKey::new(own)), "{own:?}");
        }
        for other in [&["acm"][..], &["acme2"], &["acme\0", "a"], &["acme\u{1}", "a"], &["b"]] {
            assert!(!within(&RecordKey::new(other)), "{other:?}");
        }
        assert_eq!(RecordKey::new(&[]).end(), None);
    }
}
