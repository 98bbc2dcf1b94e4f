//! What tenants used, by day and month, and when their API keys were used last; it outlives the process.
//!
//! A record has one tenant's counts of one period, of one server: in a fleet each server writes its own, and a reader adds
//! them up. Periods are written as `2026-11-27` and `2026-11`, so that their order is that of their keys.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::Registry;
use super::storage::{RecordKey, StorageChange, StorageError, Table, cut_off, from_unix, unix_milliseconds};
use pushlet_credential::KeyId;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// Targets by status, by provider, by application.
pub type UsageCounts = BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>;

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsagePeriod {
    Day,
    Month,
}

/// The node of a server that is alone.
const ALONE: &str = "local";
/// The kind of records of API keys.
const KEY: &str = "key";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Tenants that are written together, with two records each: a fleet takes batches of a bounded size.
const TOGETHER: usize = 50;

impl UsagePeriod {
    const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// Returns its name in keys and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Returns how long its records are kept.
    fn kept(self) -> Duration {
        match self {
            Self::Day => 62 * DAY,
            Self::Month => 2 * 366 * DAY,
        }
    }

    /// Returns the period of a date, which is written as `2026-11-27`.
    fn of(self, date: &str) -> &str {
        match self {
            Self::Day => date,
            Self::Month => date.get(..7).unwrap_or(date),
        }
    }
}

impl Registry {
    /// Adds counts to those of the day and the month. `date`: writes a time as `2026-11-27`. Returns the tenants whose
    /// counts could not be stored, with these. Blocks.
    pub fn add_usage(
        &self,
        all: Vec<(TenantId, UsageCounts)>,
        date: impl Fn(SystemTime) -> String,
    ) -> Vec<(TenantId, UsageCounts)> {
        let now = SystemTime::now();
        let mut failed = Vec::new();
        let mut all = all.into_iter().peekable();
        while all.peek().is_some() {
            let some: Vec<_> = all.by_ref().take(TOGETHER).collect();
            let changes =
                some.iter().map(|(tenant, counts)| self.usage_changes(tenant, counts, (now, &date)));
            let stored = changes
                .collect::<Result<Vec<_>, _>>()
                .and_then(|changes| self.journal.commit(changes.into_iter().flatten().collect()));
            if let Err(error) = stored {
                tracing::warn!(%error, "what tenants used is kept later");
                failed.extend(some);
            }
        }
        failed
    }

    /// Returns what a tenant used, by period; the oldest first. Blocks.
    pub fn usage(
        &self,
        tenant: &TenantId,
        by: UsagePeriod,
    ) -> Result<BTreeMap<String, UsageCounts>, StorageError> {
        let mut periods = BTreeMap::<String, UsageCounts>::new();
        for (key, bytes) in self.storage.scan(Table::Usage, &RecordKey::new(&[tenant.as_str(), by.name()]))? {
            let [_, _, period, _] = key.parts().ok_or_else(|| cut_off("a usage record's key"))?;
            add(periods.entry(period).or_default(), &read(&bytes)?);
        }
        Ok(periods)
    }

    /// Stores when keys were used last. Blocks.
    pub fn put_last_uses(&self, uses: &[(TenantId, KeyId, SystemTime)]) -> Result<(), StorageError> {
        uses.chunks(TOGETHER).try_for_each(|uses| {
            let change = |(tenant, key, at): &(TenantId, KeyId, SystemTime)| {
                let value = unix_milliseconds(*at).to_be_bytes().to_vec();
                StorageChange::Put(Table::Usage, key_place(tenant, *key), value)
            };
            self.journal.commit(uses.iter().map(change).collect())
        })
    }

    /// Returns when a key was used last, as far as that is stored. Blocks.
    pub fn last_use(&self, tenant: &TenantId, key: KeyId) -> Result<Option<SystemTime>, StorageError> {
        let stored = self.storage.get(Table::Usage, &key_place(tenant, key))?;
        let at = stored.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        Ok(at.map(from_unix))
    }

    /// Forgets when a key was used that is no more. Blocks.
    pub fn forget_key(&self, tenant: &TenantId, key: KeyId) -> Result<(), Error> {
        let change = StorageChange::Delete(Table::Usage, key_place(tenant, key));
        Ok(self.journal.commit(vec![change])?)
    }

