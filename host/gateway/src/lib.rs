//! The middle of the flow: finds the application, has the provider encode, sends, has it decode, and
//! says what became of every target. The only crate that sees both the sandbox and the transport.
//!
//! - `send`, `open`: what is asked, and the application that it is asked for
//! - `deliver`, `course`, `exchange`, `retry`, `decode`: from targets to exchanges, and what came of each
//! - `stream`, `window`: lines in flight
//! - `authorize`, `endpoints`: what an exchange is sent with, and where to
//! - `register`, `certificates`, `manage`: applications, their credentials, what the service keeps for them
//! - `uploads`: components of tenants
//! - [`tenants`], `tenancy`: keys, limits, suspension
//! - `meters`, `counters`, `figures`, `recent`, `status`: what operators see

mod authorize;
mod certificates;
mod counters;
mod course;
mod decode;
mod deliver;
mod duplicates;
mod endpoints;
mod exchange;
mod failure;
mod figures;
mod manage;
mod meters;
mod open;
mod recent;
mod register;
mod retry;
mod send;
mod status;
mod storage_check;
mod stream;
mod tenancy;
pub mod tenants;
mod uploads;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::tenants::{Tenants, Usage};
use pushlet_credential::{Authorizer, CredentialSummary};
use pushlet_model::contract::management::Collection;
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_model::contract::{Environment, Target};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_registry::{ApplicationEntry, Registry};
use pushlet_sandbox::{CollectionItems, ProviderCatalogue};
use pushlet_settings as config;
use pushlet_transport::Transport;

pub use certificates::Expiring;
pub use duplicates::Duplicates;
use endpoints::Destinations;
pub use figures::{LimitUse, Readiness, Standing};
pub use manage::{Errand, Work};
use meters::Meters;
pub use pushlet_registry::{AnswerStore, DeadToken, StoredAnswer};
use recent::Recent;
pub use recent::RecentFailure;
pub use status::{DeliveryResult, Fate, Status};
use storage_check::StorageCheck;
pub use stream::{Gate, HeldLine, Line, Stop, Stream, Targets};
pub use uploads::{
    Policy, ProviderEntry, ProviderLog, ProviderView, SecretHost, Upload, UploadRefusal, Uploads,
    for_everybody,
};

/// A registration as it was uploaded: text fields and files by field name.
#[derive(Default)]
pub struct Registration {
    /// None: one is made.
    pub application_id: Option<String>,
    /// The provider's name; None: found by the credential that is there.
    pub provider: Option<String>,
    /// None: as `{provider}_mode` says, else production.
    pub environment: Option<Environment>,
    /// All other fields, secrets among them, by name.
    pub fields: BTreeMap<String, Vec<u8>>,
    /// An unknown name is an error; else it is passed over.
    pub strict: bool,
}

/// What may be told about an application.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Application)]
pub struct ApplicationView {
    pub id: String,
    pub provider: String,
    /// `production` or `development`.
    pub environment: &'static str,
    pub settings: BTreeMap<String, String>,
    pub credential: Option<CredentialSummary>,
}

/// All that a provider says of itself.
#[derive(Clone)]
pub struct Described {
    /// SHA-256 of the component.
    pub digest: String,
    pub manifest: ProviderManifest,
    pub collections: Vec<Collection>,
}

/// One notification for some targets.
pub struct Send {
    /// The `type` of the request, if it has one.
    pub provider: Option<String>,
    pub via: Via,
    pub notification: Fields,
    pub targets: Vec<Target>,
    pub duplicates: Duplicates,
    /// Hand on the service's answer in its own shape, where it has one (classic GCM callers).
    pub native: bool,
    /// Nothing is sent: is everything there that a send needs?
    pub validate_only: bool,
    /// None: the configured one.
    pub deadline: Option<Duration>,
}

/// What all targets of a stream share.
pub struct Shared {
    pub application_id: String,
    pub notification: Map<String, Value>,
    /// Bytes that the notification takes, about.
    pub size: usize,
    /// Nothing is sent: is everything there that a send needs?
    pub validate_only: bool,
    /// For each target; None: the configured one.
    pub deadline: Option<Duration>,
    pub duplicates: Duplicates,
    pub targets: Targets,
}

/// What becomes of a list of dead tokens that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackRead {
    Keep,
    Clear,
}

/// On whose behalf it is sent.
pub enum Via {
    /// A registered application.
    Application(String),
    /// Secrets that came with the send itself (`gcm_api_key`), by field name.
    Inline(BTreeMap<String, Vec<u8>>),
}

/// The notification's fields as they came, by name; see `notification` for the names.
pub enum Fields {
    /// From a form, whose values are text, and from a JSON body of a classic route, whose values have types.
    Classic(BTreeMap<String, Vec<u8>>, Map<String, Value>),
    /// From JSON: typed values.
    Strict(Map<String, Value>),
}

/// What became of a send.
pub struct Report {
    /// The name of the provider that sent it.
    pub provider: String,
    /// Those of the send.
    pub targets: Vec<Target>,
    /// One per target, in order.
    pub results: Vec<DeliveryResult>,
    /// The service's own answer, if it was asked for and there is one: a JSON text.
    pub native: Option<String>,
}

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

/// Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    catalogue: Arc<ProviderCatalogue>,
    uploads: Uploads,
    registry: Arc<Registry>,
    transport: Transport,
    authorizer: Authorizer,
    destinations: Destinations,
    delivery: config::DeliveryConfig,
    feedback: usize,
    places: usize,
    stream_window: usize,
    tenants: Arc<Tenants>,
    meters: Meters,
    recent: Recent,
    storage_check: StorageCheck,
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
        let destinations = Destinations::new(settings.endpoints);
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
        certificates::watch(Arc::downgrade(&inner));
        Self(inner)
    }

    /// Checks and keeps an application; an existing one with the same id is replaced. No network.
    /// Answers the application's id. Reading a PKCS#12 file takes its time: not for an async thread, but for
    /// one of a Tokio runtime.
    pub fn register(&self, tenant: &TenantId, registration: Registration) -> Result<String, Error> {
        tokio::runtime::Handle::current().block_on(async {
            let (id, replaced) = self.0.register(tenant, registration).await?;
            if let Some(replaced) = replaced {
                certificates::retire(Arc::downgrade(&self.0), tenant.clone(), replaced);
            }
            Ok(id)
        })
    }

    /// Sends one notification to each target. `Err`: nothing was sent, for a reason that all targets share.
    ///
    /// Dropping the future loses the answers of what is already sent.
    pub async fn send(&self, tenant: &TenantId, send: Send) -> Result<Report, Error> {
        self.0.send(tenant, send).await
    }

    /// The tenant's applications, by id.
    pub fn applications(&self, tenant: &TenantId) -> Vec<ApplicationView> {
        self.0.registry.list(tenant).iter().map(|entry| ApplicationView::of(entry)).collect()
    }

    pub fn application(&self, tenant: &TenantId, id: &str) -> Result<ApplicationView, Error> {
        Ok(ApplicationView::of(&*self.0.registry.get(tenant, id)?))
    }

    /// Forgets an application; sends under way finish.
    pub async fn remove(&self, tenant: &TenantId, id: &str) -> Result<(), Error> {
        let (registry, owner, id) = (self.0.registry.clone(), tenant.clone(), id.to_owned());
        let remove = move || registry.remove(&owner, &id);
        let removed = tokio::task::spawn_blocking(remove).await.map_err(Error::internal)??;
        certificates::retire(Arc::downgrade(&self.0), tenant.clone(), removed);
        Ok(())
    }

    /// Opens a stream of targets that share an application and a notification. Nothing is sent yet.
    pub async fn stream(&self, tenant: &TenantId, shared: Shared) -> Result<Stream, Error> {
        self.0.stream(tenant, shared).await
    }

    /// Makes, reads or deletes what the push service keeps for an application. The error names the provider.
    pub async fn manage(&self, tenant: &TenantId, errand: Errand) -> Result<CollectionItems, (String, Fate)> {
        self.0.manage(tenant, errand).await
    }

    /// The tokens that were reported dead since the list was cleared last.
    pub fn feedback(
        &self,
        tenant: &TenantId,
        application_id: &str,
        read: FeedbackRead,
    ) -> Result<Vec<DeadToken>, Error> {
        let entry = self.0.registry.get(tenant, application_id)?;
        Ok(match read {
            FeedbackRead::Keep => entry.feedback.list(),
            FeedbackRead::Clear => entry.feedback.take(),
        })
    }

    /// The certificates of all tenants that end within 30 days, or have ended; the soonest first.
    pub fn expiring(&self) -> Vec<Expiring> {
        self.0.expiring(SystemTime::now())
    }

    /// Whether this gateway can serve now, and what it sees.
    pub async fn readiness(&self) -> Readiness {
        self.0.readiness().await
    }

    /// What a tenant's people want to see at a glance.
    pub fn standing(&self, tenant: &TenantId) -> Standing {
        self.0.standing(tenant)
    }

    /// All figures of the gateway and what is below it, in the OpenMetrics text format without its end.
    /// `limits`: those of what is above it.
    pub fn figures(&self, text: &mut String, limits: &[LimitUse]) -> std::fmt::Result {
        self.0.figures(text, limits)
    }

    /// Where answers are kept that shall outlive the process; None: nothing does.
    pub fn answers(&self) -> Option<AnswerStore> {
        self.0.registry.answers()
    }

    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.0.tenants
    }

    /// What a tenant uses of its limits.
    pub fn usage(&self, tenant: &TenantId) -> Result<Usage, Error> {
        self.0.usage(tenant)
    }

    /// Forgets a tenant with all that it has; its sends under way finish. Must run to its end.
    pub async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        self.0.remove_tenant(tenant).await
    }

    /// What the providers that a tenant has say of themselves.
    pub fn described(&self, tenant: &TenantId) -> Vec<Described> {
        let providers = self.0.catalogue.of_tenant(tenant);
        let described = providers.all().map(|provider| Described {
            digest: provider.digest().to_owned(),
            manifest: provider.manifest().clone(),
            collections: provider.collections().to_vec(),
        });
        described.collect()
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

impl ApplicationView {
    fn of(entry: &ApplicationEntry) -> Self {
        let description = &entry.description;
        Self {
            id: entry.id.clone(),
            provider: description.provider.clone(),
            environment: match description.environment() {
                Environment::Production => "production",
                Environment::Development => "development",
            },
            settings: description.settings.iter().cloned().collect(),
            credential: description.credential.clone(),
        }
    }
}

/// Milliseconds since the Unix epoch, as the contract counts.
fn unix_milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
