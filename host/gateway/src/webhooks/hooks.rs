//! The webhooks in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::task::AbortHandle;
use utoipa::ToSchema;

use super::events::PendingEvents;
use super::queue::WebhookQueue;
use crate::result::{DeliveryResult, utc};
use pushlet_model::contract::Target;
use pushlet_model::tenant::TenantId;
use pushlet_registry::WebhookRecord;

/// The webhooks of all tenants.
#[derive(Default)]
pub(crate) struct Webhooks {
    pub(super) tenants: RwLock<HashMap<TenantId, Arc<TenantWebhooks>>>,
    arrived: AtomicU64,
    failed: AtomicU64,
}

/// The webhooks of one tenant, and what happened since they were told last.
#[derive(Default)]
pub(crate) struct TenantWebhooks {
    /// There is one that is on: without, nothing is gathered.
    is_active: AtomicBool,
    pub(super) pending: Mutex<PendingEvents>,
    pub(super) hooks: RwLock<BTreeMap<String, Arc<Webhook>>>,
    /// Held while they are replaced.
    pub(super) changing: Mutex<()>,
}

pub(super) struct Webhook {
    pub record: WebhookRecord,
    pub queue: Arc<WebhookQueue>,
    /// Sends the messages; ends with the webhook.
    pub worker: AbortHandle,
}

/// What may be shown of a webhook.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct WebhookView {
    pub id: String,
    pub url: String,
    pub events: Vec<String>,
    /// RFC 3339.
    pub created: String,
    /// When it was switched off, because its messages failed for too long or it answered 410; RFC 3339. null: it is on.
    pub disabled: Option<String>,
    /// Messages that have not arrived.
    pub waiting: usize,
}

impl Webhooks {
    pub fn of(&self, tenant: &TenantId) -> Arc<TenantWebhooks> {
        if let Some(known) = self.tenants.read().get(tenant) {
            return known.clone();
        }
        self.tenants.write().entry(tenant.clone()).or_default().clone()
    }

    /// Counts an attempt to send a message.
    pub fn count(&self, arrived: bool) {
        let counter = if arrived { &self.arrived } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the attempts since the server started, by what became of them.
    pub fn attempts(&self) -> [(&'static str, u64); 2] {
        [("arrived", &self.arrived), ("failed", &self.failed)]
            .map(|(outcome, counter)| (outcome, counter.load(Ordering::Relaxed)))
    }

    /// Returns how many messages have not arrived.
    pub fn waiting(&self) -> usize {
        let tenants: Vec<_> = self.tenants.read().values().cloned().collect();
        let of = |hooks: &Arc<TenantWebhooks>| {
            hooks.hooks.read().values().map(|hook| hook.queue.len()).sum::<usize>()
        };
        tenants.iter().map(of).sum()
    }

    /// Forgets a tenant that was removed.
    pub fn forget(&self, tenant: &TenantId) {
        self.tenants.write().remove(tenant);
    }
}

impl TenantWebhooks {
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    /// Notes the final result of a target, if webhooks hear of such.
    pub fn settled(
        &self,
        application: &Arc<str>,
        provider: &Arc<str>,
        target: &Target,
        result: &DeliveryResult,
    ) {
        if PendingEvents::is_of_interest(result.status()) {
            self.pending.lock().settled(application, provider, target, result);
        }
    }

    /// Replaces the webhooks by others.
    pub(super) fn set(&self, hooks: BTreeMap<String, Arc<Webhook>>) {
        let is_on = |hook: &Arc<Webhook>| hook.record.disabled.is_none();
        self.is_active.store(hooks.values().any(is_on), Ordering::Relaxed);
        *self.hooks.write() = hooks;
    }
}

impl Webhook {
    pub fn view(&self, id: &str) -> WebhookView {
        let at = |milliseconds| utc(SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)).to_string();
        WebhookView {
            id: id.to_owned(),
            url: self.record.url.clone(),
            events: self.record.events.clone(),
            created: at(self.record.created),
            disabled: self.record.disabled.map(at),
            waiting: self.queue.len(),
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.worker.abort();
    }
}
