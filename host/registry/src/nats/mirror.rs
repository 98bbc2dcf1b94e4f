//! What this node knows of the fleet's registry: every record with the sequence of its last message, in memory or in a
//! file. It is read instead of NATS, so that sends never wait for it and a start does not need it. It follows the stream of
//! records for as long as the storage exists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind, Stream};
use futures_util::StreamExt as _;
use tokio::sync::watch;

use super::connection::{NatsConnection, is_deleted, unreachable};
use super::subject;
use crate::format::HASH_KEY;
use crate::record::{ChangeLog, Revision};
use crate::storage::{RecordKey, Storage, StorageChange, StorageError, Table, cut_off};

/// A record, or what is left of one that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Of its last message.
    pub sequence: u64,
    /// None: it was deleted.
    pub value: Option<Vec<u8>>,
}

/// How far the mirror has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// When the stream was created, in nanoseconds since the Unix epoch: its name may be used again. 0: nothing is
    /// known yet.
    pub stream: i128,
    /// Of the last message.
    pub sequence: u64,
}

pub(super) struct Mirror {
    storage: Box<dyn Storage>,
    pub log: ChangeLog,
}

/// Messages that are taken on together.
const MOST_TOGETHER: usize = 256;
const PAUSE: Duration = Duration::from_secs(1);

const DELETED: u8 = 0;
const THERE: u8 = 1;

impl Mirror {
    pub fn open(storage: Box<dyn Storage>) -> Result<Self, StorageError> {
        let mirror = Self { storage, log: ChangeLog::default() };
        mirror.log.restart(Revision(mirror.position()?.sequence));
        Ok(mirror)
    }

    pub fn is_durable(&self) -> bool {
        self.storage.is_durable()
    }

    pub fn position(&self) -> Result<Position, StorageError> {
        let Some(bytes) = self.storage.get(Table::Meta, &position_key())? else {
            return Ok(Position::default());
        };
        let read = || {
            let (stream, rest) = bytes.split_first_chunk()?;
            let sequence = rest.try_into().ok()?;
            Some(Position { stream: i128::from_be_bytes(*stream), sequence: u64::from_be_bytes(sequence) })
        };
        read().ok_or_else(|| cut_off("the position of the snapshot"))
    }

    /// Returns a record with its sequence; None: there never was one.
    pub fn known(&self, table: Table, key: &RecordKey) -> Result<Option<Known>, StorageError> {
        let stored = self.storage.get(table, key)?;
        stored.map(|bytes| Known::read(&bytes).ok_or_else(|| cut_off("a record of the snapshot"))).transpose()
    }

    /// Returns all records, without those that were deleted.
    pub fn scan(&self, table: Table, prefix: &RecordKey) -> Result<Vec<(RecordKey, Vec<u8>)>, StorageError> {
        let mut found = Vec::new();
        for (key, bytes) in self.storage.scan(table, prefix)? {
            if key == position_key() || is_blob(&key) {
                continue;
            }
            let known = Known::read(&bytes).ok_or_else(|| cut_off("a record of the snapshot"))?;
            found.extend(known.value.map(|value| (key, value)));
        }
        Ok(found)
    }

    /// Takes on what messages say, in their order, and the position after them.
    pub fn apply(
        &self,
        records: Vec<(Table, RecordKey, Known)>,
        position: Position,
    ) -> Result<(), StorageError> {
        let mut changes = self.newer(&records)?;
        changes.push(StorageChange::Put(Table::Meta, position_key(), position.written()));
        self.storage.commit(&changes)?;
        let keys = records.into_iter().map(|(table, key, _)| (table, key));
        self.log.append_as(Revision(position.sequence), keys);
        Ok(())
    }

    /// Takes on records of this node's own making before their messages come, which may be behind others.
    pub fn anticipate(&self, records: &[(Table, RecordKey, Known)]) -> Result<(), StorageError> {
        self.storage.commit(&self.newer(records)?)
    }

    /// Returns the changes that are newer than what is known.
    fn newer(&self, records: &[(Table, RecordKey, Known)]) -> Result<Vec<StorageChange>, StorageError> {
        let mut changes = Vec::with_capacity(records.len() + 1);
        for (table, key, new) in records {
            if self.known(*table, key)?.is_some_and(|known| known.sequence > new.sequence) {
                continue;
            }
            if *table == Table::Components && new.value.is_none() {
                changes.extend(blob_key(key).map(|blob| StorageChange::Delete(Table::Components, blob)));
            }
            changes.push(StorageChange::Put(*table, key.clone(), new.written()));
        }
        Ok(changes)
    }

