//! A send whose end is not known: lines come in, and results go out as they complete.
//!
//! Nothing is read while as many targets are in flight as the window allows, and nothing is sent while the results are
//! not read: the push service's pace becomes the caller's, and memory stays flat.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::capture::{Capture, LineCaptures};
use crate::delivery::{Batch, SendOptions};
use crate::duplicates::{Duplicates, SeenTargets};
use crate::flow_control::{ConcurrencyWindow, Gate, HeldLine, Line, Shared, Stop, StreamResult, Targets};
use crate::gateway::Gateway;
use crate::queue::state::QueuedWork;
use crate::result::{BatchResults, DeliveryResult, IndexedResult, SendTally};
use crate::send::{Fields, PreparedSend, ensure_supports};
use crate::slots::FutureSlots;
use crate::tenants::{Permission, SendPermit};
use pushlet_model::contract::{Notification, Recipient};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, Steps};

/// Lines and results that wait in [`Stream::send_all`].
const QUEUE_LENGTH: usize = 512;

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
    /// Counts it among the open streams.
    _open: Option<Arc<()>>,
}

impl Gateway {
    /// Opens a stream of targets that share an application and a notification. Sends nothing yet.
    pub async fn stream(&self, tenant: &TenantId, shared: Shared) -> Result<Stream, Error> {
        self.stream_of(tenant, shared, None).await
    }