    fn usage_changes(
        &self,
        tenant: &TenantId,
        counts: &UsageCounts,
        (now, date): (SystemTime, &impl Fn(SystemTime) -> String),
    ) -> Result<Vec<StorageChange>, StorageError> {
        let today = date(now);
        let node = self.fleet().map_or(ALONE, |fleet| fleet.node());
        let mut changes = Vec::new();
        for by in UsagePeriod::ALL {
            let key = RecordKey::new(&[tenant.as_str(), by.name(), by.of(&today), node]);
            let mut sums = match self.storage.get(Table::Usage, &key)? {
                Some(bytes) => read(&bytes)?,
                None => {
                    // The first of this period: a good time to remove what is too old.
                    let until = now.checked_sub(by.kept()).unwrap_or(SystemTime::UNIX_EPOCH);
                    self.remove_old_usage(tenant, by, &date(until))?;
                    UsageCounts::new()
                }
            };
            add(&mut sums, counts);
            let bytes = serde_json::to_vec(&sums).map_err(|error| StorageError::Io(error.to_string()))?;
            changes.push(StorageChange::Put(Table::Usage, key, bytes));
        }
        Ok(changes)
    }

    fn remove_old_usage(&self, tenant: &TenantId, by: UsagePeriod, until: &str) -> Result<(), StorageError> {
        let all = self.storage.scan(Table::Usage, &RecordKey::new(&[tenant.as_str(), by.name()]))?;
        let is_old =
            |key: &RecordKey| key.parts::<4>().is_some_and(|[_, _, period, _]| *period < *by.of(until));
        let old = all.into_iter().map(|(key, _)| key).filter(is_old);
        self.journal.commit(old.map(|key| StorageChange::Delete(Table::Usage, key)).collect())
    }
}

fn key_place(tenant: &TenantId, key: KeyId) -> RecordKey {
    RecordKey::new(&[tenant.as_str(), KEY, &key.to_string()])
}

fn read(bytes: &[u8]) -> Result<UsageCounts, StorageError> {
    serde_json::from_slice(bytes).map_err(|_| cut_off("a usage record"))
}

fn add(sums: &mut UsageCounts, counts: &UsageCounts) {
    for (application, providers) in counts {
        for (provider, outcomes) in providers {
            let sums = sums.entry(application.clone()).or_default().entry(provider.clone()).or_default();
            for (status, count) in outcomes {
                let sum = sums.entry(status.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::tests::{acme, open, with_both};

    fn counts(application: &str, count: u64) -> UsageCounts {
        let outcomes = BTreeMap::from([("delivered".to_owned(), count)]);
        BTreeMap::from([(application.to_owned(), BTreeMap::from([("apns".to_owned(), outcomes)]))])
    }

    /// A date that is `days` after today, in a calendar of years with 12 months of 31 days.
    fn date(days: u64) -> impl Fn(SystemTime) -> String {
        move |time| {
            let day = time.duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400 + days;
            format!("{:04}-{:02}-{:02}", day / 372, day / 31 % 12 + 1, day % 31 + 1)
        }
    }

    fn delivered(registry: &Registry, by: UsagePeriod, application: &str) -> Vec<u64> {
        let periods = registry.usage(&acme(), by).unwrap();
        let of = |counts: &UsageCounts| Some(*counts.get(application)?.get("apns")?.get("delivered")?);
        periods.values().filter_map(of).collect()
    }

    #[test]
    fn counts_of_a_period_add_up_and_outlive_the_process() {
        with_both(|storage| {
            let registry = open(&storage);
            let other = TenantId::new("other");
            let all = vec![(acme(), counts("shop", 2)), (other, counts("shop", 9))];
            assert!(registry.add_usage(all, date(0)).is_empty());
            drop(registry);
            let registry = open(&storage);
            assert!(registry.add_usage(vec![(acme(), counts("shop", 3))], date(0)).is_empty());
            registry.add_usage(vec![(acme(), counts("news", 1))], date(0));
            registry.add_usage(vec![(acme(), counts("shop", 10))], date(31));
            assert_eq!(delivered(&registry, UsagePeriod::Day, "shop"), [5, 10]);
            assert_eq!(delivered(&registry, UsagePeriod::Month, "shop"), [5, 10]);
            assert_eq!(delivered(&registry, UsagePeriod::Day, "news"), [1]);
            // Days go after two months, months stay.
            registry.add_usage(vec![(acme(), counts("shop", 20))], date(100));
            assert_eq!(delivered(&registry, UsagePeriod::Day, "shop"), [20]);
            assert_eq!(delivered(&registry, UsagePeriod::Month, "shop"), [5, 10, 20]);
        });
    }

    #[test]
    fn the_last_use_of_a_key_is_kept() {
        with_both(|storage| {
            let key = KeyId::parse("0123456789abcdef").unwrap();
            let registry = open(&storage);
            assert_eq!(registry.last_use(&acme(), key).unwrap(), None);
            registry.put_last_uses(&[(acme(), key, from_unix(7))]).unwrap();
            assert_eq!(open(&storage).last_use(&acme(), key).unwrap(), Some(from_unix(7)));
            registry.forget_key(&acme(), key).unwrap();
            assert_eq!(registry.last_use(&acme(), key).unwrap(), None);
        });
    }
}
