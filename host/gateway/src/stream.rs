//! A send whose end is not known: lines come in, and results go out as they complete.
//!
//! Nothing is read while as many targets are in flight as the window allows, and nothing is sent while the results are
//! not read: the push service's pace becomes the caller's, and memory stays flat.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::delivery::{BATCH, Batch, BatchResults, SendOptions};
use crate::duplicates::{Duplicates, SeenTargets};
use crate::flow_control::{ConcurrencyWindow, Gate, HeldLine};
use crate::gateway::Gateway;
use crate::result::{DeliveryResult, IndexedResult};
use crate::send::{Fields, PreparedSend, ensure_supports};
use crate::tenants::{Permission, SendPermit, Withdrawal};
use pushlet_model::contract::{Notification, Target};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// What all targets of a stream share.
pub struct Shared {
    pub application_id: String,
    pub notification: Map<String, Value>,
    /// About how many bytes the notification takes.
    pub size: usize,
    /// Check that everything a send needs is there, and send nothing.
    pub validate_only: bool,
    /// For each target; None: the configured deadline.
    pub deadline: Option<Duration>,
    pub duplicates: Duplicates,
    pub targets: Targets,
}

/// The targets of a stream.
pub enum Targets {
    /// This many, all known: the tenant's limits must allow all of them at once.
    Counted(usize),
    /// They come one by one and are delayed by the tenant's limits, for as long as this permission holds.
    Open(Permission),
}

/// A stream whose application and shared notification have been found and checked.
pub struct Stream {
    gateway: Gateway,
    opened: PreparedSend,
    /// The shared notification's fields, for lines that have some of their own.
    shared: Map<String, Value>,
    /// The tenant's permit for this send.
    place: SendPermit,
    /// Targets are delayed by the tenant's limit; otherwise all of them are counted already.
    paced: bool,
    /// What must still hold when a line is sent; None: all lines were admitted at once.
    permission: Option<Permission>,
    /// Most lines that are taken at a time.
    batch: usize,
    /// Targets that came before; None: duplicates are sent.
    seen: Option<SeenTargets>,
    gate: Gate,
}

/// Why a stream was stopped before its lines ended. Lines without a result were not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Withdrawn(Withdrawal),
    ApplicationDeleted,
}

/// One target of a stream.
pub struct Line {
    /// Counts the caller's lines from 0.
    pub index: usize,
    pub target: Target,
    /// Fields that replace those of the shared notification; null removes one. Several targets may share
    /// them.
    pub notification: Option<Arc<Map<String, Value>>>,
    /// About how many bytes these fields take.
    pub size: usize,
    /// The memory that the line takes while it is in flight, if that is counted.
    pub held: Option<HeldLine>,
}

impl Gateway {
    /// Opens a stream of targets that share an application and a notification. Sends nothing yet.
    pub async fn stream(&self, tenant: &TenantId, shared: Shared) -> Result<Stream, Error> {
        let Shared {
            application_id,
            notification: shared,
            size,
            validate_only,
            deadline,
            duplicates,
            targets,
        } = shared;
        let (known, permission) = match targets {
            Targets::Counted(count) => (Some(if validate_only { 0 } else { count as u64 }), None),
            Targets::Open(permission) => (None, Some(permission)),
        };
        let place = self.0.tenants.acquire_send_permit(tenant, known)?;
        let paced = known.is_none() && !validate_only;
        let batch = if paced { place.batch().min(BATCH) } else { BATCH };
        let application = self.load_application(tenant, &application_id).await?;
        let purpose = SendOptions { payer: place.account().clone(), native: false, validate_only };
        let fields = Fields::Strict(shared.clone());
        let opened = self.open(tenant, application, None, fields, purpose, deadline).await?;
        let gate = Gate::new(size, place.account().clone());
        // A single target has no duplicates, so nothing is allocated for it.
        let skips = duplicates == Duplicates::Skip && known != Some(1);
        let seen = skips.then(|| SeenTargets::new(place.account()));
        Ok(Stream { gateway: self.clone(), opened, shared, place, paced, permission, batch, seen, gate })
    }
}

