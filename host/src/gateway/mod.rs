//! The middle of the flow: finds the application, has the provider encode, sends, has it decode, and
//! says what became of every target. The only module that sees both `provider` and `transport`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::contract::{Outcome, Target};
use crate::error::Error;
use crate::tenant::TenantId;

/// A registration as it was uploaded: text fields and files by field name.
#[derive(Default)]
pub struct Registration {
    /// None: one is made.
    pub application_id: Option<String>,
    /// The provider's name; None: found by the credential that is there.
    pub provider: Option<String>,
    /// All other fields, secrets among them, by name.
    pub fields: BTreeMap<String, Vec<u8>>,
}

/// One notification for some targets.
pub struct Send {
    /// The `type` of the request, if it has one.
    pub provider: Option<String>,
    pub via: Via,
    pub notification: Fields,
    pub targets: Vec<Target>,
    /// Hand on the service's answer in its own shape, where it has one (classic GCM callers).
    pub native: bool,
    /// None: the configured one.
    pub deadline: Option<Duration>,
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
    /// From a form: all values are text, and unknown names are passed over as the original did.
    Classic(BTreeMap<String, Vec<u8>>),
    /// From JSON: typed values, and an unknown name is an error.
    Strict(Map<String, Value>),
}

/// What became of a send.
pub struct Report {
    /// The name of the provider that sent it.
    pub provider: String,
    /// One per target, in order.
    pub fates: Vec<Fate>,
    /// The service's own answer, if it was asked for and there is one: a JSON text.
    pub native: Option<String>,
}

/// What became of one target.
pub enum Fate {
    /// The service answered, and the provider read the answer.
    Settled(Outcome),
    /// It did not get that far: refused by the provider, or lost on the way. `Kind::TimedOut` and
    /// code `unknown`: it may or may not have arrived.
    Failed(Error),
}

/// A token that the service reported dead, and since when.
pub struct DeadToken {
    pub device_token: String,
    pub since: SystemTime,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<()>);

impl Gateway {
    /// Checks and keeps an application; an existing one with the same id is replaced. No network.
    /// Answers the application's id.
    pub fn register(&self, _tenant: &TenantId, _registration: Registration) -> Result<String, Error> {
        Err(Error::internal("not yet"))
    }

    /// Sends one notification to each target. `Err`: nothing was sent, for a reason that all targets share.
    pub async fn send(&self, _tenant: &TenantId, _send: Send) -> Result<Report, Error> {
        Err(Error::internal("not yet"))
    }

    /// The tokens that were reported dead since the last call; reading clears the list.
    pub fn feedback(&self, _tenant: &TenantId, _application_id: &str) -> Result<Vec<DeadToken>, Error> {
        Ok(Vec::new())
    }

    /// Why this gateway can not serve now, if so (stopping, no provider loaded).
    pub fn not_ready(&self) -> Option<String> {
        None
    }
}
