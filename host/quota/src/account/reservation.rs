//! Memory that is reserved on an account.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Account;
use super::memory::{MemoryShortage, MemoryUse};
use pushlet_model::error::{Error, Kind};

/// Bytes that are counted on an account until this is dropped.
pub struct MemoryReservation {
    account: Arc<Account>,
    of: MemoryUse,
    bytes: usize,
}

impl Account {
    /// Counts bytes that are about to be taken, if there is room for them.
    pub fn reserve(self: &Arc<Self>, of: MemoryUse, bytes: usize) -> Result<MemoryReservation, Error> {
        let mut reservation = self.reserve_nothing(of);
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// A reservation that can grow.
    pub fn reserve_nothing(self: &Arc<Self>, of: MemoryUse) -> MemoryReservation {
        MemoryReservation { account: self.clone(), of, bytes: 0 }
    }

    /// Bytes reserved for one use.
    pub fn memory_used_for(&self, of: MemoryUse) -> usize {
        self.memory.used_for(of)
    }

    /// Bytes reserved for everything.
    pub fn memory_used(&self) -> usize {
        self.memory.used()
    }

    /// The most bytes that may be reserved.
    pub fn memory_limit(&self) -> usize {
        self.memory.limit()
    }

    fn take(self: &Arc<Self>, of: MemoryUse, bytes: usize) -> Result<(), Error> {
        let take = || self.memory.take(&self.common.memory, of, bytes);
        let shortage = match take() {
            Ok(()) => return Ok(()),
            Err(shortage) => shortage,
        };
        // An instance that grows has others of its tenant removed itself, after its call.
        let reclaim = self.common.reclaim.get().filter(|_| of != MemoryUse::Instances);
        if reclaim.is_some_and(|reclaim| reclaim(self)) && take().is_ok() {
            return Ok(());
        }
        Err(self.short(&shortage))
    }

    fn short(&self, shortage: &MemoryShortage) -> Error {
        let error = match shortage {
            MemoryShortage::Tenant => {
                let most = self.memory_limit().min(self.common.memory.limit());
                let message = format!(
                    "what this tenant has in flight and keeps takes {most} bytes (limit memory_bytes)"
                );
                self.over_limit("memory_bytes", message)
            }
            MemoryShortage::Process => {
                let message = "this server is short of memory, try again later";
                self.refuse(Error::new(Kind::Overloaded, "overloaded_memory", message))
            }
        };
        error.after(Duration::from_secs(1))
    }
}

impl MemoryReservation {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts more bytes. If there is no room for them, what was reserved before stays.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > 0 {
            self.account.take(self.of, bytes)?;
            self.bytes += bytes;
        }
        Ok(())
    }

    /// Gives back all that is over this.
    pub fn shrink_to(&mut self, bytes: usize) {
        let over = self.bytes.saturating_sub(bytes);
        if over > 0 {
            self.account.memory.give_back(&self.account.common.memory, self.of, over);
            self.bytes -= over;
        }
    }
}

impl fmt::Debug for MemoryReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} bytes of {})", self.bytes, self.of.name())
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::{AccountSettings, Accounts};
    use super::*;
    use pushlet_model::tenant::TenantId;

    fn accounts(process: usize, tenant: usize) -> Arc<Accounts> {
        let settings =
            AccountSettings { process_memory: process, tenant_memory: tenant, ..AccountSettings::default() };
        Accounts::new(settings).unwrap()
    }

    fn code<T>(result: Result<T, Error>) -> String {
        result.err().unwrap().code.into_owned()
    }

    #[test]
    fn a_reservation_counts_until_it_is_dropped() {
        let accounts = accounts(1000, 100);
        let account = accounts.of(&TenantId::new("a"));
        let mut bodies = account.reserve(MemoryUse::RequestBodies, 40).unwrap();
        let answers = account.reserve(MemoryUse::Answers, 60).unwrap();
        assert_eq!(code(account.reserve(MemoryUse::Feedback, 1)), "limit_memory_bytes");
        assert_eq!(code(bodies.grow(1)), "limit_memory_bytes");
        assert_eq!((account.memory_used(), accounts.process_memory()), (100, (100, 1000)));
        assert_eq!(account.memory_used_for(MemoryUse::Answers), 60);
        drop(answers);
        bodies.grow(10).unwrap();
        bodies.shrink_to(20);
        bodies.shrink_to(30);
        assert_eq!((bodies.bytes(), account.memory_used(), accounts.process_memory().0), (20, 20, 20));
        drop(bodies);
        assert_eq!((account.memory_used(), accounts.process_memory().0, account.refused()), (0, 0, 2));
    }

    #[test]
    fn a_limit_may_change() {
        let accounts = accounts(1000, 100);
        let account = accounts.of(&TenantId::new("a"));
        let kept = account.reserve(MemoryUse::Code, 100).unwrap();
        account.set_limits(NonZeroU64::new(50), None);
        assert_eq!(code(account.reserve(MemoryUse::Code, 1)), "limit_memory_bytes");
        drop(kept);
        account.reserve(MemoryUse::Code, 50).unwrap();
        account.set_limits(None, None);
        account.reserve(MemoryUse::Code, 500).unwrap();
    }

    #[test]
    fn nobody_holds_more_than_what_is_left() {
        let accounts = accounts(1000, usize::MAX);
        let tenants: Vec<_> = (0..5).map(|number| accounts.of(&TenantId::new(&number.to_string()))).collect();
        let mut held = Vec::new();
        for expected in [500, 250, 125] {
            let mut all = tenants[held.len()].reserve(MemoryUse::ParsedInput, 0).unwrap();
            while all.grow(1).is_ok() {}
            assert_eq!(all.bytes(), expected);
            held.push(all);
        }
        assert_eq!(code(tenants[0].reserve(MemoryUse::Answers, 1)), "overloaded_memory");
        tenants[4].reserve(MemoryUse::Answers, 60).unwrap();
    }

    #[test]
    fn no_number_is_too_large() {
        let accounts = accounts(1000, usize::MAX);
        let account = accounts.of(&TenantId::new("a"));
        let mut one = account.reserve(MemoryUse::Answers, 1).unwrap();
        for bytes in [usize::MAX, usize::MAX / 2 + 1, 1001] {
            assert!(account.reserve(MemoryUse::Answers, bytes).is_err() && one.grow(bytes).is_err());
        }
        assert_eq!((account.memory_used(), accounts.process_memory().0), (1, 1));
    }

    #[test]
    fn it_holds_when_many_reserve_at_once() {
        let accounts = accounts(10_000, 3000);
        let account = accounts.of(&TenantId::new("a"));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let reserved = account.reserve(MemoryUse::RequestBodies, 999);
                        if reserved.is_ok() && accounts.process_memory().0 > 3000 {
                            over.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(!over.into_inner());
        assert_eq!((account.memory_used(), accounts.process_memory().0), (0, 0));
    }

    #[test]
    fn what_is_kept_for_speed_makes_room() {
        let accounts = accounts(1000, 100);
        let account = accounts.of(&TenantId::new("a"));
        let idle = std::sync::Mutex::new(Some(account.reserve(MemoryUse::Instances, 90).unwrap()));
        accounts.on_full(move |_| idle.lock().unwrap().take().is_some());
        assert_eq!(code(account.reserve(MemoryUse::Instances, 20)), "limit_memory_bytes");
        let body = account.reserve(MemoryUse::RequestBodies, 20).unwrap();
        assert_eq!((account.memory_used(), account.refused()), (20, 1));
        assert_eq!(code(account.reserve(MemoryUse::RequestBodies, 90)), "limit_memory_bytes");
        drop(body);
    }
}
