//! From a send to its results: the application, the provider, the notification, the targets; then one notification to
//! many targets, each tried until its result is final.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::capture::{Capture, CapturedSend};
use crate::delivery::{Batch, Delivery, EncodedRequest, MOST_AT_ONCE, SendOptions};
use crate::duplicates::{Duplicates, SeenTargets};
use crate::gateway::{Gateway, provider_of};
use crate::result::{BatchResults, DeliveryResult, IndexedResult};
use crate::retry::RetryState;
use crate::slots::FutureSlots;
use pushlet_model::contract::manifest::{Origin, ProviderManifest, TargetKind};
use pushlet_model::contract::{Notification, Recipient, Target};
use pushlet_model::error::Error;
use pushlet_model::notification;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Steps;
use pushlet_registry::RegisteredApplication;
use pushlet_sandbox::{Provider, TenantProviders, target_url};

/// Targets that are looked at in a unit of [`Steps`].
const LOOKS_PER_UNIT: usize = 32;

/// One notification for some targets.
pub struct Send {
    /// The `type` of the request, if it has one.
    pub provider: Option<String>,
    pub via: Via,
    pub notification: Fields,
    pub targets: Vec<Recipient>,
    pub duplicates: Duplicates,
    /// Return the service's own answer, where there is one (classic GCM callers).
    pub native: bool,
    /// Check that everything a send needs is there, and send nothing.
    pub validate_only: bool,
    /// Return what was done.
    pub capture: bool,
    /// Of the HTTP request, for the provider's log.
    pub request_id: Option<Arc<str>>,
    /// None: the configured deadline.
    pub deadline: Option<Duration>,
}

/// The application that a send is for.
pub enum Via {
    /// A registered application.
    Application(String),
    /// Secrets that came with the request itself (`gcm_api_key`), by field name.
    Inline(BTreeMap<String, Vec<u8>>),
}

/// The notification's fields, by name; see [`notification`] for the names.
pub enum Fields {
    /// From a classic route: fields of a form, whose values are text, and fields of a JSON body, whose values
    /// have types.
    Classic(BTreeMap<String, Vec<u8>>, Map<String, Value>),
    /// From a `/v1` route: JSON values.
    Strict(Map<String, Value>),
}

/// The results of a send.
pub struct SendReport {
    /// The name of the provider that sent it.
    pub provider: String,
    /// The targets of the send.
    pub targets: Arc<[Recipient]>,
    /// One result per target, in order.
    pub results: Vec<IndexedResult>,
    /// The service's own answer, if it was requested and there is one: a JSON text.
    pub native: Option<String>,
    /// What was done, if that was asked for.
    pub captured: Option<CapturedSend>,
}

/// A send whose application, provider and notification have been found and checked.
pub(crate) struct PreparedSend {
    pub delivery: Delivery,
    pub provider: Arc<Provider>,
    /// All providers that the tenant can use.
    pub providers: Arc<TenantProviders>,
    pub notification: Arc<Notification>,
    /// The time that each target has.
    pub timeout: Duration,
}

impl Gateway {
    /// Sends one notification to each target. `Err`: nothing was sent, for a reason that all targets share.
    ///
    /// Dropping the future loses the results of what is already sent.
    pub async fn send(&self, tenant: &TenantId, send: Send) -> Result<SendReport, Error> {
        let Send {
            provider: named,
            via,
            notification,
            mut targets,
            duplicates,
            native,
            validate_only,
            capture,
            request_id,
            deadline,
        } = send;
        let named = named.as_deref();
        // A dry run does not count as a push.
        let pushes = if validate_only { 0 } else { targets.len() };
        // Before anything that tenants share: a tenant at its limit must not load an application.
        let place = self.0.tenants.acquire_send_permit(tenant, Some(pushes as u64))?;
        let application = self.sender(tenant, named, via).await?;
        let purpose = SendOptions::new(place.account().clone(), validate_only);
        let purpose = SendOptions { native, request_id, ..purpose };
        let mut opened =
            self.open(tenant, application, named, (notification, &mut targets), purpose, deadline).await?;
        let seen = |sender| Arc::new(Capture::new(false, sender, opened.notification.clone()));
        let capture = capture.then(|| seen(opened.delivery.sender()));
        opened.delivery.purpose.capture.clone_from(&capture);
        let targets = Arc::from(targets);
        let BatchResults { results, native } = opened.deliver(&targets, duplicates).await?;
        let provider = opened.provider.manifest().name.clone();
        let captured = capture.map(|capture| capture.take());
        Ok(SendReport { provider, targets, results, native, captured })
    }

