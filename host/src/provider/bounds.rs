//! What one tenant's instances may use, where the tenant's own limits say less than the sandbox's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Limits;
use crate::tenant;

/// The bounds of one call and of the instance that answers it.
#[derive(Clone)]
pub(super) struct Bounds {
    /// Bytes of linear memory, summed over the instance's memories.
    pub memory: usize,
    pub call_timeout: Duration,
    /// Who pays for the memory; None: nobody counts it.
    pub account: Option<Arc<Account>>,
}

/// The linear memory of all instances of one tenant, in bytes.
pub(super) struct Account {
    used: AtomicUsize,
    most: AtomicUsize,
}

impl Bounds {
    /// What holds for everybody.
    pub fn of(limits: &Limits) -> Self {
        Self { memory: limits.memory, call_timeout: limits.call_timeout, account: None }
    }

    /// What holds for a tenant with these limits.
    pub fn of_tenant(limits: &Limits, own: &tenant::Limits, account: &Arc<Account>) -> Self {
        let bytes = |most: std::num::NonZeroU64| usize::try_from(most.get()).unwrap_or(usize::MAX);
        account.most.store(own.memory_bytes.map_or(usize::MAX, bytes), Ordering::Relaxed);
        Self {
            memory: own.instance_memory_bytes.map_or(limits.memory, bytes).min(limits.memory),
            call_timeout: own
                .call_milliseconds
                .map_or(limits.call_timeout, |most| Duration::from_millis(most.get()))
                .min(limits.call_timeout),
            account: Some(account.clone()),
        }
    }
}

impl Default for Account {
    fn default() -> Self {
        Self { used: AtomicUsize::new(0), most: AtomicUsize::new(usize::MAX) }
    }
}

impl Account {
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// False: there is not so much left.
    pub fn take(&self, bytes: usize) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let take = |used: usize| used.checked_add(bytes).filter(|used| *used <= most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    pub fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[test]
    fn a_tenants_limits_hold_where_they_are_narrower() {
        let limits = Limits { memory: 1000, call_timeout: Duration::from_millis(100), ..Limits::default() };
        let account = Arc::<Account>::default();
        let own = |memory, time| tenant::Limits {
            instance_memory_bytes: NonZeroU64::new(memory),
            call_milliseconds: NonZeroU64::new(time),
            memory_bytes: NonZeroU64::new(memory),
            ..tenant::Limits::default()
        };
        let bounds = Bounds::of_tenant(&limits, &own(10, 20), &account);
        assert_eq!((bounds.memory, bounds.call_timeout), (10, Duration::from_millis(20)));
        assert!(account.take(10) && !account.take(1));
        account.give_back(10);
        assert!(account.take(1) && account.used() == 1);
        let bounds = Bounds::of_tenant(&limits, &own(5000, 5000), &account);
        assert_eq!((bounds.memory, bounds.call_timeout), (1000, Duration::from_millis(100)));
        Bounds::of_tenant(&limits, &tenant::Limits::default(), &account);
        assert!(account.take(1 << 40), "without a limit there is none");
    }
}
