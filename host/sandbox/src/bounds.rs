//! What one tenant's instances may use, where the tenant's own limits say less than the sandbox's.

use std::sync::Arc;
use std::time::Duration;

use super::limits::SandboxLimits;
use pushlet_model::tenant;
use pushlet_quota::account::Account;

/// The bounds of one call and of the instance that answers it.
#[derive(Clone)]
pub(super) struct CallBounds {
    /// Bytes of linear memory, summed over the instance's memories.
    pub memory: usize,
    pub call_timeout: Duration,
    /// The account that memory is charged to; None: it is not counted.
    pub account: Option<Arc<Account>>,
}

impl CallBounds {
    /// The sandbox's own limits.
    pub fn of(limits: &SandboxLimits) -> Self {
        Self { memory: limits.memory, call_timeout: limits.call_timeout, account: None }
    }

    /// The narrower of the sandbox's limits and the tenant's.
    pub fn of_tenant(limits: &SandboxLimits, own: &tenant::TenantLimits, account: &Arc<Account>) -> Self {
        let bytes = |most: std::num::NonZeroU64| usize::try_from(most.get()).unwrap_or(usize::MAX);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use pushlet_model::tenant::TenantId;
    use pushlet_quota::account::{AccountSettings, Accounts};

    #[test]
    fn a_tenants_limits_hold_where_they_are_narrower() {
        let limits = SandboxLimits {
            memory: 1000,
            call_timeout: Duration::from_millis(100),
            ..SandboxLimits::default()
        };
        let accounts = Accounts::new(AccountSettings::default()).unwrap();
        let account = accounts.of(&TenantId::default_tenant());
        let own = |memory, time| tenant::TenantLimits {
            instance_memory_bytes: NonZeroU64::new(memory),
            call_milliseconds: NonZeroU64::new(time),
            ..tenant::TenantLimits::default()
        };
        let bounds = CallBounds::of_tenant(&limits, &own(10, 20), &account);
        assert_eq!((bounds.memory, bounds.call_timeout), (10, Duration::from_millis(20)));
        let bounds = CallBounds::of_tenant(&limits, &own(5000, 5000), &account);
        assert_eq!((bounds.memory, bounds.call_timeout), (1000, Duration::from_millis(100)));
    }
}