    /// Returns the application that is sent for.
    async fn sender(
        &self,
        tenant: &TenantId,
        named: Option<&str>,
        via: Via,
    ) -> Result<Arc<RegisteredApplication>, Error> {
        match via {
            Via::Application(id) => self.load_application(tenant, &id).await,
            Via::Inline(fields) => Ok(Arc::new(Box::pin(self.inline(tenant, named, fields)).await?)),
        }
    }

    pub(crate) async fn open(
        &self,
        tenant: &TenantId,
        application: Arc<RegisteredApplication>,
        named: Option<&str>,
        (fields, targets): (Fields, &mut [Recipient]),
        purpose: SendOptions,
        deadline: Option<Duration>,
    ) -> Result<PreparedSend, Error> {
        let providers = self.providers(tenant, &application.provider).await?;
        let provider = provider_of(&application.provider, &providers)?;
        answers_to(provider.manifest(), named)?;
        let fields = with_target_fields(fields, targets, provider.manifest())?;
        let notification = Arc::new(notification(fields, provider.manifest(), &providers)?);
        // A caller may shorten the configured deadline, and never extend it.
        let timeout = deadline.unwrap_or(self.0.delivery.deadline).min(self.0.delivery.deadline);
        let is_own = providers.is_own(&application.provider);
        let delivery = Delivery::new(self.clone(), provider.clone(), is_own, tenant, application, purpose)?;
        Ok(PreparedSend { delivery, provider, providers, notification, timeout })
    }

    /// Creates an application that lives for one send, from the secret that came with the request.
    async fn inline(
        &self,
        tenant: &TenantId,
        named: Option<&str>,
        fields: BTreeMap<String, Vec<u8>>,
    ) -> Result<RegisteredApplication, Error> {
        let takes = |provider: &&Arc<Provider>| {
            let manifest = provider.manifest();
            let inline =
                manifest.credentials.iter().filter(|kind| kind.inline).flat_map(|kind| &kind.secrets);
            named.is_none_or(|name| name == manifest.name)
                && inline.map(|secret| &secret.name).any(|name| fields.contains_key(name))
        };
        let providers = self.all_providers(tenant).await?;
        let provider = providers.all().find(takes).cloned().ok_or_else(|| {
            Error::field(
                "missing_identifier",
                "application_id",
                // The original's words, which callers may compare.
                "an application_id or gcm_api_key are required for this call",
            )
        })?;
        Ok(self.checked_application(&provider, tenant, String::new(), fields).await?.0)
    }
}

impl PreparedSend {
    /// Returns one result per target, in order. A target that the provider does not send to fails alone.
    async fn deliver(
        &self,
        targets: &Arc<[Recipient]>,
        duplicates: Duplicates,
    ) -> Result<BatchResults, Error> {
        let deadline = Instant::now() + self.timeout;
        let unsent = self.unsent(targets, duplicates).await;
        if unsent.is_empty() {
            // The usual case: batches share the list of targets, and no token is cloned.
            return self.delivery.run(targets, &self.notification, deadline).await;
        }
        let mut results = vec![None; targets.len()];
        for (index, result) in unsent {
            self.delivery.counters.settled(&targets[index].target, &result);
            results[index] = Some(IndexedResult::untried(index, result));
        }
        let rest: Vec<usize> = (0..targets.len()).filter(|&index| results[index].is_none()).collect();
        // A batch is a range of one list, so leaving targets out takes a new list.
        let to_send: Arc<[Recipient]> = rest.iter().map(|&index| targets[index].clone()).collect();
        let sent = self.delivery.run(&to_send, &self.notification, deadline).await?;
        for result in sent.results {
            let index = rest[result.index];
            results[index] = Some(IndexedResult { index, ..result });
        }
        Ok(BatchResults { results: results.into_iter().flatten().collect(), native: sent.native })
    }

