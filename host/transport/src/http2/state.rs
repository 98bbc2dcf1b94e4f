//! The decisions of a pool: which connection takes a request, who waits, when to connect, close or refuse.
//!
//! Pure: it knows no sockets, tasks or clocks. The shell reports events and then carries out what
//! [`PoolState::next`] says until it says nothing more. `C` is a connection, `W` someone who waits for a stream.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::peer::{BackoffPolicy, BreakerState, CircuitBreaker, PeerLoad};
use pushlet_quota::Shard;

pub type ConnectionId = u64;
pub type QueueTicket = u64;

#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    pub connections: usize,
    pub streams: usize,
    /// Streams on another shard's connection from which a shard opens one of its own.
    pub crowded: usize,
    /// Returns true if a shard has more work than it can do: others do not use its connections where they may have one
    /// of their own.
    pub is_behind: fn(Shard) -> bool,
    pub waiting: usize,
    pub probation: Duration,
    pub idle: Duration,
    pub backoff: BackoffPolicy,
}

/// The decision about a request for a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamAdmission<C> {
    Stream(C),
    Wait(QueueTicket),
    QueueFull,
    /// The breaker is open; the time after which trying again makes sense.
    PeerDown(Duration),
    /// The pool has ended; a new one must be made.
    Ended,
}

/// An instruction to the shell.
#[derive(Debug, PartialEq, Eq)]
pub enum PoolAction<C, W> {
    /// Give a stream of the connection to the waiter; if it has gone away, `release` the stream.
    Grant(W, C),
    /// Tell the waiter that no connection can be opened, and when to try again.
    Refuse(W, Duration),
    /// Open a connection of this id, then call `opened` or `open_failed`.
    Connect(ConnectionId),
    /// Open no further stream on it.
    Retire(C),
    /// It is retired and has no stream left: close it.
    Finish(C),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionPhase {
    Open,
    /// It may be dead: no new streams until it answers a PING.
    Suspect,
    /// It takes no new streams; those in flight finish.
    Retired,
}

struct ConnectionSlot<C> {
    id: ConnectionId,
    handle: C,
    /// Whose thread drives it.
    shard: Shard,
    phase: ConnectionPhase,
    limit: usize,
    streams: usize,
    /// A response has come over it.
    answered: bool,
    /// We closed it: its end is no failure.
    ours: bool,
    opened_at: Instant,
    used_at: Instant,
}

pub struct PoolState<C, W> {
    bounds: PoolLimits,
    slots: Vec<ConnectionSlot<C>>,
    waiting: BTreeMap<QueueTicket, (Shard, W)>,
    refused: VecDeque<W>,
    leaving: VecDeque<PoolAction<C, W>>,
    connecting: bool,
    /// The shard of the last request should have a connection of its own.
    wants_own: bool,
    breaker: CircuitBreaker,
    next_id: ConnectionId,
    next_ticket: QueueTicket,
    draining: bool,
    ended: bool,
}

impl<C: Clone, W> PoolState<C, W> {
    pub fn new(bounds: PoolLimits) -> Self {
        PoolState {
            bounds,
            slots: Vec::new(),
            waiting: BTreeMap::new(),
            refused: VecDeque::new(),
            leaving: VecDeque::new(),
            connecting: false,
            wants_own: false,
            breaker: CircuitBreaker::new(bounds.backoff),
            next_id: 0,
            next_ticket: 0,
            draining: false,
            ended: false,
        }
    }

    /// Admits a shard's request for a stream. The waiter is created only if it has to wait.
    pub fn admit(&mut self, now: Instant, shard: Shard, waiter: impl FnOnce() -> W) -> StreamAdmission<C> {
        if self.ended {
            return StreamAdmission::Ended;
        }
        if self.waiting.is_empty()
            && let Some(handle) = self.take_stream(now, shard)
        {
            self.wants_own = self.is_crowded_out(shard);
            return StreamAdmission::Stream(handle);
        }
        if let Some(pause) = self.peer_down(now) {
            return StreamAdmission::PeerDown(pause);
        }
        if self.waiting.len() >= self.bounds.waiting {
            return StreamAdmission::QueueFull;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, (shard, waiter()));
        StreamAdmission::Wait(ticket)
    }

