//! Events: what a tenant's webhooks are told. They are gathered, so that a thousand dead tokens are some messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::result::{DeliveryResult, Status, utc};
use pushlet_model::contract::{Disposition, Target};

/// The types of events.
pub const EVENTS: [&str; 7] = [
    TOKEN_DEAD,
    TOKEN_REPLACED,
    CREDENTIAL_REJECTED,
    CREDENTIAL_EXPIRING,
    PROVIDER_QUARANTINED,
    LIMIT_REACHED,
    WEBHOOK_DISABLED,
];
const TOKEN_DEAD: &str = "token.dead";
const TOKEN_REPLACED: &str = "token.replaced";
const CREDENTIAL_REJECTED: &str = "credential.rejected";
pub(super) const CREDENTIAL_EXPIRING: &str = "credential.expiring";
pub(super) const PROVIDER_QUARANTINED: &str = "provider.quarantined";
pub(super) const LIMIT_REACHED: &str = "limit.reached";
const WEBHOOK_DISABLED: &str = "webhook.disabled";

/// Tokens in one message.
const TOGETHER: usize = 100;
/// Tokens that are gathered at a time; further ones are in the feedback of their application alone.
const MOST_TOKENS: usize = 10_000;
/// Bytes of these: a token may have some KiB.
const MOST_TOKEN_BYTES: usize = 2 << 20;
/// What goes on is told again after this time.
pub(super) const AGAIN: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// One event, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub kind: &'static str,
    pub at: SystemTime,
    pub data: Value,
}