/// What to do with some lines.
enum Prepared {
    Batch(Arc<Batch>, Held),
    Settled(IndexedResult),
}

/// When some lines may be sent.
enum Admission {
    Now,
    At(Instant),
    Never(Stop),
}

/// The memory of a batch's lines, held until all of them have results.
type Held = Option<Arc<Vec<HeldLine>>>;

/// Consecutive lines that share the notification.
struct Run {
    first: usize,
    targets: Vec<Target>,
    held: Vec<HeldLine>,
}

impl Prepared {
    fn new(first: usize, count: usize, batch: Result<Arc<Batch>, Error>, held: Vec<HeldLine>) -> Vec<Self> {
        match batch {
            Ok(batch) => vec![Self::Batch(batch, (!held.is_empty()).then(|| Arc::new(held)))],
            Err(error) => (first..first + count)
                .map(|index| {
                    Self::Settled(IndexedResult::untried(index, DeliveryResult::Failed(error.clone())))
                })
                .collect(),
        }
    }
}

impl Stream {
    /// Returns the name of the provider that sends the stream.
    pub fn provider(&self) -> &str {
        &self.opened.provider.manifest().name
    }

    /// Returns the gate that lines must pass before they are given to [`Stream::run`].
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Sends until `lines` ends and every target has its result. If `results` is closed or the permission is
    /// withdrawn, targets in flight finish and no more are begun.
    pub async fn run(
        mut self,
        mut lines: mpsc::Receiver<Line>,
        results: mpsc::Sender<IndexedResult>,
    ) -> Option<Stop> {
        let mut stop = None;
        let mut seen = self.seen.take();
        let mut in_flight = FuturesUnordered::new();
        let mut open = true;
        let mut targets_in_flight = 0;
        let mut received = Vec::with_capacity(BATCH);
        let mut window = ConcurrencyWindow::new(self.gateway.0.stream_window);
        let (mut turn, mut looked) = (Instant::now(), Instant::now());
        while open || !in_flight.is_empty() {
            // Half of the window at a time: lines that are encoded together cost less.
            let may_receive = received.is_empty() && targets_in_flight <= window.allowed() / 2;
            let room = window.allowed().saturating_sub(targets_in_flight).min(self.batch).max(1);
            let go = tokio::select! {
                Some(settled) = in_flight.next(), if !in_flight.is_empty() => {
                    let settled: Vec<IndexedResult> = settled;
                    targets_in_flight -= settled.len();
                    if window.settled(settled.len(), looked.elapsed()) {
                        looked = Instant::now();
                    }
                    for result in settled {
                        open &= results.send(result).await.is_ok();
                    }
                    false
                }
                count = lines.recv_many(&mut received, room), if open && may_receive => {
                    open = count > 0;
                    targets_in_flight += count;
                    true
                }
                () = sleep_until(turn), if open && !received.is_empty() => true,
            };
            let prepared = match go.then(|| self.admit(received.len())) {
                Some(Admission::Now) => self.prepare(&mut received, &mut seen).await,
                Some(Admission::At(later)) => {
                    turn = later;
                    continue;
                }
                Some(Admission::Never(why)) => {
                    (stop, open) = (Some(why), false);
                    // The sender sees that no more lines are taken.
                    lines.close();
                    received.clear();
                    continue;
                }
                None => continue,
            };
            for prepared in prepared {
                match prepared {
                    Prepared::Batch(batch, held) => {
                        let launched = self.opened.delivery.launch(batch).await;
                        in_flight.extend(launched.map(move |settled| results_of(settled, held.clone())));
                    }
                    Prepared::Settled(result) => {
                        targets_in_flight -= 1;
                        open &= results.send(result).await.is_ok();
                    }
                }
            }
        }
        stop
    }

    /// Returns whether this many lines may be sent now: the permission must still hold, and the tenant's
    /// limits must allow them.
    fn admit(&self, lines: usize) -> Admission {
        if let Some(why) = self.stopped() {
            return Admission::Never(why);
        }
        match self.paced.then(|| self.place.take(lines)).flatten() {
            None => Admission::Now,
            Some(wait) => Admission::At(Instant::now() + wait),
        }
    }