    /// Removes a waiter that gives up. Returns false if it was granted a stream or refused already.
    pub fn withdraw(&mut self, ticket: QueueTicket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// Releases a stream that has ended; `answered` if a response came over it.
    pub fn release(&mut self, now: Instant, id: ConnectionId, answered: bool) {
        let is_new = self.slot(id).is_some_and(|slot| !slot.answered);
        match answered {
            true if is_new => self.breaker.succeeded(),
            true => self.breaker.answered(),
            false => {}
        }
        let Some(slot) = self.slot(id) else { return };
        slot.streams = slot.streams.saturating_sub(1);
        slot.answered |= answered;
        slot.used_at = now;
        if slot.phase == ConnectionPhase::Retired && slot.streams == 0 {
            let finish = PoolAction::Finish(slot.handle.clone());
            self.leaving.push_back(finish);
        }
    }

    /// Adds a new connection, which this shard's thread drives. The peer allows one stream until it says otherwise.
    pub fn opened(&mut self, now: Instant, shard: Shard, id: ConnectionId, handle: C) {
        self.connecting = false;
        self.slots.push(ConnectionSlot {
            id,
            handle,
            shard,
            phase: ConnectionPhase::Open,
            limit: 1,
            streams: 0,
            answered: false,
            ours: false,
            opened_at: now,
            used_at: now,
        });
    }

    /// Records a failed connect. `lasting`: trying again soon will not help, as with a certificate that is refused.
    pub fn open_failed(&mut self, now: Instant, jitter: u32, lasting: bool) {
        self.connecting = false;
        self.count_failure(now, jitter, lasting);
    }

    /// Sets the peer's SETTINGS_MAX_CONCURRENT_STREAMS.
    pub fn limit(&mut self, id: ConnectionId, limit: usize) {
        let most = self.bounds.streams;
        if let Some(slot) = self.slot(id) {
            slot.limit = limit.min(most);
        }
    }

    /// Retires a connection, which takes no new streams: GOAWAY came, or its user has finished with it.
    pub fn retire(&mut self, id: ConnectionId) {
        let Some(slot) = self.slot(id) else { return };
        if slot.phase == ConnectionPhase::Retired {
            return;
        }
        slot.phase = ConnectionPhase::Retired;
        let (handle, idle) = (slot.handle.clone(), slot.streams == 0);
        self.leaving.push_back(PoolAction::Retire(handle.clone()));
        if idle {
            self.leaving.push_back(PoolAction::Finish(handle));
        }
    }

    /// Suspects a connection: a response is overdue and the peer is silent.
    pub fn suspect(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slot(id)
            && slot.phase == ConnectionPhase::Open
        {
            slot.phase = ConnectionPhase::Suspect;
        }
    }

    /// Clears a suspicion: the peer responds.
    pub fn trust(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slot(id)
            && slot.phase == ConnectionPhase::Suspect
        {
            slot.phase = ConnectionPhase::Open;
        }
    }

    /// Removes a connection that has closed. One that never carried a response counts as a failed connect.
    pub fn closed(&mut self, now: Instant, id: ConnectionId, jitter: u32, lasting: bool) {
        let Some(index) = self.slots.iter().position(|slot| slot.id == id) else { return };
        let slot = self.slots.swap_remove(index);
        if !slot.answered && !slot.ours {
            self.count_failure(now, jitter, lasting);
        }
    }

    /// Closes every connection as soon as it is unused and no request waits for it.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Returns true if no request is in flight or waiting, and the pool has no connection.
    pub fn is_unused(&self) -> bool {
        self.slots.is_empty() && self.waiting.is_empty() && self.refused.is_empty() && !self.connecting
    }

    /// Ends the pool if it is unused, and either draining or `forgotten`.
    pub fn end_if_unused(&mut self, forgotten: bool) -> bool {
        self.ended |= self.is_unused() && (self.draining || forgotten);
        self.ended
    }

    /// Returns the next action, or None until the next event or [`PoolState::wake_at`].
    pub fn next(&mut self, now: Instant) -> Option<PoolAction<C, W>> {
        if let Some(action) = self.leaving.pop_front() {
            return Some(action);
        }
        if let Some(waiter) = self.refused.pop_front() {
            let pause = self.breaker.pause_until(now).map_or(Duration::ZERO, |until| until - now);
            return Some(PoolAction::Refuse(waiter, pause));
        }
        if let Some((_, (shard, _))) = self.waiting.first_key_value()
            && let Some(handle) = self.take_stream(now, *shard)
            && let Some((_, (_, waiter))) = self.waiting.pop_first()
        {
            return Some(PoolAction::Grant(waiter, handle));
        }
        // Only now is this the thread of the shard that wants it.
        let wants_own = std::mem::take(&mut self.wants_own) && self.may_connect();
        if (wants_own || self.wants_connection()) && self.connect_at(now) <= now {
            self.connecting = true;
            self.next_id += 1;
            return Some(PoolAction::Connect(self.next_id));
        }
        self.close_idle(now);
        self.leaving.pop_front()
    }

    /// Returns when to call [`PoolState::next`] again if no event comes.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let connect = self.wants_connection().then(|| self.connect_at(now));
        let idle = self.slots.iter().filter(|slot| slot.phase == ConnectionPhase::Open && slot.streams == 0);
        idle.map(|slot| slot.used_at + self.bounds.idle).chain(connect).min()
    }

