//! What the gateway is asked for, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::duplicates::Duplicates;
use crate::status::DeliveryResult;
use crate::tenants::Permission;
use pushlet_model::contract::{Environment, Target};

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
    pub targets: Arc<[Target]>,
    /// One per target, in order.
    pub results: Vec<DeliveryResult>,
    /// The service's own answer, if it was asked for and there is one: a JSON text.
    pub native: Option<String>,
}

/// The targets of a stream.
pub enum Targets {
    /// All are known, so many: they must be within the tenant's limits at once.
    Counted(usize),
    /// They come one by one and wait for their turn, for as long as this permission holds.
    Open(Permission),
}
