//! What all instances of a component share.

use std::sync::Arc;

use wasmtime::component::InstancePre;

use super::guest::Guest;
use super::limits::Trust;
use super::management::Manager;
use super::sandbox::Sandbox;
use pushlet_model::contract::codec;
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_quota::account::Reservation;

/// What all instances of a component share.
pub(super) struct Loaded {
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) component: InstancePre<Guest>,
    pub(super) codec: codec::GuestIndices,
    pub(super) manifest: ProviderManifest,
    pub(super) manager: Option<Manager>,
    pub(super) trust: Trust,
    pub(super) digest: String,
    /// Its code, on the account of its tenant, for as long as anything may still call it.
    pub(super) _code: Option<Reservation>,
    #[cfg(feature = "native")]
    pub(super) native: Option<&'static dyn crate::native::Codec>,
}
