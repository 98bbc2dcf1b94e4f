//! The pool against a model of it: after any history, what it did must be allowed and nothing it should do
//! may be left undone.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

pub(super) const BOUNDS: PoolLimits = PoolLimits {
    connections: 2,
    streams: 3,
    crowded: 2,
    is_behind: |shard| shard == Shard::new(2),
    waiting: 4,
    probation: Duration::from_secs(1),
    idle: Duration::from_secs(50),
    backoff: BackoffPolicy { threshold: 3, base: Duration::from_secs(1), max: Duration::from_secs(8) },
};

#[derive(Debug, Clone)]
enum Event {
    /// A shard of this number wants a stream.
    Admit(u32),
    Withdraw(prop::sample::Index),
    Release(prop::sample::Index, bool),
    Opened(u32),
    OpenFailed(bool),
    Limit(prop::sample::Index, usize),
    Retire(prop::sample::Index),
    Suspect(prop::sample::Index),
    Trust(prop::sample::Index),
    Closed(prop::sample::Index, bool),
    Drain,
    /// Milliseconds pass.
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let which = any::<prop::sample::Index>;
    let shard = || 0..3_u32;
    prop_oneof![
        12 => shard().prop_map(Event::Admit),
        2 => which().prop_map(Event::Withdraw),
        8 => (which(), any::<bool>()).prop_map(|(which, answered)| Event::Release(which, answered)),
        5 => shard().prop_map(Event::Opened),
        2 => any::<bool>().prop_map(Event::OpenFailed),
        4 => (which(), 0usize..6).prop_map(|(which, limit)| Event::Limit(which, limit)),
        1 => which().prop_map(Event::Retire),
        1 => which().prop_map(Event::Suspect),
        1 => which().prop_map(Event::Trust),
        2 => (which(), any::<bool>()).prop_map(|(which, lasting)| Event::Closed(which, lasting)),
        1 => prop::bool::weighted(0.1).prop_map(|drain| if drain { Event::Drain } else { Event::Admit(0) }),
        6 => (0u64..3_000).prop_map(Event::Pass),
        1 => (0u64..100_000).prop_map(Event::Pass),
    ]
}

struct Http2Connection {
    shard: Shard,
    limit: usize,
    streams: usize,
    phase: ConnectionPhase,
    told: bool,
    finished: bool,
    answered: bool,
    idled: bool,
    opened_at: Instant,
    used_at: Instant,
}

/// The rules, written for clearness alone.
struct Model {
    now: Instant,
    queue: VecDeque<u32>,
    /// Whose the waiters are.
    shards: BTreeMap<u32, Shard>,
    /// The request before came from a shard without a connection, onto one that is busy.
    wants_own: bool,
    refused: VecDeque<u32>,
    connections: BTreeMap<ConnectionId, Http2Connection>,
    connecting: Option<ConnectionId>,
    /// Since an answer came.
    failures: u32,
    /// Since a new connection brought an answer.
    failed_connects: u32,
    retry_at: Instant,
    draining: bool,
}

impl Model {
    fn new(now: Instant) -> Self {
        let (queue, shards, wants_own, refused, connections) = Default::default();
        Model {
            now,
            queue,
            shards,
            wants_own,
            refused,
            connections,
            connecting: None,
            failures: 0,
            failed_connects: 0,
            retry_at: now,
            draining: false,
        }
    }

    fn open(&self) -> usize {
        self.connections.values().filter(|connection| connection.phase == ConnectionPhase::Open).count()
    }

    /// The connection that a request of the shard goes to.
    fn free(&self, shard: Shard) -> Option<ConnectionId> {
        let free = |c: &Http2Connection| c.phase == ConnectionPhase::Open && c.streams < c.limit;
        let mut free = self.connections.iter().filter(|(_, connection)| free(connection));
        let own = free.clone().find(|(_, connection)| connection.shard == shard);
        own.or_else(|| free.next()).map(|(id, _)| *id)
    }

    fn is_crowded_out(&self, shard: Shard) -> bool {
        let mut open = self.connections.values().filter(|c| c.phase == ConnectionPhase::Open);
        let is_busy = |c: &Http2Connection| c.streams >= BOUNDS.crowded || (BOUNDS.is_behind)(c.shard);
        !self.draining && open.all(|c| c.shard != shard && is_busy(c))
    }

    fn first_free(&self) -> Option<ConnectionId> {
        self.queue.front().and_then(|first| self.free(self.shards[first]))
    }

    fn take(&mut self, id: ConnectionId) {
        let connection = self.connections.get_mut(&id).unwrap();
        connection.streams += 1;
        connection.used_at = self.now;
    }

    fn fail(&mut self, lasting: bool) {
        self.failures += 1;
        self.failed_connects += 1;
        let pause = BOUNDS.backoff.base * (1 << (self.failed_connects - 1).min(10));
        self.retry_at = self.now + pause.min(BOUNDS.backoff.max);
        if self.open() == 0 && (lasting || self.failures >= BOUNDS.backoff.threshold) {
            self.refused.append(&mut self.queue);
        }
    }

