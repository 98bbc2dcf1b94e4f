//! The streams of what nodes share apart from records: created if there are none, and brought to this node's configuration
//! if they were created under another one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::jetstream::stream::{Config, Stream};

use super::connection::{NatsConnection, unreachable};
use super::fleet::{Fleet, FleetState};
use super::{answers, feedback, leases, quarantine, queue};
use crate::storage::StorageError;

const PAUSE: Duration = Duration::from_secs(1);

/// A stream as this node is configured.
struct Wanted {
    config: Config,
    /// What waits in the queue of deliveries would be lost by narrower bounds: they wait until the queue is empty.
    holds_work: bool,
}

impl Fleet {
    /// Creates the streams. Before they exist, nothing can be stored in them.
    pub(super) fn begin_to_store(&self) {
        let settings = &self.0.settings;
        let plain = |config| Wanted { config, holds_work: false };
        let all = [
            plain(answers::config(settings.answers)),
            plain(feedback::config(settings.feedback)),
            plain(leases::config()),
            plain(quarantine::config()),
            Wanted { config: queue::work_config(settings.parts), holds_work: true },
            Wanted { config: queue::log_config(settings.deliveries), holds_work: true },
        ];
        for wanted in all {
            self.0.connection.spawn(create(Arc::downgrade(&self.0), wanted));
        }
    }
}

async fn create(state: Weak<FleetState>, wanted: Wanted) {
    let mut last = None;
    while let Some(state) = state.upgrade() {
        let error = match bring(&state.connection, &wanted).await {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        drop(state);
        if last.as_ref() != Some(&error) {
            tracing::info!(stream = wanted.config.name, error, "the stream is not as it is configured yet");
            last = Some(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Creates the stream, or changes what is configured otherwise now.
async fn bring(connection: &NatsConnection, wanted: &Wanted) -> Result<(), StorageError> {
    let stream = connection.stream(wanted.config.clone()).await?;
    let found = stream.get_info().await.map_err(unreachable)?.config;
    if bounds(&found) == bounds(&wanted.config) {
        return Ok(());
    }
    let mut next = with_bounds(found.clone(), &wanted.config);
    let narrower = wanted.holds_work && is_narrower(&found, &next) && !queue_is_empty(connection).await?;
    if narrower {
        // What is wider is taken on at once.
        next = wider(next, &found);
    }
    if bounds(&next) != bounds(&found) {
        connection.jetstream().update_stream(next.clone()).await.map_err(unreachable)?;
        tracing::info!(
            stream = next.name,
            from = ?bounds(&found),
            to = ?bounds(&next),
            "the stream was brought to this server's configuration (age, messages, messages of a subject)"
        );
    }
    match narrower {
        false => Ok(()),
        true => Err(StorageError::Conflict),
    }
}

async fn queue_is_empty(connection: &NatsConnection) -> Result<bool, StorageError> {
    let work: Stream = connection.jetstream().get_stream(queue::WORK).await.map_err(unreachable)?;
    Ok(work.cached_info().state.messages == 0)
}

/// Returns what the configuration decides of a stream. 0 or less: there is no bound.
fn bounds(config: &Config) -> (Duration, i64, i64) {
    (config.max_age, config.max_messages.max(0), config.max_messages_per_subject.max(0))
}

fn with_bounds(found: Config, wanted: &Config) -> Config {
    let max_age = wanted.max_age;
    // A message may not be remembered for longer than it is kept.
    let duplicate_window = match max_age.is_zero() {
        true => found.duplicate_window,
        false => found.duplicate_window.min(max_age),
    };
    Config {
        max_age,
        duplicate_window,
        max_messages: wanted.max_messages,
        max_messages_per_subject: wanted.max_messages_per_subject,
        ..found
    }
}

fn is_narrower(found: &Config, next: &Config) -> bool {
    let ((age, all, one), (new_age, new_all, new_one)) = (bounds(found), bounds(next));
    let is_less = |new: i64, old: i64| new != 0 && (old == 0 || new < old);
    let is_younger = !new_age.is_zero() && (age.is_zero() || new_age < age);
    is_younger || is_less(new_all, all) || is_less(new_one, one)
}

/// Returns the first configuration with the bounds of the other where these are wider.
fn wider(next: Config, found: &Config) -> Config {
    let most = |one: i64, other: i64| if one <= 0 || other <= 0 { one.min(other) } else { one.max(other) };
    let unlimited = next.max_age.is_zero() || found.max_age.is_zero();
    Config {
        max_age: if unlimited { Duration::ZERO } else { next.max_age.max(found.max_age) },
        max_messages: most(next.max_messages, found.max_messages),
        max_messages_per_subject: most(next.max_messages_per_subject, found.max_messages_per_subject),
        duplicate_window: found.duplicate_window,
        ..next
    }
}
