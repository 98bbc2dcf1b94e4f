//! Captures that a tenant has switched on for a provider: until so many sends are kept, or the time is over, the sends
//! that fail are recorded, or all of them. On the memory of this server and on the account of the tenant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::capture::{Capture, CapturedSend};
use crate::result::DeliveryResult;
use pushlet_model::contract::{Recipient, Target};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};

/// Bytes of all records of one capture.
const MOST_KEPT: usize = 8 << 20;
/// How long records stay after their capture was switched on.
const STAYS: Duration = Duration::from_secs(86_400);

/// What is captured.
#[derive(Debug, Clone)]
pub struct CaptureSettings {
    /// Then it ends.
    pub records: usize,
    pub lasts: Duration,
    /// None: all applications of the provider.
    pub application: Option<String>,
    /// Also sends whose targets need nothing more.
    pub all: bool,
}

/// A capture, and what it has kept.
#[derive(Debug, Clone)]
pub struct CaptureState {
    pub settings: CaptureSettings,
    pub is_active: bool,
    pub until: SystemTime,
    /// The latest first.
    pub sends: Vec<Arc<KeptSend>>,
}

/// A send that was captured, or a part of a larger one.
#[derive(Debug)]
pub struct KeptSend {
    pub at: SystemTime,
    pub captured: CapturedSend,
    pub results: Vec<(Target, DeliveryResult)>,
}

/// The captures of all tenants. Each send looks here, and takes no lock.
#[derive(Default)]
pub(crate) struct StandingCaptures(ArcSwap<CapturesByTenant>);

/// By tenant and name of the provider.
type CapturesByTenant = HashMap<TenantId, HashMap<String, Arc<StandingCapture>>>;

pub(crate) struct StandingCapture {
    settings: CaptureSettings,
    until: SystemTime,
    ends: Instant,
    /// When the records go.
    gone: Instant,
    account: Arc<Account>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The oldest first, each with its share of the tenant's memory.
    sends: Vec<(Arc<KeptSend>, MemoryReservation)>,
    bytes: usize,
    /// There was no room for one.
    is_full: bool,
}

impl StandingCaptures {
    /// Puts a capture in the place of the one before.
    pub fn set(&self, tenant: &TenantId, provider: &str, capture: &Arc<StandingCapture>) {
        self.change(|captures| {
            captures.entry(tenant.clone()).or_default().insert(provider.to_owned(), capture.clone());
        });
    }

    /// Removes the capture of a provider.
    pub fn remove(&self, tenant: &TenantId, provider: &str) {
        self.change(|captures| {
            if let Some(of_tenant) = captures.get_mut(tenant) {
                of_tenant.remove(provider);
            }
        });
    }

    /// Returns the capture of a provider, whether it is active or not.
    pub fn get(&self, tenant: &TenantId, provider: &str) -> Option<Arc<StandingCapture>> {
        let captures = self.0.load();
        let capture = captures.get(tenant)?.get(provider)?;
        (Instant::now() < capture.gone).then(|| capture.clone())
    }

    /// Drops the records whose time is over.
    pub fn clean(&self) {
        let now = Instant::now();
        if self.0.load().is_empty() {
            return;
        }
        self.change(|captures| {
            captures.retain(|_, of_tenant| {
                of_tenant.retain(|_, capture| now < capture.gone);
                !of_tenant.is_empty()
            });
        });
    }

    pub fn forget(&self, tenant: &TenantId) {
        self.change(|captures| drop(captures.remove(tenant)));
    }

    /// Makes a change in a copy, again if another one came between.
    fn change(&self, change: impl Fn(&mut CapturesByTenant)) {
        self.0.rcu(|captures| {
            let mut captures = CapturesByTenant::clone(captures);
            change(&mut captures);
            captures
        });
    }
}

impl StandingCapture {
    /// Begins now. `account`: that of the tenant.
    pub fn new(settings: CaptureSettings, account: Arc<Account>) -> Self {
        let (until, now) = (SystemTime::now() + settings.lasts, Instant::now());
        let (ends, gone) = (now + settings.lasts, now + STAYS.max(settings.lasts));
        Self { until, ends, gone, settings, account, kept: Mutex::default() }
    }

    pub fn is_active(&self) -> bool {
        let kept = self.kept.lock();
        !kept.is_full && kept.sends.len() < self.settings.records && Instant::now() < self.ends
    }

    pub fn is_of(&self, application: &str) -> bool {
        self.settings.application.as_ref().is_none_or(|wanted| wanted == application)
    }

    /// Keeps a send, if it is one of those that are wanted and there is room.
    fn keep(&self, send: KeptSend) {
        let is_good = send.results.iter().all(|(_, result)| result.status().is_good());
        if is_good && !self.settings.all || !self.is_active() {
            return;
        }
        let size = send.captured.size();
        let mut kept = self.kept.lock();
        let bytes = kept.bytes.saturating_add(size);
        let reserved = self.account.reserve(MemoryUse::Captures, size);
        match reserved {
            Ok(reserved) if bytes <= MOST_KEPT && kept.sends.len() < self.settings.records => {
                kept.bytes = bytes;
                kept.sends.push((Arc::new(send), reserved));
            }
            _ => kept.is_full = true,
        }
    }

    pub fn state(&self) -> CaptureState {
        let sends = self.kept.lock().sends.iter().rev().map(|(send, _)| send.clone()).collect();
        CaptureState {
            settings: self.settings.clone(),
            is_active: self.is_active(),
            until: self.until,
            sends,
        }
    }
}

/// What is kept of one batch.
pub(crate) struct BatchCaptures {
    pub all: Vec<Arc<Capture>>,
    pub standing: Option<StandingBatch>,
}

impl BatchCaptures {
    /// A target of the batch has its final result.
    pub fn settled(&self, index: usize, result: &DeliveryResult, recipients: &[Recipient]) {
        self.standing.iter().for_each(|standing| standing.settled(index, result, recipients));
    }
}

/// The part of a standing capture in one batch.
pub(crate) struct StandingBatch {
    pub standing: Arc<StandingCapture>,
    pub capture: Arc<Capture>,
    /// Each with the target's place in the batch.
    pub results: Mutex<Vec<(usize, DeliveryResult)>>,
}

impl StandingBatch {
    /// A target has its final result. After the last one of the batch, the record is kept.
    fn settled(&self, index: usize, result: &DeliveryResult, recipients: &[Recipient]) {
        let mut results = self.results.lock();
        results.push((index, result.clone()));
        if results.len() < recipients.len() {
            return;
        }
        let mut results = std::mem::take(&mut *results);
        results.sort_by_key(|(index, _)| *index);
        let target = |index: usize| recipients.get(index).map(|recipient| recipient.target.clone());
        let results =
            results.into_iter().filter_map(|(index, result)| Some((target(index)?, result))).collect();
        self.standing.keep(KeptSend { at: SystemTime::now(), captured: self.capture.take(), results });
    }
}