/// What happened since the last messages.
#[derive(Default)]
pub(super) struct PendingEvents {
    /// By type, application and provider.
    tokens: BTreeMap<(&'static str, Arc<str>, Arc<str>), Vec<Value>>,
    count: usize,
    /// Bytes of the tokens.
    size: usize,
    pub events: Vec<Event>,
    /// What was told, by type and what it is about, and when.
    told: BTreeMap<(&'static str, String), Instant>,
    /// How many requests each limit had refused at the last look.
    pub refused: BTreeMap<String, u64>,
    /// Providers that are in quarantine.
    pub quarantined: BTreeSet<String>,
}

impl PendingEvents {
    /// Returns true if webhooks hear of targets with this status.
    pub fn is_of_interest(status: Status) -> bool {
        matches!(status, Status::Unregistered | Status::Replaced | Status::CredentialRejected)
    }

    /// Notes the final result of a target.
    pub fn settled(
        &mut self,
        application: &Arc<str>,
        provider: &Arc<str>,
        target: &Target,
        result: &DeliveryResult,
    ) {
        let status = result.status();
        match (target, result) {
            (_, result) if status == Status::CredentialRejected => {
                let data = json!({
                    "application_id": **application, "provider": **provider, "code": result.code(),
                });
                self.once(CREDENTIAL_REJECTED, application, AGAIN, data);
            }
            (Target::Device(token) | Target::Url(token), DeliveryResult::Settled(outcome)) => {
                let mut size = token.len();
                let (kind, token) = match &outcome.disposition {
                    Disposition::Unregistered(since) => {
                        let since = since
                            .and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
                        let since = since.map(|since| utc(since).to_string());
                        (TOKEN_DEAD, json!({ "token": token, "since": since }))
                    }
                    Disposition::Replaced(new) => {
                        size += new.len();
                        (TOKEN_REPLACED, json!({ "token": token, "new_token": new }))
                    }
                    _ => return,
                };
                if self.count < MOST_TOKENS && self.size + size <= MOST_TOKEN_BYTES {
                    self.count += 1;
                    self.size += size;
                    let place = (kind, application.clone(), provider.clone());
                    self.tokens.entry(place).or_default().push(token);
                }
            }
            _ => {}
        }
    }

    pub fn webhook_disabled(&mut self, id: &str) {
        let data = json!({ "webhook_id": id });
        self.events.push(Event { kind: WEBHOOK_DISABLED, at: SystemTime::now(), data });
    }

    /// Takes all events; tokens of one application are told together.
    pub fn take(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.events);
        (self.count, self.size) = (0, 0);
        for ((kind, application, provider), tokens) in std::mem::take(&mut self.tokens) {
            for tokens in tokens.chunks(TOGETHER) {
                let data = json!({ "application_id": *application, "provider": *provider, "tokens": tokens });
                events.push(Event { kind, at: SystemTime::now(), data });
            }
        }
        events
    }

    /// Keeps what `earlier` knows was told; called on what was gathered while its events were taken.
    pub fn keep(&mut self, earlier: Self) {
        let Self { mut told, refused, quarantined, .. } = earlier;
        told.append(&mut self.told);
        (self.told, self.refused, self.quarantined) = (told, refused, quarantined);
    }

    /// Adds an event, unless the same was told a short while ago.
    pub fn once(&mut self, kind: &'static str, about: &str, again: Duration, data: Value) {
        if self.is_due((kind, about.to_owned()), again) {
            self.events.push(Event { kind, at: SystemTime::now(), data });
        }
    }

    pub fn is_due(&mut self, what: (&'static str, String), again: Duration) -> bool {
        let now = Instant::now();
        if self.told.get(&what).is_some_and(|at| now < *at + again) {
            return false;
        }
        // What was told long ago takes no room.
        self.told.retain(|_, at| now < *at + DAY);
        self.told.insert(what, now);
        true
    }

    /// Returns true if this is not the first look: what was refused before a webhook was there is not told.
    pub fn has_looked(&self) -> bool {
        self.told.contains_key(&("", "certificates".to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kinds(events: &[Event]) -> Vec<&'static str> {
        events.iter().map(|event| event.kind).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_told_once_in_a_while() {
        let mut pending = PendingEvents::default();
        for _ in 0..3 {
            pending.once(LIMIT_REACHED, "applications", AGAIN, json!({}));
            pending.once(LIMIT_REACHED, "components", AGAIN, json!({}));
        }
        assert_eq!(kinds(&pending.take()), [LIMIT_REACHED; 2]);
        let mut next = PendingEvents::default();
        next.keep(pending);
        next.once(LIMIT_REACHED, "applications", AGAIN, json!({}));
        assert!(next.take().is_empty());
        tokio::time::sleep(AGAIN).await;
        next.once(LIMIT_REACHED, "applications", AGAIN, json!({}));
        assert_eq!(next.take().len(), 1);
    }

    #[test]
    fn tokens_of_one_application_are_told_together() {
        let mut pending = PendingEvents::default();
        let outcome = |disposition| {
            DeliveryResult::Settled(pushlet_model::contract::Outcome {
                disposition,
                id: None,
                code: None,
                message: None,
                connection: pushlet_model::contract::ConnectionHint::Keep,
            })
        };
        let (shop, apns): (Arc<str>, Arc<str>) = ("shop".into(), "apns".into());
        for number in 0..150 {
            let target = Target::Device(format!("t{number}"));
            pending.settled(&shop, &apns, &target, &outcome(Disposition::Unregistered(Some(0))));
            pending.settled(&shop, &apns, &target, &outcome(Disposition::Delivered));
        }
        let replaced = outcome(Disposition::Replaced("new".into()));
        pending.settled(&shop, &apns, &Target::Device("old".into()), &replaced);
        let events = pending.take();
        assert_eq!(kinds(&events), [TOKEN_DEAD, TOKEN_DEAD, TOKEN_REPLACED]);
        let tokens = |event: &Event| event.data["tokens"].as_array().unwrap().len();
        assert_eq!((tokens(&events[0]), tokens(&events[1])), (TOGETHER, 50));
        assert_eq!(events[0].data["tokens"][0], json!({"token": "t0", "since": "1970-01-01T00:00:00Z"}));
        assert_eq!(events[2].data["tokens"], json!([{"token": "old", "new_token": "new"}]));
        assert!(pending.take().is_empty());
        // Long ones are as many as have room.
        for number in 0..1000 {
            let target = Target::Device(format!("{number:4096}"));
            pending.settled(&shop, &apns, &target, &outcome(Disposition::Unregistered(None)));
        }
        assert_eq!(pending.take().iter().map(tokens).sum::<usize>(), MOST_TOKEN_BYTES / 4096);
    }
}
