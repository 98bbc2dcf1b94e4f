//! The messages of one webhook that have not arrived, in memory and in the registry, and its last attempts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;
use utoipa::ToSchema;
use uuid::Uuid;

use super::events::Event;
use crate::result::utc;
use pushlet_model::contract::unix_milliseconds;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};
use pushlet_registry::{Registry, StorageError, StoredMessage};

/// Messages of one webhook; the oldest are given up for new ones.
const MOST: usize = 1000;
/// The part of the tenant's memory that the messages of one webhook may take.
const PART: usize = 64;
/// What a message takes beside its texts.
const OVERHEAD: usize = 128;
/// Attempts that are shown.
const SHOWN: usize = 50;

/// A message. Every attempt sends the same bytes under the same id, by which its receiver knows a repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Message {
    /// By which messages are sorted.
    #[serde(skip)]
    pub number: u64,
    pub id: String,
    pub kind: String,
    pub payload: String,
    /// How often it was tried.
    pub tries: u32,
    /// When it was tried first, in milliseconds since the Unix epoch.
    pub first_try: Option<u64>,
}

/// One attempt to send a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WebhookAttempt {
    /// RFC 3339.
    pub at: String,
    /// The message's `webhook-id`.
    pub message: String,
    /// The type of its event.
    pub event: String,
    /// 1 for the first one.
    pub attempt: u32,
    /// The status of the response; null: there was none.
    pub status: Option<u16>,
    /// Why there was none.
    pub error: Option<String>,
    pub milliseconds: u64,
}

/// The queue of one webhook.
pub(super) struct WebhookQueue {
    pub tenant: TenantId,
    pub id: String,
    registry: Arc<Registry>,
    messages: Mutex<Waiting>,
    attempts: Mutex<VecDeque<WebhookAttempt>>,
    /// The number of the newest message.
    last: AtomicU64,
    /// A message was added.
    pub added: Notify,
}

/// What waits, on the account of its tenant.
struct Waiting {
    /// The oldest first.
    messages: VecDeque<Message>,
    account: Arc<Account>,
    reserved: MemoryReservation,
}

impl Waiting {
    /// Gives up the oldest until the rest has room. Returns their numbers.
    fn fit(&mut self) -> Vec<u64> {
        let mut surplus = Vec::new();
        let mut bytes = self.messages.iter().map(Message::size).sum::<usize>();
        loop {
            self.reserved.shrink_to(bytes);
            let is_small = self.messages.len() <= MOST && bytes <= self.account.memory_limit() / PART;
            if is_small && self.reserved.grow(bytes - self.reserved.bytes()).is_ok() {
                return surplus;
            }
            let Some(oldest) = self.messages.pop_front() else { return surplus };
            bytes -= oldest.size();
            surplus.push(oldest.number);
        }
    }
}

impl Message {
    fn size(&self) -> usize {
        self.id.len() + self.kind.len() + self.payload.len() + OVERHEAD
    }
}

impl WebhookQueue {
    /// Reads what an earlier process left. Blocks.
    pub fn open(registry: Arc<Registry>, account: Arc<Account>, id: &str) -> Result<Self, StorageError> {
        let tenant = account.tenant();
        let stored = registry.messages(tenant, id)?;
        let read = |(number, bytes): StoredMessage| {
            let message: Message = serde_json::from_slice(&bytes).ok()?;
            Some(Message { number, ..message })
        };
        let messages: VecDeque<_> = stored.into_iter().filter_map(read).collect();
        let last = AtomicU64::new(messages.back().map_or(0, |message| message.number));
        let tenant = tenant.clone();
        let reserved = account.reserve_nothing(MemoryUse::Webhooks);
        let mut waiting = Waiting { messages, account, reserved };
        registry.remove_messages(&tenant, id, &waiting.fit())?;
        Ok(Self {
            tenant,
            id: id.to_owned(),
            registry,
            messages: Mutex::new(waiting),
            attempts: Mutex::default(),
            last,
            added: Notify::new(),
        })
    }

    /// Adds messages about events. They are stored before they are sent.
    pub async fn add(self: &Arc<Self>, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let messages: Vec<_> = events.into_iter().map(|event| self.message(event)).collect();
        self.store(messages.clone()).await;
        let surplus: Vec<u64> = {
            let mut waiting = self.messages.lock();
            waiting.messages.extend(messages);
            waiting.fit()
        };
        if !surplus.is_empty() {
            let (tenant, webhook, count) = (&self.tenant, &self.id, surplus.len());
            tracing::warn!(%tenant, webhook, count, "too many messages of a webhook wait: the oldest are given up");
            self.remove(surplus).await;
        }
        self.added.notify_one();
    }

    /// Returns the oldest message.
    pub fn first(&self) -> Option<Message> {
        self.messages.lock().messages.front().cloned()
    }

    pub fn len(&self) -> usize {
        self.messages.lock().messages.len()
    }

    /// Shows the attempts of the queue that it replaces: a webhook that was changed or switched off says why.
    pub fn take_attempts_of(&self, earlier: &Self) {
        let attempts = earlier.attempts.lock().clone();
        *self.attempts.lock() = attempts;
    }

    /// Returns the last attempts, the newest first.
    pub fn attempts(&self) -> Vec<WebhookAttempt> {
        self.attempts.lock().iter().rev().cloned().collect()
    }

