#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicBool;

use super::*;

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

#[test]
fn a_tenant_has_one_account_for_as_long_as_it_is_used() {
    let accounts = Accounts::new(AccountSettings::default()).unwrap();
    let (a, b) = (TenantId::new("a"), TenantId::new("b"));
    let account = accounts.of(&a);
    assert!(Arc::ptr_eq(&account, &accounts.of(&a)));
    assert!(!Arc::ptr_eq(&account, &accounts.of(&b)));
    for number in 0..1000 {
        accounts.of(&TenantId::new(&number.to_string()));
    }
    let known = accounts.tenants.lock().by_tenant.len();
    assert!(known <= 64, "{known}: accounts that nothing uses are removed");
    assert!(Arc::ptr_eq(&account, &accounts.of(&a)));
}