    fn admission(&self, shard: Shard) -> &'static str {
        let down = self.open() == 0 && self.failures >= BOUNDS.backoff.threshold;
        let probing = self.connecting.is_some() || !self.queue.is_empty();
        match () {
            () if self.queue.is_empty() && self.free(shard).is_some() => "stream",
            () if down && (self.now < self.retry_at || probing) => "down",
            () if self.queue.len() == BOUNDS.waiting => "full",
            () => "wait",
        }
    }

    fn may_connect(&self) -> bool {
        let fresh = |c: &Http2Connection| {
            c.phase == ConnectionPhase::Open && !c.answered && self.now < c.opened_at + BOUNDS.probation
        };
        (!self.queue.is_empty() || self.wants_own)
            && self.connecting.is_none()
            && self.open() < BOUNDS.connections
            && self.connections.len() < 2 * BOUNDS.connections
            && (self.now >= self.retry_at || (self.open() == 0 && self.failures == 0))
            && !self.connections.values().any(fresh)
    }

    fn is_idle(&self, c: &Http2Connection) -> bool {
        let drained = self.draining && self.queue.is_empty();
        c.phase == ConnectionPhase::Open && c.streams == 0 && (drained || self.now >= c.used_at + BOUNDS.idle)
    }

    /// Applies what the pool decided, if the rules allow it.
    fn obey(&mut self, action: PoolAction<ConnectionId, u32>) {
        match action {
            PoolAction::Grant(waiter, id) => {
                let free = self.first_free();
                assert_eq!((self.queue.pop_front(), free), (Some(waiter), Some(id)));
                self.take(id);
            }
            PoolAction::Refuse(waiter, pause) => {
                assert_eq!(self.refused.pop_front(), Some(waiter));
                assert_eq!(pause, self.retry_at.saturating_duration_since(self.now));
            }
            PoolAction::Connect(id) => {
                assert!(self.may_connect(), "connects without need or leave");
                (self.connecting, self.wants_own) = (Some(id), false);
            }
            PoolAction::Retire(id) => {
                let idle = self.is_idle(&self.connections[&id]);
                let connection = self.connections.get_mut(&id).unwrap();
                assert!(idle || connection.phase == ConnectionPhase::Retired && !connection.told);
                connection.idled = connection.phase != ConnectionPhase::Retired;
                (connection.phase, connection.told) = (ConnectionPhase::Retired, true);
            }
            PoolAction::Finish(id) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                assert!(connection.told && connection.streams == 0 && !connection.finished);
                connection.finished = true;
            }
        }
    }

    fn assert_nothing_left(&self, wake_at: Option<Instant>) {
        assert!(self.refused.is_empty());
        assert!(self.queue.is_empty() || self.first_free().is_none(), "someone waits beside a free stream");
        assert!(!self.may_connect(), "a connection is wanted");
        for connection in self.connections.values() {
            assert!(!self.is_idle(connection));
            assert_eq!(connection.phase == ConnectionPhase::Retired, connection.told);
            assert_eq!(connection.told && connection.streams == 0, connection.finished);
        }
        assert!(wake_at.is_none_or(|at| at > self.now), "it would spin");
        let bounded = self.open() >= BOUNDS.connections || self.connections.len() == 2 * BOUNDS.connections;
        let waits = !self.queue.is_empty() && self.connecting.is_none() && !bounded;
        assert!(!waits || wake_at.is_some(), "those who wait are forgotten");
    }
}

struct Run {
    pool: PoolState<ConnectionId, u32>,
    model: Model,
    tickets: BTreeMap<u32, QueueTicket>,
    next: u32,
}

impl Run {
    fn new() -> Self {
        let model = Model::new(Instant::now());
        Run { pool: PoolState::new(BOUNDS), model, tickets: BTreeMap::new(), next: 0 }
    }

    fn apply(&mut self, event: Event) {
        self.model.wants_own = false;
        self.event(event);
        let now = self.model.now;
        for _ in 0..100 {
            let Some(action) = self.pool.next(now) else { break };
            self.model.obey(action);
        }
        assert_eq!(self.pool.next(now), None, "it never comes to rest");
        self.model.assert_nothing_left(self.pool.wake_at(now));
        let load = self.pool.load(now);
        let streams: usize = self.model.connections.values().map(|c| c.streams).sum();
        assert_eq!(
            (load.connections, load.streams, load.waiting),
            (self.model.connections.len(), streams, self.model.queue.len())
        );
    }