    pub fn record(&self, attempt: WebhookAttempt) {
        let mut attempts = self.attempts.lock();
        if attempts.len() == SHOWN {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
    }

    /// Removes a message that has arrived.
    pub async fn arrived(self: &Arc<Self>, number: u64) {
        let mut gone = {
            let mut waiting = self.messages.lock();
            waiting.messages.retain(|message| message.number != number);
            waiting.fit()
        };
        gone.push(number);
        self.remove(gone).await;
    }

    /// Stores that a message was tried, so that a restart goes on from there.
    pub async fn failed(self: &Arc<Self>, message: Message) {
        if let Some(known) =
            self.messages.lock().messages.iter_mut().find(|known| known.number == message.number)
        {
            *known = message.clone();
        }
        self.store(vec![message]).await;
    }

    fn message(&self, event: Event) -> Message {
        let now = unix_milliseconds(SystemTime::now()).saturating_mul(1000);
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(now);
        let payload =
            json!({ "type": event.kind, "timestamp": utc(event.at).to_string(), "data": event.data });
        Message {
            number: now.max(last.saturating_add(1)),
            id: format!("msg_{}", Uuid::new_v4().simple()),
            kind: event.kind.to_owned(),
            payload: payload.to_string(),
            tries: 0,
            first_try: None,
        }
    }

    async fn store(self: &Arc<Self>, messages: Vec<Message>) {
        let queue = self.clone();
        let store = move || {
            let stored = |message: Message| Some((message.number, serde_json::to_vec(&message).ok()?));
            let stored = messages.into_iter().filter_map(stored).collect();
            queue.registry.put_messages(&queue.tenant, &queue.id, stored)
        };
        self.report(tokio::task::spawn_blocking(store).await);
    }

    async fn remove(self: &Arc<Self>, numbers: Vec<u64>) {
        let queue = self.clone();
        let remove = move || queue.registry.remove_messages(&queue.tenant, &queue.id, &numbers);
        self.report(tokio::task::spawn_blocking(remove).await);
    }

    /// They are in memory all the same.
    fn report(&self, stored: Result<Result<(), StorageError>, tokio::task::JoinError>) {
        if let Ok(Err(error)) = stored {
            let (tenant, webhook) = (&self.tenant, &self.id);
            tracing::warn!(%tenant, webhook, %error, "messages of a webhook are lost or sent twice after a restart");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::num::NonZeroU64;

    use pushlet_quota::account::{AccountSettings, Accounts};

    use super::*;

    fn event(number: usize) -> Event {
        Event { kind: "token.dead", at: SystemTime::UNIX_EPOCH, data: json!({ "number": number }) }
    }

    fn account() -> Arc<Account> {
        Accounts::new(AccountSettings::default()).unwrap().of(&TenantId::new("acme"))
    }

    fn open(registry: &Arc<Registry>) -> Arc<WebhookQueue> {
        Arc::new(WebhookQueue::open(registry.clone(), account(), "one").unwrap())
    }

    #[tokio::test]
    async fn messages_are_stored_in_their_order_until_they_arrived() {
        let registry = Arc::new(Registry::in_memory(1).unwrap());
        let queue = open(&registry);
        queue.add((0..3).map(event).collect()).await;
        let first = queue.first().unwrap();
        assert!(first.id.starts_with("msg_"));
        assert_eq!(
            first.payload,
            r#"{"type":"token.dead","timestamp":"1970-01-01T00:00:00Z","data":{"number":0}}"#
        );
        queue.failed(Message { tries: 2, first_try: Some(7), ..first.clone() }).await;
        let again = open(&registry);
        assert_eq!(again.len(), 3);
        assert_eq!(again.first().unwrap(), Message { tries: 2, first_try: Some(7), ..first.clone() });
        again.arrived(first.number).await;
        again.add(vec![event(3)]).await;
        let numbers: Vec<_> =
            open(&registry).messages.lock().messages.iter().map(|message| message.payload.clone()).collect();
        assert!(numbers.len() == 3 && numbers[2].contains("\"number\":3"), "{numbers:?}");
    }

    #[tokio::test]
    async fn the_oldest_are_given_up_for_new_ones() {
        let registry = Arc::new(Registry::in_memory(1).unwrap());
        let queue = open(&registry);
        queue.add((0..MOST + 5).map(event).collect()).await;
        assert_eq!((queue.len(), open(&registry).len()), (MOST, MOST));
        assert!(queue.first().unwrap().payload.contains("\"number\":5}"));
    }

    #[tokio::test]
    async fn messages_are_on_the_tenants_account() {
        let registry = Arc::new(Registry::in_memory(1).unwrap());
        let account = account();
        account.set_limits(NonZeroU64::new(PART as u64 * 100_000), None);
        let queue = Arc::new(WebhookQueue::open(registry.clone(), account.clone(), "one").unwrap());
        let large = |_| Event { data: json!("x".repeat(account.memory_limit() / PART / 3)), ..event(0) };
        queue.add((0..5).map(large).collect()).await;
        assert_eq!((queue.len(), open(&registry).len()), (2, 2));
        let used = || account.memory_used_for(MemoryUse::Webhooks);
        assert!(used() > account.memory_limit() / PART / 2 && used() <= account.memory_limit() / PART);
        queue.arrived(queue.first().unwrap().number).await;
        queue.arrived(queue.first().unwrap().number).await;
        assert_eq!(used(), 0);
    }
}
