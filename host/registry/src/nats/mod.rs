//! The registry of a fleet, in NATS JetStream: every node has a mirror of all records, and follows their changes.
//!
//! - Reads are the mirror's. It is a file where there is `data_dir`, so a node starts, and sends, without NATS.
//! - A batch of changes is one atomic publish, each message under the condition that the record is still the one that
//!   this node knows. It is acknowledged by a majority of the replicas, and waits until the mirror has it.
//! - Component files are in an object store; their records have the digest, which is checked after reading.
//! - What comes with sends is no record: [`Fleet`] has the reports of dead tokens, the answers by `Idempotency-Key`, the
//!   counters of exact limits, which components are quarantined, and which nodes there are; [`DeliveryQueue`] has the work
//!   that outlives its callers.

mod answers;
mod blobs;
mod connection;
mod feedback;
mod fleet;
mod leases;
mod mirror;
mod quarantine;
mod queue;
mod streams;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use tokio::sync::watch;

use super::record::{ChangeLog, Revision};
use super::storage::{RecordKey, Storage, StorageChange, StorageError, Table};
use connection::{NatsConnection, Outgoing, unreachable};
use mirror::{Known, Mirror};

pub use answers::{Claim, ClaimedKey};
pub use connection::{NatsLogin, NatsSettings};
pub use fleet::{Fleet, FleetSettings, NodeView};
pub use leases::{Lease, LeaseCounter};
pub use quarantine::SharedQuarantine;
pub use queue::{DeliveryQueue, PartSource, QueuedPart, StoredDelivery};

/// How long a start waits for NATS, if there is a snapshot to start from and if there is none.
const START: Duration = Duration::from_secs(3);
const FIRST_START: Duration = Duration::from_secs(30);
/// How long the answer of the leader is waited for.
const LOOK_UP: Duration = Duration::from_secs(2);
/// How long a record is waited for that others have already.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two questions for the stream's leader.
const PAUSE: Duration = Duration::from_millis(100);
/// Messages of an atomic batch; NATS takes no more.
const MOST_TOGETHER: usize = 1000;
/// A component file that is larger cannot be one of ours.
const LARGEST_BLOB: u64 = 1 << 30;

/// The registry of a fleet.
pub struct NatsStorage {
    connection: Arc<NatsConnection>,
    mirror: Arc<Mirror>,
}

