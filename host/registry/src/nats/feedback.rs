//! Reports of dead tokens, of all nodes: a log per application. Reports are sent soon, and in order; reading begins at a
//! cursor, the sequence of a report.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{Message, stream};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::TryStreamExt as _;

use super::connection::{Outgoing, unreachable};
use super::fleet::{Fleet, FleetState, Report, WaitingReports};
use crate::feedback::{DeadToken, FeedbackPage};
use crate::storage::{StorageError, unix_milliseconds};
use pushlet_model::tenant::TenantId;

const STREAM: &str = "pushlet_feedback";
const PREFIX: &str = "pushlet.feedback.";
/// Bytes of reports that wait for NATS; further ones are lost, which the responses to their sends have told already.
const MOST_WAITING: usize = 16 << 20;
/// Bytes that a report takes in addition to its text.
const OVERHEAD: usize = 64;
/// Reports that are sent, or read, at the same time.
const TOGETHER: usize = 256;
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait for those that are read together.
const READ: Duration = Duration::from_secs(5);

impl Fleet {
    /// Adds a report, soon.
    pub fn report(&self, tenant: &TenantId, application: &str, device_token: &str, since: SystemTime) {
        let queue = &self.0.feedback;
        let text = format!("{} {device_token}", unix_milliseconds(since)).into_bytes();
        let report = Report { subject: subject(tenant, application), text };
        let mut waiting = queue.waiting.lock();
        if waiting.bytes + report.size() <= MOST_WAITING {
            waiting.bytes += report.size();
            waiting.reports.push_back(report);
            drop(waiting);
            queue.more.notify_one();
        }
    }

    /// Returns the dead tokens that were reported after a cursor.
    pub async fn feedback(
        &self,
        tenant: &TenantId,
        application: &str,
        after: u64,
    ) -> Result<FeedbackPage, StorageError> {
        let reports = Box::pin(self.read_log(&subject(tenant, application), after)).await?;
        let cursor = reports.last().map_or(after, |(sequence, _)| *sequence);
        Ok(FeedbackPage { tokens: each_once(reports.into_iter().map(|(_, dead)| dead)), cursor })
    }

    /// Drops the reports up to a cursor, inclusive.
    pub async fn drop_feedback(
        &self,
        tenant: &TenantId,
        application: &str,
        until: u64,
    ) -> Result<(), StorageError> {
        self.purge(subject(tenant, application), Some(until)).await.map(drop)
    }

    /// Returns all dead tokens, and drops them: each report goes to one caller, however many nodes are asked.
    pub async fn take_feedback(
        &self,
        tenant: &TenantId,
        application: &str,
    ) -> Result<Vec<DeadToken>, StorageError> {
        let subject = subject(tenant, application);
        let reports = Box::pin(self.read_log(&subject, 0)).await?;
        let Some((last, _)) = reports.last() else { return Ok(Vec::new()) };
        let purged = self.purge(subject, Some(*last)).await?;
        // Reports go from the oldest on: what another caller was faster with is the beginning.
        let own = reports.len().saturating_sub(purged);
        Ok(each_once(reports.into_iter().skip(own).map(|(_, dead)| dead)))
    }

    /// Drops all reports of an application, or of all of a tenant's.
    async fn forget_feedback(
        &self,
        tenant: &TenantId,
        application: Option<&str>,
    ) -> Result<(), StorageError> {
        let subject = match application {
            Some(application) => subject(tenant, application),
            None => format!("{PREFIX}{}.>", URL_SAFE_NO_PAD.encode(tenant.as_str())),
        };
        self.purge(subject, None).await.map(drop)
    }

    /// The same, soon.
    pub(crate) fn forget_feedback_later(&self, tenant: &TenantId, application: Option<&str>) {
        let (fleet, tenant, application) = (self.clone(), tenant.clone(), application.map(str::to_owned));
        self.0.connection.spawn(async move {
            if let Err(error) = fleet.forget_feedback(&tenant, application.as_deref()).await {
                tracing::warn!(%tenant, %error, "reports of a removed application stay until there are newer ones");
            }
        });
    }

    pub(super) fn begin_to_report(&self) {
        self.0.connection.spawn(send_reports(Arc::downgrade(&self.0)));
    }

    /// Returns the reports after a sequence, with theirs.
    async fn read_log(&self, subject: &str, after: u64) -> Result<Vec<(u64, DeadToken)>, StorageError> {
        let connection = &self.0.connection;
        connection.check()?;
        let stream = connection.stream(config(self.0.settings.feedback)).await?;
        let consumer = stream.create_consumer(reader(subject, after)).await.map_err(unreachable)?;
        let mut reports = Vec::new();
        let mut delivered = 0;
        let mut is_last = false;
        while !is_last {
            let messages = fetch(&consumer).await?;
            // Another caller may drop what is read here: fewer than were asked for are all that there are.
            is_last = messages.len() < TOGETHER || reports.len() >= self.0.settings.feedback;
            for message in messages {
                let info = message.info().map_err(unreachable)?;
                delivered += 1;
                if info.consumer_sequence != delivered {
                    return Err(unreachable("a report was lost on its way"));
                }
                reports.extend(DeadToken::read(&message.payload).map(|dead| (info.stream_sequence, dead)));
            }
        }
        // NATS would remove it after a while.
        let _ = stream.delete_consumer(&consumer.cached_info().name).await;
        Ok(reports)
    }

