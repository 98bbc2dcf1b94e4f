//! All callers' connections: who may have one, which make room, and which have been idle for too long.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::connection::{ConnectionActivity, ConnectionState};
use pushlet_api::{Peer, Refusal};
use pushlet_settings::LimitsConfig;

/// Connections beyond the limit. They get an answer, which is 503 but for the health checks.
const SPARE: usize = 64;
/// How long a connection without a request that was let in is kept between requests.
const STRANGER_IDLE: Duration = Duration::from_secs(10);
/// How long a caller has to close an idle connection after it was asked to.
const CLOSE_TIME: Duration = Duration::from_secs(5);

pub struct ConnectionTable {
    most: usize,
    per_address: usize,
    keep_alive: Duration,
    header_timeout: Duration,
    stranger_idle: Duration,
    table: Mutex<ConnectionEntries>,
}

#[derive(Default)]
struct ConnectionEntries {
    /// In the order in which they were accepted.
    entries: BTreeMap<u64, ConnectionEntry>,
    next: u64,
    served: usize,
    spare: usize,
    by_address: HashMap<IpAddr, usize>,
}

struct ConnectionEntry {
    connection: Arc<ConnectionState>,
    /// None: it is being started.
    task: Option<AbortHandle>,
    place: ConnectionPlace,
    /// What it is counted as among those of one address.
    address: Option<IpAddr>,
    /// What it did at the last look, and since when it has done nothing else.
    seen: ConnectionActivity,
    since: Instant,
    /// Requests between the sweep at `since` and the one before.
    requests: u32,
    told_to_close: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ConnectionPlace {
    Served,
    /// Beyond the limit.
    Spare,
    /// It made room for another, and is not counted any more.
    Gone,
}

/// In which order connections make room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Eviction {
    /// Its caller was answered, and not let in.
    Answered,
    /// Nobody knows yet whether its caller may call.
    Stranger,
    Caller,
}

/// A place in the table, for as long as this lives.
pub struct AdmittedConnection {
    pub connection: Arc<ConnectionState>,
    /// What its requests are answered, if it is beyond a limit.
    pub refusal: Option<Refusal>,
    id: u64,
    all: Arc<ConnectionTable>,
}

impl ConnectionTable {
    pub fn new(limits: &LimitsConfig) -> Arc<Self> {
        Arc::new(Self {
            most: limits.connections,
            per_address: limits.connections_per_address,
            keep_alive: limits.keep_alive,
            header_timeout: limits.header_timeout,
            stranger_idle: STRANGER_IDLE.min(limits.header_timeout).min(limits.keep_alive),
            table: Mutex::default(),
        })
    }

    /// Takes a connection on. Where there are too many, one that is idle makes room for it; where none is idle, it
    /// gets nothing but refusals.
    pub fn admit(self: &Arc<Self>, peer: Peer) -> AdmittedConnection {
        let address = peer.counted_as();
        let connection = Arc::new(ConnectionState::new(Arc::new(peer)));
        let mut table = self.table();
        let refusal = self.make_room(&mut table, address);
        let place = if refusal.is_some() { ConnectionPlace::Spare } else { ConnectionPlace::Served };
        let id = table.next;
        table.next += 1;
        let seen = connection.activity();
        let (task, since, requests, told_to_close) = (None, Instant::now(), 0, None);
        let entry = ConnectionEntry {
            connection: connection.clone(),
            task,
            place,
            address,
            seen,
            since,
            requests,
            told_to_close,
        };
        table.insert(id, entry);
        drop(table);
        AdmittedConnection { connection, refusal, id, all: self.clone() }
    }