    /// `queued`: the targets are a part of a delivery that outlives its caller.
    pub(crate) async fn stream_of(
        &self,
        tenant: &TenantId,
        shared: Shared,
        queued: Option<Box<QueuedWork>>,
    ) -> Result<Stream, Error> {
        let Shared {
            application_id,
            notification: shared,
            size,
            validate_only,
            deadline,
            duplicates,
            targets,
            not_before: _,
            capture,
            request_id,
        } = shared;
        let (known, permission) = match targets {
            Targets::Counted(count) => (Some(if validate_only { 0 } else { count as u64 }), None),
            Targets::Open(permission) => (None, Some(permission)),
        };
        let place = self.0.tenants.acquire_send_permit(tenant, known)?;
        let paced = known.is_none() && !validate_only;
        let application = self.load_application(tenant, &application_id).await?;
        let payer = place.account().clone();
        let lines = capture.then(|| LineCaptures::new(&payer)).transpose()?;
        let purpose = SendOptions { lines, request_id, queued, ..SendOptions::new(payer, validate_only) };
        let fields = Fields::Strict(shared.clone());
        let opened = self.open(tenant, application, None, (fields, &mut []), purpose, deadline).await?;
        let size_of_batch = opened.delivery.batch_size();
        let batch = if paced { place.batch().min(size_of_batch) } else { size_of_batch };
        let gate = Gate::new(size, place.account().clone());
        // A single target has no duplicates, so nothing is allocated for it.
        let skips = duplicates == Duplicates::Skip && known != Some(1);
        let seen = skips.then(|| SeenTargets::new(place.account()));
        let _open = permission.is_some().then(|| self.0.open_streams.clone());
        let gateway = self.clone();
        Ok(Stream { gateway, opened, shared, place, paced, permission, batch, seen, gate, _open })
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
    targets: Vec<Recipient>,
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

    /// Returns the account that the stream is charged to.
    pub(crate) fn account(&self) -> &Arc<Account> {
        self.place.account()
    }

    /// Returns the lines that would be sent, and the results of those that would not.
    pub(crate) async fn sort(&mut self, lines: Vec<Line>) -> (Vec<Line>, Vec<IndexedResult>) {
        let mut seen = self.seen.take();
        let plain = self.plain(&lines, seen.is_some()).await;
        let (mut to_send, mut results) = (Vec::with_capacity(lines.len()), Vec::new());
        for (place, line) in lines.into_iter().enumerate() {
            match self.unsent(&line, plain.get(&place).map(String::as_str), seen.as_mut()) {
                Some(result) => results.push(IndexedResult::untried(line.index, result)),
                None => to_send.push(line),
            }
        }
        self.seen = seen;
        (to_send, results)
    }

    /// Sends these lines. Returns the results as they came, and why it stopped before all were sent.
    pub async fn send_all(self, lines: Vec<Line>) -> (Vec<IndexedResult>, Option<Stop>) {
        let (to_send, received) = mpsc::channel(QUEUE_LENGTH);
        let (settled, mut results) = mpsc::channel(QUEUE_LENGTH);
        let feed = self.gate().feed(lines, to_send, settled.clone());
        let collect = async {
            let mut collected = Vec::new();
            while results.recv_many(&mut collected, QUEUE_LENGTH).await > 0 {}
            collected
        };
        // All three at once: the gate opens only as results are collected.
        let ((), ended, collected) = tokio::join!(feed, self.run(received, settled), collect);
        (collected, ended.stop)
    }

    /// Sends until `lines` ends and every target has its result. If `results` is closed or the permission is
    /// withdrawn, targets in flight finish and no more are begun.
    pub async fn run(
        mut self,
        mut lines: mpsc::Receiver<Line>,
        results: mpsc::Sender<IndexedResult>,
    ) -> StreamResult {
        let (mut stop, mut tally) = (None, SendTally::default());
        let mut seen = self.seen.take();
        let mut in_flight = FutureSlots::new();
        let mut open = true;
        let mut targets_in_flight = 0;
        let mut received = Vec::with_capacity(self.batch);
        let mut steps = Steps::new(self.place.account().clone());
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
                    steps.before(settled.len()).await;
                    if window.settled(settled.len(), looked.elapsed()) {
                        looked = Instant::now();
                    }
                    for result in settled {
                        tally.count(&result);
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
            let mut settled = Vec::new();
            for prepared in prepared {
                match prepared {
                    Prepared::Batch(batch, held) => {
                        steps.before(Steps::CALL + batch.recipients().len()).await;
                        let line = batch.captures.all.iter().find(|capture| capture.is_of_line).cloned();
                        let (requests, refused) = self.opened.delivery.launch(&batch).await;
                        settled.extend(with_captured(refused, line.as_deref()));
                        for request in requests {
                            let (batch, held, line) = (batch.clone(), held.clone(), line.clone());
                            let results = move |settled: BatchResults| {
                                drop(held);
                                with_captured(settled.results, line.as_deref())
                            };
                            in_flight.push(|| self.opened.delivery.settle(batch, request).map(results));
                        }
                    }
                    Prepared::Settled(result) => settled.push(result),
                }
            }
            targets_in_flight -= settled.len();
            for result in settled {
                tally.count(&result);
                open &= results.send(result).await.is_ok();
            }
        }
        StreamResult { stop, tally }
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

    /// Returns the plain spelling of tokens that are written in another one, by their place, if it is needed.
    async fn plain(&self, lines: &[Line], needed: bool) -> HashMap<usize, String> {
        if !needed {
            return HashMap::new();
        }
        let targets = lines.iter().map(|line| &line.target);
        self.opened.delivery.plain_tokens(&self.opened.notification, targets).await
    }

    /// Makes one batch of consecutive lines without fields of their own.
    async fn prepare(&self, lines: &mut Vec<Line>, seen: &mut Option<SeenTargets>) -> Vec<Prepared> {
        let plain = self.plain(lines, seen.is_some()).await;
        let most = self.opened.delivery.most_captured().unwrap_or(usize::MAX);
        let mut prepared = Vec::new();
        let mut run: Option<Run> = None;
        for (place, line) in lines.drain(..).enumerate() {
            if let Some(result) = self.unsent(&line, plain.get(&place).map(String::as_str), seen.as_mut()) {
                self.opened.delivery.counters.settled(&line.target.target, &result);
                prepared.push(Prepared::Settled(IndexedResult::untried(line.index, result)));
                continue;
            }
            let Line { index, target, notification, held, size: _ } = line;
            if let Some(fields) = notification {
                let own = self.own(&fields);
                if let Err(error) = &own {
                    let failed = DeliveryResult::Failed(error.clone());
                    self.opened.delivery.counters.settled(&target.target, &failed);
                }
                let batch = own.and_then(|own| self.batch(index, vec![target], Arc::new(own)));
                prepared.extend(Prepared::new(index, 1, batch, held.into_iter().collect()));
                continue;
            }
            let held = held.into_iter();
            match &mut run {
                Some(run) if run.first + run.targets.len() == index && run.targets.len() < most => {
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
        targets: Vec<Recipient>,
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

/// `line`: what is captured of the batch, which is one line.
fn with_captured(mut results: Vec<IndexedResult>, line: Option<&Capture>) -> Vec<IndexedResult> {
    if let Some(line) = line {
        results.iter_mut().for_each(|result| result.captured = Some(Box::new(line.take())));
    }
    results
}
