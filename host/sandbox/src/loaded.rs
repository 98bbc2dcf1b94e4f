//! What all instances of a component share.

use std::sync::Arc;

use wasmtime::component::InstancePre;

use super::guest::GuestState;
use super::limits::ComponentTrust;
use super::management::CollectionManager;
use super::sandbox::Sandbox;
use pushlet_model::contract::codec;
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_quota::account::MemoryReservation;

/// What all instances of a component share.
pub(super) struct LoadedComponent {
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) component: InstancePre<GuestState>,
    pub(super) codec: codec::GuestIndices,
    pub(super) manifest: ProviderManifest,
    pub(super) manager: Option<CollectionManager>,
    pub(super) trust: ComponentTrust,
    pub(super) digest: String,
    /// Its code, on the account of its tenant, for as long as anything may still call it.
    pub(super) _code: Option<MemoryReservation>,
    #[cfg(feature = "native")]
    pub(super) native: Option<&'static dyn crate::native::NativeCodec>,
}