    pub fn load(&self, now: Instant) -> PeerLoad {
        PeerLoad {
            connections: self.slots.len(),
            streams: self.slots.iter().map(|slot| slot.streams).sum(),
            waiting: self.waiting.len(),
            breaker: self.breaker.state(now),
        }
    }

    fn slot(&mut self, id: ConnectionId) -> Option<&mut ConnectionSlot<C>> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    fn usable(&self) -> impl Iterator<Item = &ConnectionSlot<C>> {
        self.slots.iter().filter(|slot| slot.phase == ConnectionPhase::Open)
    }

    /// Takes a stream of the shard's own connection, or else of another; of several the oldest with a free stream, so
    /// that surplus ones fall idle when traffic falls.
    fn take_stream(&mut self, now: Instant, shard: Shard) -> Option<C> {
        let free =
            |slot: &&mut ConnectionSlot<C>| slot.phase == ConnectionPhase::Open && slot.streams < slot.limit;
        let slot = self.slots.iter_mut().filter(free).min_by_key(|slot| (slot.shard != shard, slot.id))?;
        slot.streams += 1;
        slot.used_at = now;
        Some(slot.handle.clone())
    }

    /// Returns true if the shard has no connection, and every other shard or its connection is busy.
    fn is_crowded_out(&self, shard: Shard) -> bool {
        let PoolLimits { crowded, is_behind, .. } = self.bounds;
        let is_busy = |slot: &ConnectionSlot<C>| slot.streams >= crowded || is_behind(slot.shard);
        !self.draining && self.usable().all(|slot| slot.shard != shard && is_busy(slot))
    }

    /// Returns how long to wait, if the breaker is open and no connection works. The first request after the
    /// pause passes: it is the probe.
    fn peer_down(&self, now: Instant) -> Option<Duration> {
        if self.usable().next().is_some() {
            return None;
        }
        match self.breaker.state(now) {
            BreakerState::Closed => None,
            BreakerState::Open(pause) => Some(pause),
            BreakerState::HalfOpen if self.connecting || !self.waiting.is_empty() => {
                Some(self.breaker.probe_time())
            }
            BreakerState::HalfOpen => None,
        }
    }

    /// Returns true if streams are short and another connection is allowed.
    fn wants_connection(&self) -> bool {
        !self.waiting.is_empty() && self.may_connect()
    }

    /// Returns true if another connection is allowed. Retired and suspect connections do not count against the bound,
    /// but there may not be more of them than of others.
    fn may_connect(&self) -> bool {
        !self.connecting
            && self.usable().count() < self.bounds.connections
            && self.slots.len() < 2 * self.bounds.connections
    }

    /// Returns when to connect: not during a pause, and not while a new connection may still turn out to allow more
    /// streams. The pause does not hold if the connections that responded after the failure are gone: the peer is not
    /// down.
    fn connect_at(&self, now: Instant) -> Instant {
        let is_needed = self.breaker.has_answered() && self.usable().next().is_none();
        let pause = self.breaker.pause_until(now).filter(|_| !is_needed);
        let fresh =
            self.usable().filter(|slot| !slot.answered).map(|slot| slot.opened_at + self.bounds.probation);
        fresh.chain(pause).max().unwrap_or(now)
    }

    fn close_idle(&mut self, now: Instant) {
        let (idle, draining) = (self.bounds.idle, self.draining && self.waiting.is_empty());
        let due = |slot: &ConnectionSlot<C>| {
            slot.phase == ConnectionPhase::Open
                && slot.streams == 0
                && (draining || slot.used_at + idle <= now)
        };
        if let Some(slot) = self.slots.iter_mut().find(|slot| due(slot)) {
            slot.ours = true;
            let id = slot.id;
            self.retire(id);
        }
    }

    fn count_failure(&mut self, now: Instant, jitter: u32, lasting: bool) {
        self.breaker.failed(now, jitter);
        let down = lasting || self.breaker.state(now) != BreakerState::Closed;
        if down && self.usable().next().is_none() {
            self.refused.extend(std::mem::take(&mut self.waiting).into_values().map(|(_, waiter)| waiter));
        }
    }
}

#[cfg(test)]
mod dial_tests;
#[cfg(test)]
mod tests;
