//! What a caller was let in by, and whether that still holds: a stream outlives the look at its first line.

use std::sync::Arc;
use std::time::SystemTime;

use super::Tenant;
use pushlet_credential::KeyId;

/// A tenant, and the API key that was shown, if one was. Cheap to clone.
#[derive(Clone)]
pub struct Permission {
    tenant: Arc<Tenant>,
    /// None: the configured login, or a server that is open to everybody.
    key: Option<KeyId>,
}

/// Why a permission does not hold any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    TenantSuspended,
    TenantDeleted,
    KeyRevoked,
    KeyExpired,
}

impl Permission {
    /// Without a key of the tenant's own.
    pub fn without_key(tenant: Arc<Tenant>) -> Self {
        Self { tenant, key: None }
    }

    pub(super) fn with_key(tenant: Arc<Tenant>, key: KeyId) -> Self {
        Self { tenant, key: Some(key) }
    }

    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Why it does not hold any more; None: it does. Takes no lock, and reads the clock only for a key that
    /// expires.
    pub fn withdrawn(&self) -> Option<Withdrawal> {
        let state = self.tenant.state.load();
        if state.removed {
            return Some(Withdrawal::TenantDeleted);
        }
        if state.record.suspended {
            return Some(Withdrawal::TenantSuspended);
        }
        let id = self.key?;
        let Some(key) = state.record.keys.iter().find(|key| key.id == id) else {
            return Some(Withdrawal::KeyRevoked);
        };
        let expired = key.expires.is_some() && !key.is_good(SystemTime::now());
        expired.then_some(Withdrawal::KeyExpired)
    }
}

#[cfg(test)]
mod tests {
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
}
