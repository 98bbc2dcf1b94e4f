#![allow(clippy::unwrap_used)]
use std::time::Duration;

use super::super::{KeyRequest, Tenants, Wanted};
use super::*;
use pushlet_model::tenant::TenantId;

fn acme() -> TenantId {
    TenantId::new("acme")
}

fn tenants() -> (Tenants, Permission) {
    let tenants = Tenants::in_memory().unwrap();
    let key = tenants.put(&acme(), Wanted::default()).unwrap().unwrap();
    let permission = tenants.by_key(key.key.reveal()).unwrap();
    (tenants, permission)
}

fn set_suspended(tenants: &Tenants, suspended: bool) {
    tenants.put(&acme(), Wanted { suspended: Some(suspended), limits: None }).unwrap();
}

#[test]
fn a_suspension_withdraws_it_until_it_ends() {
    let (tenants, permission) = tenants();
    assert_eq!(permission.withdrawn(), None);
    set_suspended(&tenants, true);
    assert_eq!(permission.withdrawn(), Some(Withdrawal::TenantSuspended));
    set_suspended(&tenants, false);
    assert_eq!(permission.withdrawn(), None);
}

#[test]
fn a_key_withdraws_it_when_it_is_revoked_or_expires() {
    let (tenants, first) = tenants();
    let made = tenants.add_key(&acme(), KeyRequest::default()).unwrap();
    let second = tenants.by_key(made.key.reveal()).unwrap();
    tenants.remove_key(&acme(), &made.key.id().to_string()).unwrap();
    assert_eq!((first.withdrawn(), second.withdrawn()), (None, Some(Withdrawal::KeyRevoked)));
    let others_expire_in = Some(Duration::ZERO);
    tenants.add_key(&acme(), KeyRequest { others_expire_in, ..KeyRequest::default() }).unwrap();
    assert_eq!(first.withdrawn(), Some(Withdrawal::KeyExpired));
}

#[tokio::test]
async fn it_does_not_pass_to_the_next_tenant_of_the_same_name() {
    let (tenants, permission) = tenants();
    tenants.end(&acme()).await.unwrap();
    tenants.remove(&acme()).unwrap();
    tenants.put(&acme(), Wanted::default()).unwrap();
    assert_eq!(permission.withdrawn(), Some(Withdrawal::TenantDeleted));
}

#[test]
fn without_a_key_only_the_tenant_counts() {
    let (tenants, _) = tenants();
    let permission = Permission::without_key(tenants.get(&acme()).unwrap());
    tenants
        .add_key(&acme(), KeyRequest { others_expire_in: Some(Duration::ZERO), ..KeyRequest::default() })
        .unwrap();
    assert_eq!(permission.withdrawn(), None);
    set_suspended(&tenants, true);
    assert_eq!(permission.withdrawn(), Some(Withdrawal::TenantSuspended));
}

#[test]
fn servers_of_a_fleet_share_a_limit() {
    let counters = UsageCounters::default();
    let thirds = Sharing { servers: 3, exact: false };
    let some = |count| NonZeroU64::new(count);
    let limits = TenantLimits {
        requests_per_second: some(3),
        pushes_per_second: some(30),
        concurrent_sends: some(6),
        ..TenantLimits::default()
    };
    let start = Duration::from_secs(1);
    assert!(counters.take_pushes(&limits, (10, thirds), start).is_ok(), "a third of a second's worth");
    assert_eq!(counters.take_pushes(&limits, (1, thirds), start), Err(Duration::from_millis(100)));
    assert!(counters.take_pushes(&limits, (1, thirds), start + Duration::from_millis(100)).is_ok());
    assert!(counters.take_request(&limits, thirds, start).is_ok());
    let refused = counters.take_request(&limits, thirds, start).unwrap_err();
    assert!(refused.message.contains("more than 3 requests"), "{}", refused.message);
    assert!(counters.take_request(&limits, thirds, start + Duration::from_secs(1)).is_ok());
    assert!([(); 2].iter().all(|()| counters.acquire_send_permit(&limits, 3).is_ok()));
    assert!(counters.acquire_send_permit(&limits, 3).is_err());
    assert!(counters.acquire_send_permit(&limits, 2).is_ok(), "one server less");
}

#[test]
fn without_a_lease_an_exact_limit_lets_a_share_through_on_credit() {
    let counters = UsageCounters::default();
    let limits = TenantLimits { pushes_per_second: NonZeroU64::new(30), ..TenantLimits::default() };
    let exact = Sharing { servers: 3, exact: true };
    let start = Duration::from_secs(1);
    assert!((0..10).all(|_| counters.take_pushes(&limits, (1, exact), start).is_ok()));
    let later = start + Duration::from_secs(60);
    let wait = counters.take_pushes(&limits, (1, exact), later).unwrap_err();
    assert_eq!(wait.as_millis(), 33, "time alone pays nothing off");
    let most = NonZeroU64::new(30).unwrap();
    assert_eq!(counters.pushes.in_use(most, exact, later), 30);
    assert!(counters.pushes.begins_to_lease(most) && !counters.pushes.begins_to_lease(most), "by one task");
}