    /// Ends a reading of everything: what was not seen is not there. Whoever follows the log reads everything again.
    pub fn complete(
        &self,
        seen: &BTreeSet<(Table, RecordKey)>,
        position: Position,
    ) -> Result<(), StorageError> {
        let mut changes = Vec::new();
        for table in Table::ALL.into_iter().filter(|table| table.is_logged()) {
            for (key, _) in self.storage.scan(table, &RecordKey::new(&[]))? {
                if key != position_key() && !is_blob(&key) && !seen.contains(&(table, key.clone())) {
                    changes.push(StorageChange::Delete(table, key));
                }
            }
        }
        changes.push(StorageChange::Put(Table::Meta, position_key(), position.written()));
        self.storage.commit(&changes)?;
        self.log.restart(Revision(position.sequence));
        Ok(())
    }

    /// Returns this node's copy of a component file.
    pub fn blob(&self, key: &RecordKey) -> Result<Option<Vec<u8>>, StorageError> {
        blob_key(key).map_or(Ok(None), |key| self.storage.get(Table::Components, &key))
    }

    pub fn keep_blob(&self, key: &RecordKey, bytes: &[u8]) -> Result<(), StorageError> {
        let Some(key) = blob_key(key) else { return Ok(()) };
        self.storage.commit(&[StorageChange::Put(Table::Components, key, bytes.to_vec())])
    }

    /// Records of this node alone.
    pub fn local(&self) -> &dyn Storage {
        &*self.storage
    }
}

impl Known {
    fn written(&self) -> Vec<u8> {
        let kind = if self.value.is_some() { THERE } else { DELETED };
        let value = self.value.as_deref().unwrap_or_default();
        [self.sequence.to_be_bytes().as_slice(), &[kind], value].concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk()?;
        let (kind, value) = rest.split_first()?;
        let value = match *kind {
            DELETED => None,
            THERE => Some(value.to_vec()),
            _ => return None,
        };
        Some(Self { sequence: u64::from_be_bytes(*sequence), value })
    }
}

impl Position {
    fn written(self) -> Vec<u8> {
        [self.stream.to_be_bytes().as_slice(), &self.sequence.to_be_bytes()].concat()
    }
}

/// No record of the registry has an empty first part.
fn position_key() -> RecordKey {
    RecordKey::new(&["", "position"])
}

const BLOB: [&str; 2] = ["", "blob"];

fn blob_key(key: &RecordKey) -> Option<RecordKey> {
    let [tenant, name, digest] = key.parts()?;
    Some(RecordKey::new(&[BLOB[0], BLOB[1], &tenant, &name, &digest]))
}

fn is_blob(key: &RecordKey) -> bool {
    key.as_bytes().starts_with(RecordKey::new(&BLOB).as_bytes())
}

