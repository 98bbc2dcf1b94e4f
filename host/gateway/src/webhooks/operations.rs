//! How a tenant changes and sees its webhooks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;
use uuid::Uuid;

use super::events::EVENTS;
use super::hooks::{Webhook, WebhookView};
use super::queue::{WebhookAttempt, WebhookQueue};
use super::worker;
use crate::gateway::Gateway;
use pushlet_model::contract::unix_milliseconds;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_registry::{StorageError, WebhookRecord};
use pushlet_transport::Origin;

/// Webhooks of one tenant.
const MOST: usize = 10;
/// Characters of a URL.
const LONGEST_URL: usize = 2048;
/// What a secret begins with, by the specification.
const SECRET_PREFIX: &str = "whsec_";

/// What a tenant wants to hear, and where.
pub struct WebhookRequest {
    pub url: String,
    /// The types of events; None: all.
    pub events: Option<Vec<String>>,
    /// Make another secret.
    pub rotate_secret: bool,
}

/// A webhook that was created or changed.
pub struct ChangedWebhook {
    pub webhook: WebhookView,
    /// The secret, if it is new: it is only shown now.
    pub secret: Option<String>,
    /// It was created.
    pub is_new: bool,
}

impl Gateway {
    /// Creates or changes a webhook, and switches it on.
    pub async fn put_webhook(
        &self,
        tenant: &TenantId,
        id: &str,
        request: WebhookRequest,
    ) -> Result<ChangedWebhook, Error> {
        let record = self.checked_webhook(tenant, id, &request)?;
        let known = self.0.webhooks.of(tenant).hooks.read().get(id).map(|hook| hook.record.nonce.clone());
        let is_new = known.is_none();
        let has_new_secret = known.as_ref() != Some(&record.nonce);
        let (registry, owner, name) = (self.0.registry.clone(), tenant.clone(), id.to_owned());
        let stored = tokio::task::spawn_blocking(move || {
            registry.put_webhook(&owner, &name, &record)?;
            Ok::<_, Error>(STANDARD.encode(*registry.webhook_secret(&owner, &name, &record)))
        });
        let secret = stored.await.map_err(Error::internal)??;
        self.read_webhooks(Some(tenant)).await?;
        let secret = has_new_secret.then(|| format!("{SECRET_PREFIX}{secret}"));
        Ok(ChangedWebhook { webhook: self.webhook(tenant, id)?, secret, is_new })
    }

    /// Returns a tenant's webhooks, by id.
    pub fn webhooks(&self, tenant: &TenantId) -> Vec<WebhookView> {
        let hooks = self.0.webhooks.of(tenant);
        hooks.hooks.read().iter().map(|(id, hook)| hook.view(id)).collect()
    }

    pub fn webhook(&self, tenant: &TenantId, id: &str) -> Result<WebhookView, Error> {
        let hooks = self.0.webhooks.of(tenant);
        hooks.hooks.read().get(id).map(|hook| hook.view(id)).ok_or_else(not_found)
    }

    /// Returns the last attempts to send a webhook's messages, the newest first.
    pub fn webhook_attempts(&self, tenant: &TenantId, id: &str) -> Result<Vec<WebhookAttempt>, Error> {
        let hooks = self.0.webhooks.of(tenant);
        hooks.hooks.read().get(id).map(|hook| hook.queue.attempts()).ok_or_else(not_found)
    }

    /// Removes a webhook; its messages are not sent.
    pub async fn remove_webhook(&self, tenant: &TenantId, id: &str) -> Result<(), Error> {
        self.webhook(tenant, id)?;
        let (registry, owner, name) = (self.0.registry.clone(), tenant.clone(), id.to_owned());
        let remove = move || registry.remove_webhook(&owner, &name);
        tokio::task::spawn_blocking(remove).await.map_err(Error::internal)??;
        self.read_webhooks(Some(tenant)).await?;
        Ok(())
    }

    /// Takes on the stored webhooks of a tenant, or of all.
    pub(crate) async fn read_webhooks(&self, tenant: Option<&TenantId>) -> Result<(), Error> {
        let (gateway, tenant) = (self.clone(), tenant.cloned());
        let read = move || gateway.take_on_webhooks(tenant.as_ref());
        Ok(tokio::task::spawn_blocking(read).await.map_err(Error::internal)??)
    }