    /// Returns the results of targets that are not sent to: of a kind that the provider does not support, or
    /// duplicates.
    async fn unsent(&self, targets: &[Recipient], duplicates: Duplicates) -> Vec<(usize, DeliveryResult)> {
        let looks = targets.len() > 1 && duplicates == Duplicates::Skip;
        let mut seen = looks.then(|| SeenTargets::new(&self.delivery.purpose.payer));
        let plain = match looks {
            true => self.delivery.plain_tokens(&self.notification, targets.iter()).await,
            false => HashMap::new(),
        };
        let mut unsent = Vec::new();
        let mut steps = Steps::new(self.delivery.purpose.payer.clone());
        for (index, target) in targets.iter().enumerate() {
            if index % LOOKS_PER_UNIT == 0 {
                steps.before(1).await;
            }
            if let Err(error) = ensure_supports(self.provider.manifest(), target) {
                unsent.push((index, DeliveryResult::Failed(error)));
                continue;
            }
            let plain = plain.get(&index).map(String::as_str);
            let first = seen.as_mut().and_then(|seen| seen.first(index, target, plain, None));
            unsent.extend(first.map(|first| (index, DeliveryResult::Duplicate(first))));
        }
        unsent
    }

    /// Parses another notification for the same provider.
    pub fn notification(&self, fields: Fields) -> Result<Notification, Error> {
        notification(fields, self.provider.manifest(), &self.providers)
    }
}

impl Delivery {
    /// Sends one notification to many targets. Returns one result per target, in order.
    pub async fn run(
        &self,
        targets: &Arc<[Recipient]>,
        notification: &Arc<Notification>,
        deadline: Instant,
    ) -> Result<BatchResults, Error> {
        let mut results: Vec<Option<IndexedResult>> = vec![None; targets.len()];
        let record = |results: &mut Vec<Option<_>>, result: IndexedResult| {
            let index = result.index;
            results[index] = Some(result);
        };
        let mut native = None;
        let mut in_flight = FutureSlots::new();
        let size = self.batch_size();
        let mut starts = (0..targets.len()).step_by(size);
        let mut steps = Steps::new(self.purpose.payer.clone());
        loop {
            // Later batches are encoded as earlier ones complete, so not all requests of a large send are in
            // memory.
            while in_flight.len() < MOST_AT_ONCE {
                let Some(start) = starts.next() else { break };
                let some = (targets.clone(), start..targets.len().min(start + size));
                steps.before(Steps::CALL + some.1.len()).await;
                let batch = self.batch(start, some, notification.clone(), deadline)?;
                let (requests, refused) = self.launch(&batch).await;
                for request in requests {
                    in_flight.push(|| self.settle(batch.clone(), request));
                }
                refused.into_iter().for_each(|result| record(&mut results, result));
            }
            let Some(settled) = in_flight.next().await else { break };
            steps.before(settled.results.len()).await;
            native = settled.native.or(native);
            settled.results.into_iter().for_each(|result| record(&mut results, result));
        }
        let missing = |index| {
            IndexedResult::untried(index, DeliveryResult::Failed(Error::internal("a target was lost")))
        };
        let results = results.into_iter().enumerate();
        let results = results.map(|(index, result)| result.unwrap_or_else(|| missing(index)));
        Ok(BatchResults { results: results.collect(), native })
    }

    /// Encodes the batch. Returns its requests, each to be settled, and the results of what was refused.
    pub async fn launch(&self, batch: &Arc<Batch>) -> (Vec<EncodedRequest>, Vec<IndexedResult>) {
        let (requests, refused) = self.encode_all(batch).await;
        for (index, result) in &refused {
            self.counters.settled(&batch.recipients()[*index].target, result);
            batch.captures.settled(*index, result, batch.recipients());
        }
        let untried = |(index, result)| IndexedResult::untried(batch.first + index, result);
        (requests, refused.into_iter().map(untried).collect())
    }

