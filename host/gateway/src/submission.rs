//! Sends of providers of the world `stream-provider`: each target is submitted to the session of its application.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::authorization;
use crate::delivery::{Batch, Delivery, EncodedRequest};
use crate::endpoints::not_configured;
use crate::gateway::{Gateway, provider_of};
use crate::result::{DeliveryResult, ExchangeResult, deadline_exceeded, unknown};
use crate::sessions::{QueuedSubmission, SessionPeer, Ticket};
use pushlet_credential::Credential;
use pushlet_model::contract::{Context, Recipient};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_registry::{ApplicationEntry, RegisteredApplication};
use pushlet_sandbox::{Instances, Provider};
use pushlet_transport::StreamPeer;

/// The endpoint that submissions go to (see the interface `session`).
const PUSH: &str = "push";
/// The endpoint of the feedback service.
const FEEDBACK: &str = "feedback";
/// How long reading a feedback service may take.
const FEEDBACK_TIMEOUT: Duration = Duration::from_secs(15);

impl Delivery {
    /// Submits one target to the application's session, and waits for what becomes of it.
    pub(crate) async fn submit(&self, batch: &Batch, work: &EncodedRequest) -> ExchangeResult {
        let mut results = Vec::with_capacity(work.covers.len());
        for &index in &work.covers {
            let recipient = &batch.recipients()[index];
            let start = Instant::now();
            let result = match self.purpose.validate_only {
                true => self.try_submission(batch, recipient).await,
                false => self.submit_to_worker(batch, recipient).await,
            };
            if let Ok(DeliveryResult::Settled(_)) = &result {
                self.counters.answered(start.elapsed(), Duration::ZERO);
            }
            results.push(result.unwrap_or_else(DeliveryResult::Failed));
        }
        ExchangeResult { results, native: None, new_token: false }
    }

    async fn submit_to_worker(&self, batch: &Batch, recipient: &Recipient) -> Result<DeliveryResult, Error> {
        let sessions = &self.gateway.0.sessions;
        let peer = || self.gateway.session_peer(&self.tenant, &self.provider, &self.application, PUSH);
        let peer = || peer()?.ok_or_else(|| not_configured(&self.provider.manifest().name));
        let worker = sessions.worker(&self.tenant, &self.application, &self.provider, peer)?;
        let (reply, result) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let (notification, recipient) = (batch.notification.clone(), recipient.clone());
        let submission = QueuedSubmission { notification, recipient, ticket: ticket.clone(), reply };
        match timeout_at(batch.deadline, worker.queue.send(submission)).await {
            Ok(Ok(())) => {}
            // The worker has just ended; the next try finds another one.
            Ok(Err(_)) => {
                return Err(Error::new(Kind::Unavailable, "vendor_unreachable", "the connection ended"));
            }
            Err(_) => return Err(deadline_exceeded()),
        }
        drop(worker);
        match timeout_at(batch.deadline, result).await {
            Ok(Ok(result)) => Ok(result),
            _ if ticket.give_up() => Err(deadline_exceeded()),
            _ => Ok(DeliveryResult::Settled(unknown(
                "the push service did not settle it in time; it may or may not have been delivered",
            ))),
        }
    }

    /// Does everything but to connect.
    async fn try_submission(&self, batch: &Batch, recipient: &Recipient) -> Result<DeliveryResult, Error> {
        let context = Context::at(SystemTime::now(), Vec::new());
        let (application, notification) = (self.application.clone(), batch.notification.clone());
        let (secrets, recipient) = (secret_lengths(&self.application), recipient.clone());
        let recipients = std::slice::from_ref(&recipient).to_vec();
        let attempt = move |instances: &Instances| {
            instances.try_submission(&context, &application.record, &secrets, &notification, &recipients)
        };
        let refused = self.instances.run(attempt).await?;
        match refused.into_iter().next() {
            Some((_, rejection)) => Err(rejection.into()),
            None => Ok(DeliveryResult::Valid),
        }
    }
}

impl Gateway {
    /// Returns where an application's connections go, and who writes to them. None: the operator configured no such
    /// endpoint.
    fn session_peer(
        &self,
        tenant: &TenantId,
        provider: &Arc<Provider>,
        application: &Arc<RegisteredApplication>,
        endpoint: &'static str,
    ) -> Result<Option<SessionPeer>, Error> {
        let manifest = provider.manifest();
        let owner = self.0.catalogue.of_tenant(tenant).is_own(&manifest.name).then_some(tenant);
        let environment = application.record.environment;
        let destination = self.0.destinations.of_stream(owner, manifest, endpoint, environment)?;
        let Some((origin, guarded)) = destination else { return Ok(None) };
        let identity = authorization::identity(tenant, application, manifest);
        Ok(Some(SessionPeer {
            peer: StreamPeer { tenant: tenant.clone(), origin, identity, guarded },
            transport: self.0.transport.clone(),
            instances: provider.instances(tenant),
            application: application.clone(),
            endpoint,
            secrets: secret_lengths(application),
            batch: manifest.targets_per_call as usize,
        }))
    }

    /// Adds what the provider's feedback service lists to the feedback of an application. Nothing is lost if that
    /// fails.
    pub(crate) async fn read_feedback_service(
        &self,
        tenant: &TenantId,
        entry: &ApplicationEntry,
    ) -> Result<(), Error> {
        let name = &entry.description.provider;
        let providers = self.providers(tenant, name).await?;
        let Ok(provider) = provider_of(name, &providers) else { return Ok(()) };
        if !provider.speaks_stream() {
            return Ok(());
        }
        let application = self.load_application(tenant, &entry.id).await?;
        let Some(peer) = self.session_peer(tenant, &provider, &application, FEEDBACK)? else { return Ok(()) };
        let end = Instant::now() + FEEDBACK_TIMEOUT;
        let read = timeout_at(end, self.0.sessions.read_feedback(&Arc::new(peer))).await;
        read.unwrap_or_else(|_| {
            Err(Error::new(
                Kind::Unreachable,
                "vendor_unreachable",
                "the feedback service did not end its list",
            ))
        })
    }
}

/// Returns the names of the secrets that a component may have written, and their lengths.
fn secret_lengths(application: &RegisteredApplication) -> Vec<(String, u32)> {
    let texts = application.credential.iter().flat_map(Credential::texts);
    texts.map(|(name, text)| (name.to_owned(), u32::try_from(text.len()).unwrap_or(u32::MAX))).collect()
}