/// Follows the stream. `caught_up` becomes true once the mirror has all that there was at the beginning.
pub(super) async fn follow(
    connection: Arc<NatsConnection>,
    mirror: Arc<Mirror>,
    caught_up: watch::Sender<bool>,
) {
    let connection = {
        let weak = Arc::downgrade(&connection);
        drop(connection);
        weak
    };
    let mut last = None;
    while let Some(connection) = connection.upgrade() {
        let (client, stream) = (connection.client().clone(), connection.records());
        drop(connection);
        let followed = Box::pin(follow_once(client, stream, &mirror, &caught_up)).await;
        let Err(error) = followed else { continue };
        // The same reason again is no news.
        let reason = error.to_string();
        if last.as_ref() != Some(&reason) {
            tracing::warn!(reason, "the registry cannot be followed now");
            last = Some(reason);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_once(
    client: async_nats::Client,
    stream: impl Future<Output = Result<Stream, StorageError>>,
    mirror: &Arc<Mirror>,
    caught_up: &watch::Sender<bool>,
) -> Result<(), StorageError> {
    let stream = stream.await?;
    let info = stream.get_info().await.map_err(unreachable)?;
    let mut reader = Reader::new(mirror.clone(), &info)?;
    if reader.seen.is_some() {
        refuse_another(&stream, mirror).await?;
    }
    let config = push::OrderedConfig {
        deliver_subject: client.new_inbox(),
        filter_subject: subject::SUBJECTS.to_owned(),
        deliver_policy: reader.policy(),
        ..push::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(unreachable)?;
    // On an empty stream no message says that this was all.
    let is_complete = consumer.cached_info().num_pending == 0;
    let messages = consumer.messages().await.map_err(unreachable)?;
    if is_complete {
        reader.complete(info.state.last_sequence).await?;
        caught_up.send_replace(true);
    }
    let mut messages = messages.ready_chunks(MOST_TOGETHER);
    while let Some(chunk) = messages.next().await {
        let chunk = chunk.into_iter().collect::<Result<Vec<_>, _>>().map_err(unreachable)?;
        if reader.take_on(&chunk).await? {
            caught_up.send_replace(true);
        }
    }
    Err(unreachable("the stream ended"))
}

/// An error if this node knows a registry, and the stream has none: after a loss of all servers' data, or in another
/// account. What this node knows may be the last copy, and is not thrown away for that.
async fn refuse_another(stream: &Stream, mirror: &Mirror) -> Result<(), StorageError> {
    let (table, key) = (Table::Meta, RecordKey::new(&[HASH_KEY]));
    if mirror.known(table, &key)?.is_none_or(|known| known.value.is_none()) {
        return Ok(());
    }
    let subject = subject::subject(table, &key).unwrap_or_default();
    match stream.get_last_raw_message_by_subject(&subject).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
            Err(StorageError::Corrupt("NATS has none, but this node knows one; restore NATS from a backup, or remove fleet.redb in data_dir to begin anew".into()))
        }
        Err(error) => Err(unreachable(error)),
    }
}

/// Takes on messages, from where the mirror is.
struct Reader {
    mirror: Arc<Mirror>,
    position: Position,
    /// The keys that were seen while everything is read. None: only what is new is read.
    seen: Option<BTreeSet<(Table, RecordKey)>>,
}

impl Reader {
    fn new(mirror: Arc<Mirror>, info: &Info) -> Result<Self, StorageError> {
        let (stream, known) = (info.created.unix_timestamp_nanos(), mirror.position()?);
        // A stream that was created anew, or restored from a copy, begins from its own beginning.
        let goes_on = known.stream == stream && known.sequence <= info.state.last_sequence;
        let sequence = if goes_on { known.sequence } else { 0 };
        let seen = (!goes_on).then(BTreeSet::new);
        Ok(Self { mirror, position: Position { stream, sequence }, seen })
    }

    fn policy(&self) -> DeliverPolicy {
        match self.seen {
            Some(_) => DeliverPolicy::LastPerSubject,
            None => DeliverPolicy::ByStartSequence { start_sequence: self.position.sequence + 1 },
        }
    }

    /// Takes on messages. Returns true if they were the last ones for now.
    async fn take_on(&mut self, messages: &[Message]) -> Result<bool, StorageError> {
        let (mut records, mut pending) = (Vec::new(), u64::MAX);
        for message in messages {
            let info = message.info().map_err(unreachable)?;
            self.position.sequence = info.stream_sequence;
            pending = info.pending;
            let Some((table, key)) = subject::record(&message.subject) else { continue };
            let deleted = message.headers.as_ref().is_some_and(is_deleted);
            let value = (!deleted).then(|| message.payload.to_vec());
            if let Some(seen) = &mut self.seen {
                seen.insert((table, key.clone()));
            }
            records.push((table, key, Known { sequence: info.stream_sequence, value }));
        }
        // A snapshot that is half of an old stream and half of a new one must not claim to be the new one.
        let position = if self.seen.is_some() { Position::default() } else { self.position };
        let mirror = self.mirror.clone();
        blocking(move || mirror.apply(records, position)).await?;
        if pending == 0 {
            self.complete(self.position.sequence).await?;
        }
        Ok(pending == 0)
    }

    /// Ends the reading of everything, if that is what it was.
    async fn complete(&mut self, sequence: u64) -> Result<(), StorageError> {
        self.position.sequence = self.position.sequence.max(sequence);
        let (mirror, position) = (self.mirror.clone(), self.position);
        match self.seen.take() {
            Some(seen) => blocking(move || mirror.complete(&seen, position)).await,
            None => Ok(()),
        }
    }
}

/// The mirror may be a file.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(StorageError::Io(error.to_string())))
}