    /// Removes the messages of a subject, up to a sequence if one is given. Returns how many there were.
    async fn purge(&self, subject: String, until: Option<u64>) -> Result<usize, StorageError> {
        let connection = &self.0.connection;
        connection.check()?;
        let stream = connection.stream(config(self.0.settings.feedback)).await?;
        let purge = stream.purge().filter(subject);
        let purged = match until {
            Some(until) => purge.sequence(until.saturating_add(1)).await,
            None => purge.await,
        };
        let purged = purged.map_err(unreachable)?.purged;
        Ok(usize::try_from(purged).unwrap_or(usize::MAX))
    }
}

/// Sends what waits, for as long as the fleet exists. What could not be sent is sent again, before all that is newer.
async fn send_reports(state: Weak<FleetState>) {
    loop {
        let batch = {
            let Some(state) = state.upgrade() else { return };
            state.feedback.waiting.lock().take(TOGETHER)
        };
        let Some(state) = state.upgrade() else { return };
        if batch.is_empty() {
            // Looks up again now and then, so that a fleet that is dropped is not waited for.
            let _ = tokio::time::timeout(PAUSE, state.feedback.more.notified()).await;
            continue;
        }
        let failed = send_together(&state, batch).await;
        if failed.is_empty() {
            continue;
        }
        state.feedback.waiting.lock().put_back(failed);
        drop(state);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns the reports that were not acknowledged.
async fn send_together(state: &FleetState, batch: Vec<Report>) -> Vec<Report> {
    if let Err(error) = state.connection.stream(config(state.settings.feedback)).await {
        tracing::debug!(%error, "reports of dead tokens wait");
        return batch;
    }
    let sends = batch.into_iter().map(async |report| {
        let (subject, payload) = (report.subject.clone(), report.text.clone().into());
        let message = Outgoing { subject, payload, expected: None, deletes: false };
        state.connection.store(vec![message]).await.err().map(|_| report)
    });
    // In order: they are written to the connection one after the other.
    futures_util::future::join_all(sends).await.into_iter().flatten().collect()
}

impl Report {
    fn size(&self) -> usize {
        self.subject.len() + self.text.len() + OVERHEAD
    }
}

impl WaitingReports {
    fn take(&mut self, count: usize) -> Vec<Report> {
        let taken: Vec<_> = self.reports.drain(..self.reports.len().min(count)).collect();
        self.bytes -= taken.iter().map(Report::size).sum::<usize>();
        taken
    }

    /// Puts reports before all others.
    fn put_back(&mut self, reports: Vec<Report>) {
        self.bytes += reports.iter().map(Report::size).sum::<usize>();
        reports.into_iter().rev().for_each(|report| self.reports.push_front(report));
    }
}

/// Returns each token once, where it was reported last.
fn each_once(reports: impl Iterator<Item = DeadToken>) -> Vec<DeadToken> {
    let all: Vec<_> = reports.collect();
    let last: HashMap<&str, usize> =
        all.iter().enumerate().map(|(number, dead)| (dead.device_token.as_str(), number)).collect();
    let is_last = |number: usize, dead: &DeadToken| last.get(dead.device_token.as_str()) == Some(&number);
    all.iter()
        .enumerate()
        .filter(|(number, dead)| is_last(*number, dead))
        .map(|(_, dead)| dead.clone())
        .collect()
}

/// Reads a log from a cursor on, for itself alone.
fn reader(subject: &str, after: u64) -> pull::Config {
    pull::Config {
        filter_subject: subject.to_owned(),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1) },
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: 2 * READ,
        ..pull::Config::default()
    }
}

/// Returns what there is now.
async fn fetch(consumer: &PullConsumer) -> Result<Vec<Message>, StorageError> {
    let fetch = async {
        let messages = consumer.fetch().max_messages(TOGETHER).messages().await.map_err(unreachable)?;
        messages.try_collect().await.map_err(unreachable)
    };
    let fetched = tokio::time::timeout(READ, fetch).await;
    fetched.map_err(|_| unreachable("reports did not come"))?
}

fn subject(tenant: &TenantId, application: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{PREFIX}{}.{}", encode(tenant.as_str()), encode(application))
}

pub(super) fn config(most: usize) -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{PREFIX}>")],
        description: Some("Pushlet: dead tokens".to_owned()),
        max_messages_per_subject: i64::try_from(most).unwrap_or(i64::MAX),
        storage: stream::StorageType::File,
        ..stream::Config::default()
    }
}
