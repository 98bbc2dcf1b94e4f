//! The middle of the flow: finds the application, has the provider encode, sends, has it decode, and
//! says what became of every target. The only crate that sees both the sandbox and the transport.
//!
//! - `gateway`, `request`, `send`: what is asked, and the application that it is asked for
//! - `delivery`, `run`, `encode`, `exchange`, `decode`, `retry_state`, `retry`: from targets to exchanges, and
//!   what came of each
//! - `stream`, `concurrency`: lines in flight
//! - `authorize`, `endpoints`: what an exchange is sent with, and where to
//! - `register`, `certificates`, `collections`: applications, their credentials, what the service keeps for them
//! - `uploads`: components of tenants
//! - [`tenants`], `tenant_usage`: keys, limits, suspension
//! - `meters`, `counters`, `stats`, `recent`, `status`: what operators see

mod applications;
mod authorize;
mod certificates;
mod collections;
mod concurrency;
mod context;
mod counters;
mod decode;
mod decode_queue;
mod delivery;
mod duplicates;
mod encode;
mod endpoints;
mod exchange;
mod failure;
mod gateway;
#[cfg(feature = "testing")]
mod in_memory;
mod meters;
mod providers;
mod recent;
mod register;
mod request;
mod retry;
mod retry_state;
mod run;
mod send;
mod stats;
mod status;
mod storage_check;
mod stream;
mod tenant_usage;
pub mod tenants;
mod uploads;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use pushlet_credential::Authorizer;
use pushlet_registry::Registry;
use pushlet_settings as config;
use pushlet_transport::Transport;

use endpoints::EndpointResolver;
use gateway::Inner;
use meters::Meters;
use recent::Recent;
use storage_check::StorageCheck;
use tenants::Tenants;

pub use applications::ApplicationView;
pub use certificates::Expiring;
pub use collections::{CollectionRequest, ItemOperation};
pub use duplicates::Duplicates;
pub use gateway::Gateway;
pub use providers::Described;
pub use pushlet_registry::{AnswerStore, DeadToken, StoredAnswer};
pub use recent::RecentFailure;
pub use request::{FeedbackRead, Fields, Registration, Report, Send, Shared, Targets, Via};
pub use stats::{LimitGauge, Readiness, TenantStatus};
pub use status::{DeliveryResult, Fate, Status};
pub use stream::{Gate, HeldLine, Line, Stop, Stream};
pub use uploads::{
    Policy, ProviderEntry, ProviderLog, ProviderView, SecretHost, Upload, UploadRefusal, Uploads,
    for_everybody,
};
pub use verdict::utc;

/// How the gateway behaves.
pub struct Settings {
    pub delivery: config::DeliveryConfig,
    pub endpoints: config::EndpointsConfig,
    /// Most dead tokens kept per application.
    pub feedback: usize,
    /// Most sends of one application at a time.
    pub places: usize,
    /// Targets of one stream under way at once.
    pub stream_window: usize,
    /// Applications of one tenant with metrics of their own.
    pub metrics: usize,
}

impl Settings {
    /// The gateway's part of the configuration.
    pub fn of(config: &config::Config) -> Self {
        Self {
            delivery: config.delivery.clone(),
            endpoints: config.endpoints.clone(),
            feedback: config.limits.feedback,
            places: config.limits.application_requests,
            stream_window: config.limits.stream_window,
            metrics: config.metrics.applications,
        }
    }
}

impl Gateway {
    /// Must be called in a Tokio runtime.
    pub fn new(
        tenants: Arc<Tenants>,
        registry: Arc<Registry>,
        uploads: Uploads,
        transport: Transport,
        settings: Settings,
    ) -> Self {
        let destinations = EndpointResolver::new(settings.endpoints);
        let tokens = authorize::Tokens::new(transport.clone());
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
            recent: Recent::default(),
            storage_check: StorageCheck::default(),
        });
        let gateway = Self(inner);
        gateway.watch_certificates();
        gateway
    }

    /// The store for responses that must outlive the process. None: the registry is not durable.
    pub fn answers(&self) -> Option<AnswerStore> {
        self.0.registry.answers()
    }

    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.0.tenants
    }

    /// The components that tenants uploaded.
    pub fn uploads(&self) -> &Uploads {
        &self.0.uploads
    }

    /// Closes the connections to the push services in order; what is still under way gets `within`. Keeps
    /// what is not kept yet.
    pub async fn close(&self, within: Duration) {
        self.0.transport.drain(within).await;
        let registry = self.0.registry.clone();
        let kept = tokio::task::spawn_blocking(move || registry.flush()).await;
        if let Ok(Err(error)) = kept {
            tracing::error!(%error, "the last changes of the registry could not be kept");
        }
    }
}