    /// Tells which task serves the connection.
    pub fn started(&self, id: u64, task: AbortHandle) {
        // It may have ended already.
        if let Some(entry) = self.table().entries.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// Closes each as soon as it has no request in flight.
    pub fn close(&self) {
        let now = Instant::now();
        self.table().entries.values_mut().for_each(|entry| entry.close(now));
    }

    /// Closes each HTTP/2 connection as soon as it has no request in flight: its caller goes on with another one.
    pub fn close_http2(&self) {
        let now = Instant::now();
        let mut table = self.table();
        let http2 = table.entries.values_mut().filter(|entry| entry.connection.activity().is_http2);
        http2.for_each(|entry| entry.close(now));
    }

    /// Closes idle connections, in a loop that never ends.
    pub async fn watch(&self) {
        let least = self.stranger_idle / 4;
        let mut ticks = interval(least.clamp(Duration::from_millis(10), Duration::from_secs(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sweep(Instant::now());
        }
    }

    fn sweep(&self, now: Instant) {
        for entry in self.table().entries.values_mut() {
            let activity = entry.connection.activity();
            if activity != entry.seen {
                entry.requests = activity.requests_since(entry.seen);
                entry.seen = activity;
                entry.since = now;
            }
            if activity.in_flight() {
                continue;
            }
            if let Some(told) = entry.told_to_close {
                if now >= told.max(entry.since) + CLOSE_TIME {
                    entry.abort();
                }
            } else if activity.head {
                if now >= entry.since + self.header_timeout {
                    entry.abort();
                }
            } else if now >= entry.since + self.idle_limit(entry) {
                entry.close(now);
            }
        }
    }

    fn idle_limit(&self, entry: &ConnectionEntry) -> Duration {
        if entry.connection.peer.is_authenticated() {
            self.keep_alive
        } else if entry.seen.is_fresh() && !entry.seen.is_http2 {
            self.header_timeout
        } else {
            self.stranger_idle
        }
    }

    /// Makes room for a connection, or returns why there is none.
    fn make_room(&self, table: &mut ConnectionEntries, address: Option<IpAddr>) -> Option<Refusal> {
        let of_address = address.and_then(|address| table.by_address.get(&address)).copied().unwrap_or(0);
        if of_address >= self.per_address && !table.evict(|entry| entry.address == address) {
            return Some(Refusal::TooManyFromThisAddress);
        }
        if table.served >= self.most && !table.evict(|_| true) {
            return Some(Refusal::TooManyConnections);
        }
        None
    }

    fn table(&self) -> MutexGuard<'_, ConnectionEntries> {
        self.table.lock()
    }
}

impl ConnectionEntries {
    fn insert(&mut self, id: u64, entry: ConnectionEntry) {
        match entry.place {
            ConnectionPlace::Served => {
                self.served += 1;
                if let Some(address) = entry.address {
                    *self.by_address.entry(address).or_insert(0) += 1;
                }
            }
            ConnectionPlace::Spare => {
                if self.spare >= SPARE {
                    self.evict_spare();
                }
                self.spare += 1;
            }
            ConnectionPlace::Gone => {}
        }
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: u64) {
        if let Some(entry) = self.entries.remove(&id) {
            self.release(entry.place, entry.address);
        }
    }

    fn release(&mut self, place: ConnectionPlace, address: Option<IpAddr>) {
        match place {
            ConnectionPlace::Served => {
                self.served -= 1;
                if let Some(address) = address
                    && let Some(count) = self.by_address.get_mut(&address)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.by_address.remove(&address);
                    }
                }
            }
            ConnectionPlace::Spare => self.spare -= 1,
            ConnectionPlace::Gone => {}
        }
    }

    /// Ends one of those that are served and may make room: first one that never showed that he may call, and of them
    /// one that has its answer; of the others the oldest, whatever it does. Then the one that has been idle longest.
    fn evict(&mut self, may: impl Fn(&ConnectionEntry) -> bool) -> bool {
        let now = Instant::now();
        let served =
            self.entries.iter().filter(|(_, entry)| entry.place == ConnectionPlace::Served && may(entry));
        let candidates = served.filter_map(|(id, entry)| {
            let activity = entry.connection.activity();
            match (entry.connection.peer.is_authenticated(), activity.in_flight()) {
                (true, true) => None,
                (true, false) => Some(((Eviction::Caller, Some(entry.last_use(now))), *id)),
                (false, false) if !activity.is_fresh() => Some(((Eviction::Answered, None), *id)),
                (false, _) => Some(((Eviction::Stranger, None), *id)),
            }
        });
        let Some((_, id)) = candidates.min() else { return false };
        self.end(id);
        true
    }

    fn evict_spare(&mut self) {
        let oldest =
            self.entries.iter().find(|(_, entry)| entry.place == ConnectionPlace::Spare).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.end(id);
        }
    }

    fn end(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (place, address) = (std::mem::replace(&mut entry.place, ConnectionPlace::Gone), entry.address);
        if entry.connection.peer.is_authenticated() {
            // It may be sending a request just now, which is answered then.
            entry.close(Instant::now());
        } else {
            entry.abort();
        }
        self.release(place, address);
    }
}

impl ConnectionEntry {
    /// Orders connections without a request by their last use. Sweeps may be far apart: of those that were last used
    /// between the same two sweeps, the busiest counts as used last.
    fn last_use(&self, now: Instant) -> (Instant, u32) {
        let activity = self.connection.activity();
        if activity == self.seen {
            (self.since, self.requests)
        } else {
            (now, activity.requests_since(self.seen))
        }
    }

    fn close(&mut self, now: Instant) {
        self.told_to_close.get_or_insert(now);
        self.connection.close();
    }

    fn abort(&mut self) {
        match &self.task {
            Some(task) => task.abort(),
            None => self.connection.close(),
        }
    }
}

impl AdmittedConnection {
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        self.all.table().remove(self.id);
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
