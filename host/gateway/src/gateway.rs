//! What every operation of the gateway works with.

use std::sync::Arc;

use pushlet_credential::Authorizer;
use pushlet_registry::Registry;
use pushlet_sandbox::ProviderCatalogue;
use pushlet_settings as config;
use pushlet_transport::Transport;

use crate::endpoints::EndpointResolver;
use crate::meters::Meters;
use crate::recent::Recent;
use crate::storage_check::StorageCheck;
use crate::tenants::Tenants;
use crate::uploads::Uploads;

/// Registers applications and sends for them. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub catalogue: Arc<ProviderCatalogue>,
    pub uploads: Uploads,
    pub registry: Arc<Registry>,
    pub transport: Transport,
    pub authorizer: Authorizer,
    pub destinations: EndpointResolver,
    pub delivery: config::DeliveryConfig,
    /// Most dead tokens kept for each application.
    pub feedback: usize,
    /// Most sends of one application at a time.
    pub places: usize,
    /// Most targets of one stream in flight.
    pub stream_window: usize,
    pub tenants: Arc<Tenants>,
    pub meters: Meters,
    pub recent: Recent,
    pub storage_check: StorageCheck,
}