    fn event(&mut self, event: Event) {
        let now = self.model.now;
        match event {
            Event::Admit(shard) => self.admit(Shard::new(shard)),
            Event::Withdraw(which) if !self.model.queue.is_empty() => {
                let index = which.index(self.model.queue.len());
                let waiter = self.model.queue.remove(index).unwrap();
                assert!(self.pool.withdraw(self.tickets[&waiter]));
                assert!(!self.pool.withdraw(self.tickets[&waiter]));
            }
            Event::Release(which, answered) => self.release(which, answered),
            Event::Opened(shard) => {
                let Some(id) = self.model.connecting.take() else { return };
                let shard = Shard::new(shard);
                let (phase, told, finished, idled) = (ConnectionPhase::Open, false, false, false);
                let (limit, streams, answered, opened_at, used_at) = (1, 0, false, now, now);
                #[rustfmt::skip]
                let connection = Http2Connection { shard, limit, streams, phase, told, finished, answered, idled, opened_at, used_at };
                self.model.connections.insert(id, connection);
                self.pool.opened(now, shard, id, id);
            }
            Event::OpenFailed(lasting) => {
                if self.model.connecting.take().is_some() {
                    self.model.fail(lasting);
                    self.pool.open_failed(now, u32::MAX, lasting);
                }
            }
            Event::Limit(which, limit) => self.on_connection(which, |pool, id, connection| {
                connection.limit = limit.min(BOUNDS.streams);
                pool.limit(id, limit);
            }),
            Event::Retire(which) => self.on_connection(which, |pool, id, connection| {
                connection.phase = ConnectionPhase::Retired;
                pool.retire(id);
            }),
            Event::Suspect(which) => self.on_connection(which, |pool, id, connection| {
                if connection.phase == ConnectionPhase::Open {
                    connection.phase = ConnectionPhase::Suspect;
                }
                pool.suspect(id);
            }),
            Event::Trust(which) => self.on_connection(which, |pool, id, connection| {
                if connection.phase == ConnectionPhase::Suspect {
                    connection.phase = ConnectionPhase::Open;
                }
                pool.trust(id);
            }),
            Event::Closed(which, lasting) => self.close(which, lasting),
            Event::Drain => {
                self.model.draining = true;
                self.pool.drain();
            }
            Event::Pass(milliseconds) => self.model.now += Duration::from_millis(milliseconds),
            Event::Withdraw(_) => {}
        }
    }

    fn admit(&mut self, shard: Shard) {
        let waiter = self.next;
        self.next += 1;
        let expected = self.model.admission(shard);
        let got = match self.pool.admit(self.model.now, shard, || waiter) {
            StreamAdmission::Stream(id) => {
                assert_eq!(self.model.free(shard), Some(id));
                self.model.take(id);
                self.model.wants_own = self.model.is_crowded_out(shard);
                "stream"
            }
            StreamAdmission::Wait(ticket) => {
                self.tickets.insert(waiter, ticket);
                self.model.shards.insert(waiter, shard);
                self.model.queue.push_back(waiter);
                "wait"
            }
            StreamAdmission::QueueFull => "full",
            StreamAdmission::PeerDown(pause) => {
                assert!(pause > Duration::ZERO);
                "down"
            }
            StreamAdmission::Ended => "ended",
        };
        assert_eq!(got, expected);
    }

    fn release(&mut self, which: prop::sample::Index, answered: bool) {
        let busy: Vec<_> =
            self.model.connections.iter().filter(|(_, c)| c.streams > 0).map(|(id, _)| *id).collect();
        if busy.is_empty() {
            return;
        }
        let id = busy[which.index(busy.len())];
        let connection = self.model.connections.get_mut(&id).unwrap();
        connection.streams -= 1;
        let is_first = answered && !connection.answered;
        connection.answered |= answered;
        connection.used_at = self.model.now;
        if answered {
            self.model.failures = 0;
        }
        if is_first {
            (self.model.failed_connects, self.model.retry_at) = (0, self.model.now);
        }
        self.pool.release(self.model.now, id, answered);
    }

    /// Streams of a lost connection end after it; the pool must not mind.
    fn close(&mut self, which: prop::sample::Index, lasting: bool) {
        let ids: BTreeSet<_> = self.model.connections.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = *which.get(&Vec::from_iter(ids));
        let connection = self.model.connections.remove(&id).unwrap();
        if !connection.answered && !connection.idled {
            self.model.fail(lasting);
        }
        self.pool.closed(self.model.now, id, u32::MAX, lasting);
        for _ in 0..connection.streams {
            self.pool.release(self.model.now, id, false);
        }
    }

    fn on_connection(
        &mut self,
        which: prop::sample::Index,
        change: impl FnOnce(&mut PoolState<ConnectionId, u32>, ConnectionId, &mut Http2Connection),
    ) {
        let ids: Vec<_> = self.model.connections.keys().copied().collect();
        if !ids.is_empty() {
            let id = *which.get(&ids);
            change(&mut self.pool, id, self.model.connections.get_mut(&id).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_follows_the_rules(events in prop::collection::vec(event(), 1..120)) {
        let mut run = Run::new();
        for event in events {
            run.apply(event);
        }
    }
}
