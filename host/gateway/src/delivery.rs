//! One application's way to its targets, and what travels on it: batches, encoded requests, results.

use std::ops::Range;
use std::sync::Arc;

use rand::Rng as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::counters::DeliveryCounters;
use crate::decode_queue::DecodeQueue;
use crate::gateway::Gateway;
use crate::status::{DeliveryResult, Fate};
use pushlet_model::contract::{Disposition, Notification, Outcome, Target};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Account;
use pushlet_registry::RegisteredApplication;
use pushlet_sandbox::{Exchange, Instances, Message, Provider};

/// Targets in one call of `encode`, where an exchange covers fewer.
pub(crate) const BATCH: usize = 500;
/// The largest batch that is made for a service whose exchanges cover more targets than [`BATCH`]: legacy GCM takes
/// 1,000 ids in a request.
const LARGEST_BATCH: usize = 1000;
/// Options that ask a service to check a notification without delivering it (see `provider-manifest.options`).
const ONLY_CHECK: [&str; 2] = ["validate_only", "dry_run"];
/// Exchanges of one delivery at once; the transport bounds what all deliveries have in flight.
pub(crate) const MOST_AT_ONCE: usize = 1000;

/// One application's way to its targets.
pub(crate) struct Delivery {
    pub(crate) gateway: Gateway,
    pub(crate) tenant: TenantId,
    pub(crate) provider: Arc<Provider>,
    /// Did the tenant upload the provider? Else it is everybody's.
    is_own: bool,
    pub(crate) instances: Arc<Instances>,
    pub(crate) application: Arc<RegisteredApplication>,
    pub(crate) purpose: SendOptions,
    pub(crate) counters: DeliveryCounters,
    pub(crate) undecoded: DecodeQueue,
    /// The application's place for this send.
    _place: OwnedSemaphorePermit,
}

/// What a delivery is for, beside sending.
pub(crate) struct SendOptions {
    /// The account of the tenant that sends.
    pub payer: Arc<Account>,
    /// Hand on the service's own answers.
    pub native: bool,
    /// Go as far as the wire and no further.
    pub validate_only: bool,
}

/// One notification for some targets.
pub(crate) struct Batch {
    /// What the caller calls the first target; the others follow.
    pub first: usize,
    /// Of the whole send; the batch is for those in `range`.
    all: Arc<[Target]>,
    range: Range<usize>,
    pub notification: Arc<Notification>,
    /// Does the notification ask the service to check it and to deliver nothing?
    only_checked: bool,
    pub deadline: Instant,
    /// As many bytes per target as the manifest asks for; kept, so that a retry gives the same bytes.
    pub entropy: Vec<u8>,
}

/// One exchange, and which of the batch's targets it covers.
pub(crate) struct EncodedRequest {
    pub covers: Vec<usize>,
    pub message: Arc<Message>,
    pub exchange: Exchange,
}

/// What an exchange came to.
pub(crate) struct BatchResults {
    /// With the numbers of the targets as the caller counts them.
    pub results: Vec<DeliveryResult>,
    pub native: Option<String>,
}

/// What one try came to.
pub(crate) struct ExchangeResult {
    pub fates: Vec<Fate>,
    pub native: Option<String>,
    pub new_token: bool,
}

impl Batch {
    pub fn targets(&self) -> &[Target] {
        &self.all[self.range.clone()]
    }

    /// What became of a target, given what the service said.
    pub(crate) fn fate(&self, outcome: Outcome) -> Fate {
        match outcome.disposition {
            Disposition::Delivered | Disposition::Replaced(_) if self.only_checked => Fate::Valid,
            _ => Fate::Settled(outcome),
        }
    }
}

impl Delivery {
    pub fn new(
        gateway: Gateway,
        provider: Arc<Provider>,
        is_own: bool,
        tenant: &TenantId,
        application: Arc<RegisteredApplication>,
        purpose: SendOptions,
    ) -> Result<Self, Error> {
        let place = application.places.clone().try_acquire_owned().map_err(|_| {
            let message = "too many requests of this application are under way, try again later";
            Error::new(Kind::Overloaded, "application_busy", message)
        })?;
        let instances = provider.instances(tenant);
        let counters =
            DeliveryCounters::new(&gateway, tenant, &application.record.id, &provider.manifest().name);
        let undecoded = DecodeQueue::default();
        let tenant = tenant.clone();
        Ok(Self {
            gateway,
            tenant,
            provider,
            is_own,
            instances,
            application,
            purpose,
            counters,
            undecoded,
            _place: place,
        })
    }

    /// Who uploaded the provider; None: it is everybody's.
    pub fn owner(&self) -> Option<&TenantId> {
        self.is_own.then_some(&self.tenant)
    }

    /// An exchange is as full as the service lets it be: a batch that is smaller would split it.
    pub fn batch_size(&self) -> usize {
        let in_exchange = self.provider.manifest().targets_per_exchange as usize;
        in_exchange.clamp(BATCH, LARGEST_BATCH)
    }

    /// Some targets of the delivery, with the randomness that their provider wants.
    pub fn batch(
        &self,
        first: usize,
        (all, range): (Arc<[Target]>, Range<usize>),
        notification: Arc<Notification>,
        deadline: Instant,
    ) -> Result<Arc<Batch>, Error> {
        let mut entropy = vec![0; range.len() * self.provider.manifest().entropy as usize];
        rand::rng().fill_bytes(&mut entropy);
        let only_checked = only_checked(&notification);
        Ok(Arc::new(Batch { first, all, range, notification, only_checked, deadline, entropy }))
    }
}

/// Is one of the options set that the contract keeps for this?
fn only_checked(notification: &Notification) -> bool {
    let mut options = notification.options.iter();
    options.any(|(name, value)| value == "true" && ONLY_CHECK.contains(&name.as_str()))
}