    /// Checked for each batch of lines, so it takes no lock.
    fn stopped(&self) -> Option<Stop> {
        let permission = self.permission.as_ref()?;
        if let Some(why) = permission.withdrawn() {
            return Some(Stop::Withdrawn(why));
        }
        // The stream holds its application, which therefore outlives its deletion.
        let deleted = self.opened.delivery.application.feedback.is_retired();
        deleted.then_some(Stop::ApplicationDeleted)
    }

    /// Returns the result of a line that is not sent: its target is of a kind that the provider does not
    /// support, or a duplicate.
    fn unsent(
        &self,
        line: &Line,
        plain: Option<&str>,
        seen: Option<&mut SeenTargets>,
    ) -> Option<DeliveryResult> {
        if let Err(error) = ensure_supports(self.opened.provider.manifest(), &line.target) {
            return Some(DeliveryResult::Failed(error));
        }
        seen?
            .first(line.index, &line.target, plain, line.notification.as_deref())
            .map(DeliveryResult::Duplicate)
    }

    /// Makes one batch of consecutive lines without fields of their own.
    async fn prepare(&self, lines: &mut Vec<Line>, seen: &mut Option<SeenTargets>) -> Vec<Prepared> {
        let targets = lines.iter().map(|line| &line.target);
        let plain = match seen {
            Some(_) => self.opened.delivery.plain_tokens(&self.opened.notification, targets).await,
            None => HashMap::new(),
        };
        let mut prepared = Vec::new();
        let mut run: Option<Run> = None;
        for (place, line) in lines.drain(..).enumerate() {
            if let Some(result) = self.unsent(&line, plain.get(&place).map(String::as_str), seen.as_mut()) {
                self.opened.delivery.counters.settled(&line.target, &result);
                prepared.push(Prepared::Settled(IndexedResult::untried(line.index, result)));
                continue;
            }
            let Line { index, target, notification, held, size: _ } = line;
            if let Some(fields) = notification {
                let own = self.own(&fields);
                if let Err(error) = &own {
                    self.opened.delivery.counters.settled(&target, &DeliveryResult::Failed(error.clone()));
                }
                let batch = own.and_then(|own| self.batch(index, vec![target], Arc::new(own)));
                prepared.extend(Prepared::new(index, 1, batch, held.into_iter().collect()));
                continue;
            }
            let held = held.into_iter();
            match &mut run {
                Some(run) if run.first + run.targets.len() == index => {
                    run.targets.push(target);
                    run.held.extend(held);
                }
                _ => {
                    let next = Run { first: index, targets: vec![target], held: held.collect() };
                    prepared.extend(self.flush(run.replace(next)));
                }
            }
        }
        prepared.extend(self.flush(run));
        prepared
    }

    fn own(&self, fields: &Map<String, Value>) -> Result<Notification, Error> {
        let not_replaced = self.shared.iter().filter(|(name, _)| !fields.contains_key(*name));
        let all = not_replaced.chain(fields).map(|(name, value)| (name.clone(), value.clone())).collect();
        self.opened.notification(Fields::Strict(all))
    }

    fn flush(&self, run: Option<Run>) -> Vec<Prepared> {
        let Some(Run { first, targets, held }) = run else { return Vec::new() };
        let count = targets.len();
        Prepared::new(first, count, self.batch(first, targets, self.opened.notification.clone()), held)
    }

    fn batch(
        &self,
        first: usize,
        targets: Vec<Target>,
        notification: Arc<Notification>,
    ) -> Result<Arc<Batch>, Error> {
        let all = 0..targets.len();
        self.opened.delivery.batch(
            first,
            (targets.into(), all),
            notification,
            Instant::now() + self.opened.timeout,
        )
    }
}

async fn results_of(settled: impl Future<Output = BatchResults>, _held: Held) -> Vec<IndexedResult> {
    settled.await.results
}
