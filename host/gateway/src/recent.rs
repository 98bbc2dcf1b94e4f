//! The last pushes of each tenant that did not go well, in the push service's words.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use serde::Serialize;
use utoipa::ToSchema;

use crate::context::unix_milliseconds;
use crate::status::{Fate, Status};
use pushlet_model::contract::{Outcome, Target};
use pushlet_model::tenant::TenantId;

/// Failures kept for each tenant.
const KEPT: usize = 50;
/// Characters of a target: enough to find it again, too few to send to it.
const SHOWN: usize = 12;
/// Characters of a vendor's text.
const LONGEST_TEXT: usize = 300;

/// A push that did not go well.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RecentFailure {
    /// Seconds since the Unix epoch.
    pub at: u64,
    #[schema(value_type = String)]
    pub application: Arc<str>,
    #[schema(value_type = String)]
    pub provider: Arc<str>,
    /// The beginning of the token, topic or URL.
    pub target: String,
    pub status: Status,
    /// The service's own reason, or ours.
    pub code: Option<String>,
    pub message: Option<String>,
}

/// The failures of all tenants that had some.
#[derive(Default)]
pub(super) struct Recent(RwLock<HashMap<TenantId, Arc<Ring>>>);

/// The failures of one tenant.
#[derive(Default)]
pub(super) struct Ring(Mutex<VecDeque<RecentFailure>>);

impl Recent {
    pub fn forget(&self, tenant: &TenantId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }

    pub fn of(&self, tenant: &TenantId) -> Arc<Ring> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        known.unwrap_or_else(|| {
            let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
            all.entry(tenant.clone()).or_default().clone()
        })
    }
}

impl Ring {
    /// Notes the fate if it is a failure; the oldest one goes.
    pub fn record(&self, application: &Arc<str>, provider: &Arc<str>, target: &Target, fate: &Fate) {
        let status = fate.status();
        if status.is_good() {
            return;
        }
        let (code, message) = match fate {
            Fate::Settled(Outcome { code, message, .. }) => (code.as_deref(), message.as_deref()),
            Fate::Failed(error) | Fate::Lost(error) => (Some(&*error.code), Some(&*error.message)),
            Fate::Valid | Fate::Duplicate(_) => (None, None),
        };
        let failure = RecentFailure {
            at: unix_milliseconds(SystemTime::now()) / 1000,
            application: application.clone(),
            provider: provider.clone(),
            target: beginning(target),
            status,
            code: code.map(excerpt),
            message: message.map(excerpt),
        };
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(failure);
    }

    /// The newest first.
    pub fn list(&self) -> Vec<RecentFailure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

fn beginning(target: &Target) -> String {
    let (Target::Device(text)
    | Target::Topic(text)
    | Target::Condition(text)
    | Target::Channel(text)
    | Target::Url(text)) = target;
    let mut letters = text.chars();
    let mut shown: String = letters.by_ref().take(SHOWN).collect();
    if letters.next().is_some() {
        shown.push('…');
    }
    shown
}

fn excerpt(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pushlet_model::error::{Error, Kind};

    #[test]
    fn the_newest_failures_are_kept_and_successes_are_not() {
        let recent = Recent::default();
        let ring = recent.of(&TenantId::new("acme"));
        let (application, provider) = ("shop".into(), "apns".into());
        for number in 0..=KEPT {
            let error = Error::new(Kind::Invalid, format!("code_{number}"), "x".repeat(1000));
            let target = Target::Device("0123456789abcdef".into());
            ring.record(&application, &provider, &target, &Fate::Failed(error));
            ring.record(&application, &provider, &target, &Fate::Valid);
        }
        let kept = recent.of(&TenantId::new("acme")).list();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].code.as_deref(), Some(&*format!("code_{KEPT}")));
        assert_eq!(kept[KEPT - 1].code.as_deref(), Some("code_1"));
        assert_eq!(kept[0].target, "0123456789ab…");
        assert_eq!(kept[0].message.as_ref().map(String::len), Some(LONGEST_TEXT));
        assert!(recent.of(&TenantId::new("other")).list().is_empty());
    }
}