    /// Tries until every target of the exchange has its final result. One of these futures exists per
    /// exchange in flight, so it is small: the retries are boxed.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` would keep its arguments twice")]
    pub fn settle(&self, batch: Arc<Batch>, work: EncodedRequest) -> impl Future<Output = BatchResults> {
        async move {
            let attempt = self.attempt(&batch, &work).await;
            let mut state = RetryState::new(self, &work);
            // Without the box, the state of the retries would be part of each of these futures.
            if !state.record(self, &batch, work, attempt) {
                Box::pin(state.go_on(self, &batch)).await;
            }
            let mut settled = state.end();
            for IndexedResult { index, result, .. } in &mut settled.results {
                self.counters.settled(&batch.recipients()[*index].target, result);
                self.report_if_dead(&batch.recipients()[*index].target, result);
                batch.captures.settled(*index, result, batch.recipients());
                *index += batch.first;
            }
            settled
        }
    }
}

/// Takes the options of the targets out of a classic request's fields.
fn with_target_fields(
    fields: Fields,
    targets: &mut [Recipient],
    manifest: &ProviderManifest,
) -> Result<Fields, Error> {
    let Fields::Classic(mut fields, mut typed) = fields else { return Ok(fields) };
    let options = notification::take_target_options(&mut fields, &mut typed, manifest)?;
    for recipient in targets {
        let target = std::mem::replace(&mut recipient.target, Target::Device(String::new()));
        recipient.target = notification::classic_target(target, manifest);
        recipient.options.clone_from(&options);
    }
    Ok(Fields::Classic(fields, typed))
}

/// Parses a notification. `providers`: all that the tenant can use.
fn notification(
    fields: Fields,
    manifest: &ProviderManifest,
    providers: &TenantProviders,
) -> Result<Notification, Error> {
    match fields {
        Fields::Classic(fields, typed) => {
            let is_other = |name: &str| providers.get(name).is_some();
            notification::from_form(fields, typed, manifest, is_other)
        }
        Fields::Strict(fields) => {
            let others: Vec<_> = providers.all().map(|other| other.manifest().name.as_str()).collect();
            notification::from_json(fields, manifest, &others)
        }
    }
}

/// Returns an error if the provider does not serve requests of this `type`.
fn answers_to(manifest: &ProviderManifest, named: Option<&str>) -> Result<(), Error> {
    match named {
        Some(name) if name != manifest.name && !manifest.also_answers.iter().any(|other| other == name) => {
            let message = format!("the application is registered for {}, not for {name}", manifest.name);
            Err(Error::field("invalid_type", "type", message))
        }
        _ => Ok(()),
    }
}

pub(crate) fn ensure_supports(manifest: &ProviderManifest, recipient: &Recipient) -> Result<(), Error> {
    let (kind, name) = match &recipient.target {
        Target::Device(_) => (TargetKind::Device, "device tokens"),
        Target::Topic(_) => (TargetKind::Topic, "topics"),
        Target::Condition(_) => (TargetKind::Condition, "conditions"),
        Target::Channel(_) => (TargetKind::Channel, "channels"),
        Target::Url(_) => (TargetKind::Url, "URLs"),
    };
    if !manifest.targets.contains(&kind) {
        let message = format!("{} does not send to {name}", manifest.name);
        return Err(Error::field("unsupported_target", "target", message));
    }
    notification::check_recipient(recipient, manifest)?;
    match &recipient.target {
        // The provider would trap on such a URL, be blamed for it, and fail the other targets of the batch.
        Target::Url(url) if manifest.endpoints.iter().any(|one| matches!(one.origin, Origin::AnyHttps)) => {
            let wrong = |rule| Error::field("invalid_target", "target", format!("the target's URL: {rule}"));
            target_url(url).map(drop).map_err(wrong)
        }
        _ => Ok(()),
    }
}
