//! The middle of the flow: finds the application, has the provider encode, sends, has it decode, and reports
//! the result of every target. Only this crate sees both the sandbox and the transport.
//!
//! - [`Gateway`] (`gateway`): the state of all operations
//! - `send`, `delivery`, `exchange`, `retry`, `result`: from a send to its targets, one request and its
//!   answer, when a push is sent again, and the result of each target
//! - `failure`: what a request without an answer means; `capture`: what a send did, for a caller that asked for it;
//!   `standing_capture`: the same, for a tenant that switched it on; `capturing`: which sends
//! - `stream`, `flow_control`, `duplicates`: lines in flight, and targets that come twice
//! - `queue`: deliveries that outlive their callers, in a fleet
//! - `submission`: sends of providers of the world `stream-provider`; `sessions`: the connections that they speak over
//! - `authorization`, `placement`, `endpoints`: what an exchange is sent with, where a secret stands in it, and
//!   where it is sent to
//! - `registration`, `applications`, `file_applications`, `collections`: applications, their credentials, those that
//!   files describe, and what a push service keeps for them
//! - `uploads`: components of tenants
//! - [`tenants`]: keys, limits, suspension; `webhooks`: what they are told of
//! - `meters`, `history`, `codes`: what is counted and kept of deliveries; `stats`, `activity`, `usage`: what
//!   operators and tenants see of it

mod activity;
mod applications;
mod authorization;
mod capture;
mod capturing;
mod codes;
mod collections;
mod delivery;
mod duplicates;
mod endpoints;
mod exchange;
mod failure;
mod file_applications;
mod flow_control;
mod gateway;
mod history;
mod meters;
mod queue;
mod registration;
mod result;
mod retry;
mod send;
mod sessions;
mod slots;
mod standing_capture;
mod stats;
mod stream;
mod submission;
pub mod tenants;
mod uploads;
mod usage;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use pushlet_credential::Authorizer;
use pushlet_registry::Registry;
use pushlet_settings as config;
use pushlet_transport::Transport;

use endpoints::EndpointResolver;
use gateway::{Inner, LOOK_UPS, StorageCheck};
use history::RecentFailures;
use meters::Meters;
use tenants::Tenants;
use webhooks::Webhooks;

pub use activity::{ApplicationOutcomes, ProviderState, StatusQuery, TenantActivity, TenantStatus};
pub use applications::{
    ApplicationOrder, ApplicationPage, ApplicationQuery, ApplicationView, Expiring, FeedbackRead,
};
pub use capture::{CapturedAnswer, CapturedCall, CapturedExchange, CapturedSend, CapturedSender};
pub use collections::{CollectionRequest, ItemOperation};
pub use duplicates::Duplicates;
pub use file_applications::FileChanges;
pub use flow_control::{Gate, HeldLine, Line, Shared, Stop, StreamResult, Targets};
pub use gateway::{Described, Gateway};
pub use history::{FailureReason, Minute, RecentFailure};
pub use pushlet_registry::{
    Actor, AnswerStore, AuditEntry, Claim, ClaimedKey, DeadToken, FeedbackPage, Fleet, NodeView,
    StoredAnswer, UsageCounts, UsagePeriod,
};
pub use queue::{DeliveryPage, DeliveryView, PendingDelivery, ResultDetails};
pub use registration::Registration;
pub use result::{DeliveryResult, IndexedResult, SendTally, Status, utc};
pub use send::{Fields, Send, SendReport, Via};
pub use standing_capture::{CaptureSettings, CaptureState, KeptSend};
pub use stats::{LimitGauge, Readiness};
pub use stream::Stream;
pub use uploads::{
    Policy, ProviderEntry, ProviderLog, ProviderView, SecretHost, Upload, UploadRefusal, Uploads,
    compile_limits, for_everybody,
};
pub use webhooks::{ChangedWebhook, WebhookAttempt, WebhookRequest, WebhookView};

/// Settings of the gateway.
pub struct Settings {
    pub delivery: config::DeliveryConfig,
    pub endpoints: config::EndpointsConfig,
    /// All connections lead to a recorder, so an endpoint that the operator must configure needs no place of its own.
    pub is_recorded: bool,
    /// Most dead tokens kept per application.
    pub feedback: usize,
    /// Most sends of one application at a time.
    pub places: usize,
    /// Most targets of one stream in flight.
    pub stream_window: usize,
    /// Most applications of one tenant with metrics of their own.
    pub metrics: usize,
    pub webhooks: config::WebhooksConfig,
}

impl Settings {
    /// Returns the gateway's part of the configuration.
    pub fn of(config: &config::Config) -> Self {
        Self {
            delivery: config.delivery.clone(),
            endpoints: config.endpoints.clone(),
            is_recorded: false,
            feedback: config.limits.feedback,
            places: config.limits.application_requests,
            stream_window: config.limits.stream_window,
            metrics: config.metrics.applications,
            webhooks: config.webhooks.clone(),
        }
    }
}