impl NatsStorage {
    /// Connects to the registry of a fleet. `snapshot`: where this node keeps what it knows. Without a snapshot of an
    /// earlier run, an error says that NATS cannot be reached. Blocks.
    pub fn open(settings: &NatsSettings, snapshot: Box<dyn Storage>) -> Result<Self, StorageError> {
        let mirror = Arc::new(Mirror::open(snapshot)?);
        let connection = Arc::new(NatsConnection::open(settings)?);
        let (caught_up, mut is_caught_up) = watch::channel(false);
        connection.spawn(mirror::follow(connection.clone(), mirror.clone(), caught_up));
        let known = mirror.position()?.sequence > 0;
        let limit = if known { START } else { FIRST_START };
        let leader = connection.clone();
        let wait = connection.wait(limit, async move {
            is_caught_up.wait_for(|caught_up| *caught_up).await.map_err(unreachable)?;
            // A stream that was created a moment ago may have no leader yet, and takes no message until then.
            while !known && leader.has_no_leader().await {
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        });
        match wait {
            Ok(()) => {}
            Err(error) if known => {
                tracing::warn!(%error, "this node starts with what it knew when it ended");
            }
            Err(error) => return Err(error),
        }
        Ok(Self { connection, mirror })
    }

    /// Returns what the nodes of the fleet share apart from records, and begins to take part in it.
    pub fn fleet(&self, settings: FleetSettings) -> Fleet {
        Fleet::join(self.connection.clone(), settings)
    }

    /// Returns the messages that make the changes, and notes the files that are not needed afterwards.
    fn messages(
        &self,
        changes: &[StorageChange],
        files: &mut Vec<String>,
    ) -> Result<Vec<(Table, RecordKey, Outgoing)>, StorageError> {
        let mut batch = Batch::default();
        for change in changes {
            match change {
                StorageChange::Put(table, key, value) => {
                    batch.add(*table, key, self.put(*table, key, value, None)?);
                }
                StorageChange::Replace { table, key, expected, value } => {
                    let known = self.mirror.known(*table, key)?;
                    let found = known.as_ref().and_then(|known| known.value.as_ref());
                    if found != expected.as_ref() {
                        return Err(StorageError::Conflict);
                    }
                    // A deleted record has a last message too.
                    let sequence = known.map_or(0, |known| known.sequence);
                    batch.add(*table, key, self.put(*table, key, value, Some(sequence))?);
                }
                StorageChange::Delete(table, key) => self.delete(*table, key, &mut batch, files)?,
                StorageChange::DeleteAll(table, prefix) => {
                    batch.forget_all(*table, prefix);
                    for (key, _) in self.mirror.scan(*table, prefix)? {
                        self.delete(*table, &key, &mut batch, files)?;
                    }
                }
            }
        }
        batch.into_messages()
    }

    fn put(
        &self,
        table: Table,
        key: &RecordKey,
        value: &[u8],
        expected: Option<u64>,
    ) -> Result<Outgoing, StorageError> {
        let subject =
            subject::subject(table, key).ok_or_else(|| StorageError::Corrupt("a key has no parts".into()))?;
        let payload = match table {
            Table::Components => {
                // Before the record that names it.
                self.connection.put_blob(blob_name(key), value.to_vec())?;
                self.mirror.keep_blob(key, value)?;
                Bytes::copy_from_slice(digest(&SHA256, value).as_ref())
            }
            _ => Bytes::copy_from_slice(value),
        };
        Ok(Outgoing { subject, payload, expected, deletes: false })
    }

    /// Publishes one batch, and waits until this node has it too.
    fn publish(&self, batch: Vec<(Table, RecordKey, Outgoing)>) -> Result<(), StorageError> {
        let count = batch.len() as u64;
        let values = batch.iter().map(|(table, key, message)| {
            (*table, key.clone(), (!message.deletes).then(|| message.payload.to_vec()))
        });
        let values: Vec<_> = values.collect();
        let last = self.connection.publish(batch.into_iter().map(|(.., message)| message).collect())?;
        if self.mirror.log.wait_until(Revision(last), SETTLE) {
            return Ok(());
        }
        // As after an election: the messages come later. A batch is stored in one piece.
        let first = last.saturating_sub(count) + 1;
        let records = (first..)
            .zip(values)
            .map(|(sequence, (table, key, value))| (table, key, Known { sequence, value }));
        self.mirror.anticipate(&records.collect::<Vec<_>>())
    }

    /// Deletes a record, if there is one.
    fn delete(
        &self,
        table: Table,
        key: &RecordKey,
        batch: &mut Batch,
        files: &mut Vec<String>,
    ) -> Result<(), StorageError> {
        batch.forget(table, key);
        let known = self.mirror.known(table, key)?;
        let is_there = known.is_some_and(|known| known.value.is_some());
        if let Some(subject) = subject::subject(table, key).filter(|_| is_there) {
            files.extend((table == Table::Components).then(|| blob_name(key)));
            let message = Outgoing { subject, payload: Bytes::new(), expected: None, deletes: true };
            batch.add(table, key, message);
        }
        Ok(())
    }

    /// Returns a component file, from this node's copy or from the fleet.
    fn component(&self, key: &RecordKey, known: &[u8]) -> Result<Vec<u8>, StorageError> {
        let is_right = |bytes: &Vec<u8>| digest(&SHA256, bytes).as_ref() == known;
        if let Some(bytes) = self.mirror.blob(key)?.filter(is_right) {
            return Ok(bytes);
        }
        let fetched = self.connection.blob(blob_name(key), LARGEST_BLOB)?;
        let bytes = fetched.ok_or_else(|| unreachable("a component file is not there yet"))?;
        if !is_right(&bytes) {
            return Err(StorageError::Corrupt("a component is not what was uploaded".into()));
        }
        self.mirror.keep_blob(key, &bytes)?;
        Ok(bytes)
    }
}

/// The messages of a batch: one for each record, the last change of it.
#[derive(Default)]
struct Batch(Vec<(Table, RecordKey, Outgoing)>);

impl Batch {
    fn add(&mut self, table: Table, key: &RecordKey, message: Outgoing) {
        self.forget(table, key);
        self.0.push((table, key.clone(), message));
    }

