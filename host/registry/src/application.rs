//! A registered application.

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use super::feedback::FeedbackList;
use pushlet_credential::Credential;
use pushlet_model::contract;
use pushlet_model::warnings::RepeatedWarning;

/// A registered application, ready to send for.
pub struct RegisteredApplication {
    /// What components see of it.
    pub record: contract::Application,
    /// The name of its provider.
    pub provider: String,
    pub credential: Option<Credential>,
    pub feedback: Arc<FeedbackList>,
    /// Permits for its sends in flight.
    pub places: Arc<Semaphore>,
    /// Once it was asked for.
    pub identity: OnceLock<ConnectionIdentity>,
    /// Its push service, or the one that gives it tokens, could not be reached.
    pub unreached: RepeatedWarning,
}

/// What decides which connections an application uses.
pub struct ConnectionIdentity {
    /// The settings that are part of it.
    pub settings: Vec<String>,
    pub digest: [u8; 32],
}
