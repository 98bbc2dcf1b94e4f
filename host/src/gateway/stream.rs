//! A send without an end that is known: lines come in, results go out as they are there.
//!
//! Nothing is read while as many targets are under way as the window allows, and nothing is sent while nobody
//! takes the results: the push service's pace becomes the caller's, and memory stays flat.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::deliver::{BATCH, Batch, Purpose};
use super::send::{Opened, knows};
use super::window::Window;
use super::{Fate, Fields, Inner, Shared};
use crate::contract::{Notification, Target};
use crate::error::Error;
use crate::tenant::TenantId;
use crate::tenants::SendPlace;

/// A stream whose application and shared notification are found and sound.
pub struct Stream {
    gateway: Arc<Inner>,
    opened: Opened,
    /// The shared notification's fields, for those lines that have some of their own.
    shared: Map<String, Value>,
    /// Among the tenant's sends.
    place: SendPlace,
    /// Do the targets wait for their turn? Else they are taken already.
    paced: bool,
    /// Lines that are taken at a time.
    batch: usize,
}

/// One target of a stream.
pub struct Line {
    /// Counts the caller's lines from 0.
    pub index: usize,
    pub target: Target,
    /// Fields that win over those of the shared notification; null takes one away.
    pub notification: Option<Map<String, Value>>,
}

impl Inner {
    pub(super) async fn stream(self: &Arc<Self>, tenant: &TenantId, shared: Shared) -> Result<Stream, Error> {
        let Shared { application_id, notification: shared, validate_only, deadline, targets } = shared;
        let known = targets.map(|targets| if validate_only { 0 } else { targets as u64 });
        let place = self.tenants.begin_send(tenant, known)?;
        let paced = targets.is_none() && !validate_only;
        let batch = if paced { place.batch().min(BATCH) } else { BATCH };
        let application = self.opened(tenant, &application_id).await?;
        let purpose = Purpose { native: false, validate_only };
        let fields = Fields::Strict(shared.clone());
        let opened = self.open(tenant, application, None, fields, purpose, deadline).await?;
        Ok(Stream { gateway: self.clone(), opened, shared, place, paced, batch })
    }
}

/// What is to be done about some lines.
enum Prepared {
    Batch(Arc<Batch>),
    Settled(usize, Fate),
}

impl Prepared {
    fn new(first: usize, count: usize, batch: Result<Arc<Batch>, Error>) -> Vec<Self> {
        match batch {
            Ok(batch) => vec![Self::Batch(batch)],
            Err(error) => (first..first + count)
                .map(|index| Self::Settled(index, Fate::Failed(error.clone())))
                .collect(),
        }
    }
}

impl Stream {
    /// The name of the provider that sends it.
    pub fn provider(&self) -> &str {
        &self.opened.provider.manifest().name
    }

    /// Sends until `lines` ends and everything is settled. When nobody takes `results` any more, what is
    /// under way is finished and nothing more is begun.
    pub async fn run(self, mut lines: mpsc::Receiver<Line>, results: mpsc::Sender<(usize, Fate)>) {
        let mut under_way = FuturesUnordered::new();
        let mut open = true;
        let mut targets_under_way = 0;
        let mut received = Vec::with_capacity(BATCH);
        let mut window = Window::new(self.gateway.stream_window);
        let (mut turn, mut looked) = (Instant::now(), Instant::now());
        while open || !under_way.is_empty() {
            // Half of the window at a time: lines that are encoded together cost less.
            let may_receive = received.is_empty() && targets_under_way <= window.allowed() / 2;
            let room = window.allowed().saturating_sub(targets_under_way).min(self.batch).max(1);
            let go = tokio::select! {
                Some(fates) = under_way.next(), if !under_way.is_empty() => {
                    let fates: Vec<(usize, Fate)> = fates;
                    targets_under_way -= fates.len();
                    if window.settled(fates.len(), looked.elapsed()) {
                        looked = Instant::now();
                    }
                    for result in fates {
                        open &= results.send(result).await.is_ok();
                    }
                    false
                }
                count = lines.recv_many(&mut received, room), if open && may_receive => {
                    open = count > 0;
                    targets_under_way += count;
                    true
                }
                () = sleep_until(turn), if open && !received.is_empty() => true,
            };
            let prepared = match go.then(|| self.admitted(&mut received)) {
                Some(Ok(prepared)) => prepared,
                Some(Err(later)) => {
                    turn = later;
                    continue;
                }
                None => continue,
            };
            for prepared in prepared {
                match prepared {
                    Prepared::Batch(batch) => {
                        under_way.extend(self.opened.campaign.launch(batch).await.map(fates));
                    }
                    Prepared::Settled(index, fate) => {
                        targets_under_way -= 1;
                        open &= results.send((index, fate)).await.is_ok();
                    }
                }
            }
        }
    }

    /// The lines prepared, if the tenant's limits let them go now. `Err`: when to ask again.
    fn admitted(&self, lines: &mut Vec<Line>) -> Result<Vec<Prepared>, Instant> {
        let taken = if self.paced { self.place.take(lines.len()) } else { Ok(None) };
        match taken {
            Ok(None) => Ok(self.prepare(lines)),
            Ok(Some(wait)) => Err(Instant::now() + wait),
            Err(error) => Ok(lines.drain(..).map(|line| self.refused(&line, error.clone())).collect()),
        }
    }

    fn refused(&self, line: &Line, error: Error) -> Prepared {
        let fate = Fate::Failed(error);
        self.opened.campaign.account.settled(&line.target, &fate);
        Prepared::Settled(line.index, fate)
    }

    /// Lines in a row without a notification of their own become one batch.
    fn prepare(&self, lines: &mut Vec<Line>) -> Vec<Prepared> {
        let mut prepared = Vec::new();
        let mut run: Option<(usize, Vec<Target>)> = None;
        for Line { index, target, notification } in lines.drain(..) {
            if let Err(error) = knows(self.opened.provider.manifest(), &target) {
                prepared.push(self.refused(&Line { index, target, notification }, error));
                continue;
            }
            if let Some(fields) = notification {
                let own = self.own(fields);
                if let Err(error) = &own {
                    self.opened.campaign.account.settled(&target, &Fate::Failed(error.clone()));
                }
                let batch = own.and_then(|own| self.batch(index, vec![target], Arc::new(own)));
                prepared.extend(Prepared::new(index, 1, batch));
                continue;
            }
            match &mut run {
                Some((first, targets)) if *first + targets.len() == index => targets.push(target),
                _ => prepared.extend(self.flush(run.replace((index, vec![target])))),
            }
        }
        prepared.extend(self.flush(run));
        prepared
    }

    fn own(&self, fields: Map<String, Value>) -> Result<Notification, Error> {
        let mut all = self.shared.clone();
        all.extend(fields);
        self.opened.notification(Fields::Strict(all))
    }

    fn flush(&self, run: Option<(usize, Vec<Target>)>) -> Vec<Prepared> {
        let Some((first, targets)) = run else { return Vec::new() };
        let count = targets.len();
        Prepared::new(first, count, self.batch(first, targets, self.opened.notification.clone()))
    }

    fn batch(
        &self,
        first: usize,
        targets: Vec<Target>,
        notification: Arc<Notification>,
    ) -> Result<Arc<Batch>, Error> {
        self.opened.campaign.batch(first, targets, notification, Instant::now() + self.opened.timeout)
    }
}

async fn fates(settled: impl Future<Output = super::deliver::Settled>) -> Vec<(usize, Fate)> {
    settled.await.fates
}