    fn forget(&mut self, table: Table, key: &RecordKey) {
        self.0.retain(|(of, other, _)| *of != table || other != key);
    }

    fn forget_all(&mut self, table: Table, prefix: &RecordKey) {
        self.0.retain(|(of, key, _)| *of != table || !key.as_bytes().starts_with(prefix.as_bytes()));
    }

    fn into_messages(mut self) -> Result<Vec<(Table, RecordKey, Outgoing)>, StorageError> {
        if self.0.len() > MOST_TOGETHER {
            if self.0.iter().any(|(.., message)| !message.deletes) {
                return Err(StorageError::TooLarge(format!(
                    "it takes more than {MOST_TOGETHER} records at once"
                )));
            }
            // A tenant with so many applications goes in several batches; itself last, for what is left is its own.
            self.0.sort_by_key(|(table, ..)| *table == Table::Tenants);
        }
        Ok(self.0)
    }
}

impl Storage for NatsStorage {
    fn get(&self, table: Table, key: &RecordKey) -> Result<Option<Vec<u8>>, StorageError> {
        if !table.is_logged() {
            return self.mirror.local().get(table, key);
        }
        let Some(Known { value: Some(value), .. }) = self.mirror.known(table, key)? else { return Ok(None) };
        match table {
            Table::Components => self.component(key, &value).map(Some),
            _ => Ok(Some(value)),
        }
    }

    fn scan(&self, table: Table, prefix: &RecordKey) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError> {
        if !table.is_logged() {
            return self.mirror.local().scan(table, prefix);
        }
        self.mirror.scan(table, prefix)
    }

    fn commit(&self, changes: &[StorageChange]) -> Result<(), StorageError> {
        let (shared, local): (Vec<_>, Vec<_>) =
            changes.iter().cloned().partition(|change| change.table().is_logged());
        if !local.is_empty() {
            self.mirror.local().commit(&local)?;
        }
        let mut files = Vec::new();
        let mut messages = self.messages(&shared, &mut files)?.into_iter();
        loop {
            let batch: Vec<_> = messages.by_ref().take(MOST_TOGETHER).collect();
            if batch.is_empty() {
                break;
            }
            self.publish(batch)?;
        }
        files.into_iter().for_each(|name| self.connection.remove_blob(name));
        Ok(())
    }

    fn log(&self) -> &ChangeLog {
        &self.mirror.log
    }

    fn is_shared(&self) -> bool {
        true
    }

    /// Reads the record from the leader, and waits until this node has it too.
    fn look_up(&self, table: Table, key: &RecordKey) -> Result<bool, StorageError> {
        let Some(subject) = subject::subject(table, key) else { return Ok(false) };
        let connection = self.connection.clone();
        let last = async move { connection.last(subject::STREAM, &subject).await };
        match self.connection.wait(LOOK_UP, last)? {
            Some((sequence, Some(value))) => {
                if !self.mirror.log.wait_until(Revision(sequence), SETTLE) {
                    let known = Known { sequence, value: Some(value.to_vec()) };
                    self.mirror.anticipate(&[(table, key.clone(), known)])?;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Publishes a message that is no record: only a majority of the replicas can acknowledge it.
    fn check(&self) -> Result<(), StorageError> {
        self.mirror.local().check()?;
        let subject = subject::PROBE.to_owned();
        let probe = Outgoing { subject, payload: Bytes::new(), expected: None, deletes: false };
        self.connection.publish(vec![probe]).map(drop)
    }

    fn is_durable(&self) -> bool {
        self.mirror.is_durable()
    }
}

/// Returns the name of a component file: its digest, and what it is the file of. So no two records share a file, and
/// the removal of one takes nothing from another.
fn blob_name(key: &RecordKey) -> String {
    let content = key.parts::<3>().map(|[_, _, digest]| digest).unwrap_or_default();
    format!("{content}-{}", hex::encode(digest(&SHA256, key.as_bytes())))
}

#[cfg(test)]
mod tests;