    /// The same. Blocks; needs a Tokio runtime.
    pub(crate) fn take_on_webhooks(&self, tenant: Option<&TenantId>) -> Result<(), StorageError> {
        let tenants: BTreeSet<_> = match tenant {
            Some(tenant) => [tenant.clone()].into(),
            None => self.0.registry.webhooks(None)?.into_iter().map(|(tenant, ..)| tenant).collect(),
        };
        for tenant in tenants {
            let hooks = self.0.webhooks.of(&tenant);
            // One at a time, so that the last to read is the last to set, and no webhook has two workers.
            let _order = hooks.changing.lock();
            let mut all = BTreeMap::new();
            for (_, id, record) in self.0.registry.webhooks(Some(&tenant))? {
                let known = hooks.hooks.read().get(&id).cloned();
                let hook = match known {
                    Some(known) if known.record == record => known,
                    earlier => Arc::new(self.begin_webhook(&tenant, &id, record, earlier.as_deref())?),
                };
                all.insert(id, hook);
            }
            hooks.set(all);
        }
        Ok(())
    }

    fn begin_webhook(
        &self,
        tenant: &TenantId,
        id: &str,
        record: WebhookRecord,
        earlier: Option<&Webhook>,
    ) -> Result<Webhook, StorageError> {
        let queue =
            Arc::new(WebhookQueue::open(self.0.registry.clone(), self.0.tenants.accounts().of(tenant), id)?);
        if let Some(earlier) = earlier {
            queue.take_attempts_of(&earlier.queue);
        }
        let worker = worker::begin(self, queue.clone(), record.clone());
        Ok(Webhook { record, queue, worker })
    }

    fn checked_webhook(
        &self,
        tenant: &TenantId,
        id: &str,
        request: &WebhookRequest,
    ) -> Result<WebhookRecord, Error> {
        // As tenants' ids are.
        if TenantId::parse(id).is_none() {
            let message = "a webhook's id is 1 to 64 letters, digits, dots, dashes and underscores";
            return Err(Error::field("invalid_webhook_id", "id", message));
        }
        let url = checked_url(&request.url)?;
        let events = match &request.events {
            None => EVENTS.map(str::to_owned).to_vec(),
            Some(events) => events.clone(),
        };
        if events.is_empty() || events.iter().any(|event| !EVENTS.contains(&event.as_str())) {
            let message = format!("events must be some of {}", EVENTS.join(", "));
            return Err(Error::field("invalid_events", "events", message));
        }
        let hooks = self.0.webhooks.of(tenant);
        let hooks = hooks.hooks.read();
        let known = hooks.get(id).map(|hook| &hook.record);
        if known.is_none() && hooks.len() >= MOST {
            let message = format!("there are {MOST} webhooks already, the most that is allowed; remove one");
            return Err(Error::new(Kind::Conflict, "too_many_webhooks", message));
        }
        let now = unix_milliseconds(SystemTime::now());
        let nonce = known.filter(|_| !request.rotate_secret).map(|known| known.nonce.clone());
        Ok(WebhookRecord {
            url: url.to_string(),
            events,
            created: known.map_or(now, |known| known.created),
            nonce: nonce.unwrap_or_else(|| Uuid::new_v4().to_string()),
            disabled: None,
        })
    }
}

fn checked_url(text: &str) -> Result<Url, Error> {
    let wrong = |why: &dyn std::fmt::Display| Error::field("invalid_url", "url", format!("url: {why}"));
    if text.len() > LONGEST_URL {
        return Err(wrong(&format_args!("at most {LONGEST_URL} characters")));
    }
    let url = Url::parse(text).map_err(|error| wrong(&error))?;
    Origin::of(&url).map_err(|error| wrong(&error))?;
    if url.fragment().is_some() {
        return Err(wrong(&"a fragment is not allowed"));
    }
    Ok(url)
}

fn not_found() -> Error {
    Error::new(Kind::NotFound, "webhook_not_found", "there is no such webhook")
}
