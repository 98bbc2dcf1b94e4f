//! Sees what happens, and makes messages of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::events::{
    AGAIN, CREDENTIAL_EXPIRING, DAY, Event, LIMIT_REACHED, PROVIDER_QUARANTINED, PendingEvents,
};
use crate::applications::Expiring;
use crate::gateway::Gateway;
use pushlet_model::contract::unix_milliseconds;
use pushlet_model::tenant::TenantId;

/// How often events become messages.
const GATHER: Duration = Duration::from_secs(1);

impl Gateway {
    /// Reads the stored webhooks, and tells them what happens, for as long as the gateway exists.
    pub(crate) fn run_webhooks(&self) {
        let gateway = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            if let Some(gateway) = gateway.upgrade().map(Self)
                && let Err(error) = gateway.read_webhooks(None).await
            {
                tracing::error!(%error, "webhooks are not told anything until this server is started again");
            }
            let mut ticks = interval(GATHER);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let Some(gateway) = gateway.upgrade().map(Self) else { return };
                gateway.tell_webhooks().await;
            }
        });
    }

    /// Makes messages of what happened since the last call.
    pub(crate) async fn tell_webhooks(&self) {
        let active: Vec<_> = {
            let tenants = self.0.webhooks.tenants.read();
            let active = tenants.iter().filter(|(_, hooks)| hooks.is_active());
            active.map(|(id, hooks)| (id.clone(), hooks.clone())).collect()
        };
        for (tenant, hooks) in active {
            let mut pending = std::mem::take(&mut *hooks.pending.lock());
            self.look_around(&tenant, &mut pending);
            let events = pending.take();
            // What was noticed once is remembered.
            hooks.pending.lock().keep(pending);
            if events.is_empty() {
                continue;
            }
            let all: Vec<_> = hooks.hooks.read().values().cloned().collect();
            for hook in all.iter().filter(|hook| hook.record.disabled.is_none()) {
                let wanted =
                    events.iter().filter(|event| hook.record.events.iter().any(|name| *name == event.kind));
                hook.queue.add(wanted.cloned().collect()).await;
            }
        }
    }

    /// Switches a webhook off, and tells the tenant's others.
    pub(crate) async fn disable_webhook(&self, tenant: &TenantId, id: &str) {
        let hooks = self.0.webhooks.of(tenant);
        let Some(mut record) = hooks.hooks.read().get(id).map(|hook| hook.record.clone()) else { return };
        record.disabled = Some(unix_milliseconds(SystemTime::now()));
        tracing::warn!(%tenant, webhook = id, "a webhook is switched off: its messages failed for too long");
        let (registry, owner, name) = (self.0.registry.clone(), tenant.clone(), id.to_owned());
        let kept = tokio::task::spawn_blocking(move || registry.put_webhook(&owner, &name, &record)).await;
        if !matches!(kept, Ok(Ok(()))) {
            return;
        }
        hooks.pending.lock().webhook_disabled(id);
        // This ends the caller's task: nothing may come after it.
        let gateway = self.clone();
        let tenant = tenant.clone();
        drop(tokio::task::spawn_blocking(move || gateway.take_on_webhooks(Some(&tenant))));
    }

    /// Adds what can be seen without being told: limits, quarantines and certificates.
    fn look_around(&self, tenant: &TenantId, pending: &mut PendingEvents) {
        let now = SystemTime::now();
        for (limit, count) in self.0.tenants.refusals_of(tenant) {
            let before = pending.refused.insert(limit.to_string(), count);
            // What was refused before a webhook was there is not told.
            let is_new = before.map_or(pending.has_looked(), |before| count > before);
            if is_new {
                let name = limit.strip_prefix("limit_").unwrap_or(&limit);
                pending.once(LIMIT_REACHED, name, AGAIN, json!({ "limit": name }));
            }
        }
        let providers = self.0.catalogue.of_tenant(tenant);
        for provider in providers.all() {
            let name = &provider.manifest().name;
            if provider.instances(tenant).quarantined().is_none() {
                pending.quarantined.remove(name);
            } else if pending.quarantined.insert(name.clone()) {
                let data = json!({ "provider": name, "digest": provider.digest() });
                pending.events.push(Event { kind: PROVIDER_QUARANTINED, at: now, data });
            }
        }
        // Of thousands of applications, only once in a while.
        if pending.is_due(("", "certificates".to_owned()), AGAIN) {
            for entry in self.0.registry.list(tenant) {
                if let Some(Expiring { application, days, .. }) = Expiring::of(tenant, &entry, now) {
                    let data = json!({
                        "application_id": application, "provider": entry.description.provider, "days": days,
                    });
                    pending.once(CREDENTIAL_EXPIRING, &application, DAY, data);
                }
            }
        }
    }
}
