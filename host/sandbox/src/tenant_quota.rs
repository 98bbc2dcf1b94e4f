//! The quota of one tenant for components that it uploaded: its account, and narrower limits.

use std::sync::{Arc, OnceLock};

use super::bounds::CallBounds;
use super::error::ProviderError;
use super::limits::SandboxLimits;
use pushlet_model::tenant::{self, TenantId};
use pushlet_quota::account::{Account, Accounts, CpuMeter, Work, WorkPermit};

/// Where the tenants' own limits are found.
type LimitsOf = Box<dyn Fn(&TenantId) -> tenant::TenantLimits + Send + Sync>;

/// The quotas of all tenants.
pub(super) struct TenantQuotas {
    accounts: Arc<Accounts>,
    limits_of: Arc<OnceLock<LimitsOf>>,
}

impl TenantQuotas {
    pub(super) fn new(accounts: Arc<Accounts>) -> Self {
        Self { accounts, limits_of: Arc::default() }
    }

    pub(super) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// The share of one tenant; all of its components are on the same account.
    pub(super) fn of(&self, tenant: &TenantId) -> TenantQuota {
        TenantQuota { account: self.accounts.of(tenant), limits_of: self.limits_of.clone() }
    }

    pub(super) fn limits_of(&self, limits_of: LimitsOf) {
        let _ = self.limits_of.set(limits_of);
    }
}

/// The quota of one tenant.
#[derive(Clone)]
pub(super) struct TenantQuota {
    pub(super) account: Arc<Account>,
    limits_of: Arc<OnceLock<LimitsOf>>,
}

impl TenantQuota {
    /// Waits for the tenant's turn to call a component.
    pub(super) async fn permit(&self) -> Result<WorkPermit, ProviderError> {
        self.account.permit().await.ok_or(ProviderError::Exhausted)
    }

    /// Starts to measure a call on this thread, unless the tenant's CPU time is used up.
    pub(super) fn meter(&self) -> Result<CpuMeter<'_>, ProviderError> {
        match self.account.cpu_wait(Work::Guest) {
            None => Ok(self.account.meter(Work::Guest)),
            Some(retry_after) => Err(ProviderError::CpuLimit { retry_after }),
        }
    }

    /// A call failed, which may have kept its place for long: no more of the tenant's are light for a while.
    pub(super) fn failed(&self) {
        self.account.defer();
    }

    /// What a call and its instance may use.
    pub(super) fn bounds(&self, limits: &SandboxLimits) -> CallBounds {
        let own = self.limits_of.get().map(|of| of(self.account.tenant())).unwrap_or_default();
        CallBounds::of_tenant(limits, &own, &self.account)
    }
}
