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
    tenants.add_key(&acme(), KeyRequest { expires_in: None, others_expire_in }).unwrap();
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
        .add_key(&acme(), KeyRequest { expires_in: None, others_expire_in: Some(Duration::ZERO) })
        .unwrap();
    assert_eq!(permission.withdrawn(), None);
    set_suspended(&tenants, true);
    assert_eq!(permission.withdrawn(), Some(Withdrawal::TenantSuspended));
}