impl Gateway {
    /// Creates a gateway. Must be called in a Tokio runtime.
    pub fn new(
        tenants: Arc<Tenants>,
        registry: Arc<Registry>,
        uploads: Uploads,
        transport: Transport,
        settings: Settings,
    ) -> Self {
        let destinations = EndpointResolver::new(settings.endpoints, settings.is_recorded);
        let tokens = authorization::Tokens::new(transport.clone());
        let inner = Arc::new(Inner {
            catalogue: uploads.catalogue().clone(),
            uploads,
            registry,
            transport,
            authorizer: Authorizer::new(Arc::new(tokens), tenants.accounts().clone()),
            destinations,
            delivery: settings.delivery,
            feedback: settings.feedback,
            places: settings.places,
            stream_window: settings.stream_window,
            tenants,
            meters: Meters::new(settings.metrics),
            recent: RecentFailures::default(),
            waiting_usage: Default::default(),
            open_streams: Arc::default(),
            captures: Default::default(),
            webhooks: Webhooks::default(),
            webhook_settings: settings.webhooks,
            storage_check: StorageCheck::default(),
            look_ups: Semaphore::new(LOOK_UPS),
            sessions: sessions::Sessions::new(),
            queue: Arc::default(),
        });
        let gateway = Self(inner);
        if let Some(fleet) = gateway.fleet() {
            let tenants = Arc::downgrade(&gateway.0.tenants);
            fleet.count_in_flight(move || tenants.upgrade().map_or(0, |tenants| tenants.in_flight()));
        }
        gateway.watch_certificates();
        gateway.sample_minutes();
        gateway.run_webhooks();
        gateway.follow_registry();
        gateway.run_queue();
        gateway
    }

    /// Returns the store for responses that must outlive the process. None: the registry is not durable.
    pub fn answers(&self) -> Option<AnswerStore> {
        self.0.registry.answers()
    }

    /// Returns what the nodes of a fleet share; None: this server is alone.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.0.registry.fleet()
    }

    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.0.tenants
    }

    /// Returns the components that tenants uploaded.
    pub fn uploads(&self) -> &Uploads {
        &self.0.uploads
    }

    /// Closes the connections to the push services in order: requests in flight get `within` to finish. Then
    /// writes the registry's last changes.
    pub async fn close(&self, within: Duration) {
        self.0.queue.close(within).await;
        tokio::join!(self.0.transport.drain(within), self.0.sessions.close(within));
        if let Some(fleet) = self.fleet() {
            // Tells the others within a second, or not at all.
            let _ = tokio::time::timeout(Duration::from_secs(1), fleet.leave()).await;
        }
        // What was sent last is told after the next start.
        self.tell_webhooks().await;
        let inner = self.0.clone();
        let kept = tokio::task::spawn_blocking(move || {
            inner.store_usage();
            inner.registry.flush()
        });
        let kept = kept.await;
        if let Ok(Err(error)) = kept {
            tracing::error!(%error, "the last changes of the registry could not be kept");
        }
    }
}

/// For tests of the crates that call this one.
#[cfg(feature = "testing")]
impl Gateway {
    /// Creates a gateway without files and providers, whose data ends with the process. Must be called in a Tokio runtime.
    pub fn in_memory() -> Result<Self, pushlet_model::error::Error> {
        use pushlet_model::error::Error;
        use pushlet_quota::account::{AccountSettings, Accounts};
        use pushlet_sandbox::{ComponentCompiler, ProviderCatalogue, ProviderLoader, Sandbox, SandboxLimits};
        use pushlet_transport::TransportSettings;

        let config =
            config::ConfigLayers::new().and_then(config::ConfigLayers::finish).map_err(Error::internal)?;
        let accounts = Accounts::new(AccountSettings::default()).map_err(Error::internal)?;
        let registry = Arc::new(Registry::in_memory(config.limits.feedback).map_err(Error::internal)?);
        let settings = tenants::Settings { requests: config.limits.requests, ..Default::default() };
        let tenants = Tenants::open(registry.clone(), settings, accounts.clone()).map_err(Error::internal)?;
        let tenants = Arc::new(tenants);
        let providers = &config.providers;
        let program = ComponentCompiler::this_program().map_err(Error::internal)?;
        let compiler = ComponentCompiler { program, limits: compile_limits(providers) };
        let loader = ProviderLoader::new(Sandbox::new(SandboxLimits::default(), accounts)?, compiler);
        let uploads = Uploads::new(
            ProviderCatalogue::default(),
            loader,
            tenants.clone(),
            registry.clone(),
            Policy::of(providers),
            providers.compile_jobs,
        );
        let transport = Transport::new(TransportSettings::default()).map_err(Error::internal)?;
        Ok(Self::new(tenants, registry, uploads, transport, Settings::of(&config)))
    }
}
