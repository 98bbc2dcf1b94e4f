//! What the server knows: the applications of each tenant, and their dead tokens.

mod feedback;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::contract;
use crate::credential::Credential;
use crate::error::{Error, Kind};
use crate::tenant::TenantId;

pub use feedback::{DeadToken, Feedback};

/// A registered application, ready to send for.
pub struct Application {
    /// What components see of it.
    pub record: contract::Application,
    /// The name of its provider.
    pub provider: String,
    pub credential: Option<Credential>,
    pub feedback: Feedback,
}

/// The applications of all tenants, in memory.
pub struct Registry {
    applications: RwLock<HashMap<TenantId, HashMap<String, Arc<Application>>>>,
    /// Most applications of one tenant.
    most: usize,
}

impl Registry {
    pub fn new(most: usize) -> Self {
        Self { applications: RwLock::default(), most }
    }

    /// Keeps an application; one with the same id is replaced, and sends under way finish with the old one.
    pub fn put(&self, tenant: &TenantId, application: Application) -> Result<(), Error> {
        let mut all = self.applications.write().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(tenant.clone()).or_default();
        let id = &application.record.id;
        match own.get(id) {
            Some(old) => application.feedback.take_over(&old.feedback),
            None if own.len() >= self.most => {
                let message =
                    format!("there are {} applications already, the most that is allowed", self.most);
                return Err(Error::new(Kind::Throttled, "too_many_applications", message));
            }
            None => {}
        }
        own.insert(id.clone(), Arc::new(application));
        Ok(())
    }

    /// The applications of all tenants.
    pub fn all(&self) -> Vec<(TenantId, Arc<Application>)> {
        let all = self.applications.read().unwrap_or_else(PoisonError::into_inner);
        let of = |(tenant, own): (&TenantId, &HashMap<String, Arc<Application>>)| {
            own.values().map(|application| (tenant.clone(), application.clone())).collect::<Vec<_>>()
        };
        all.iter().flat_map(of).collect()
    }

    /// The tenant's applications, by id.
    pub fn list(&self, tenant: &TenantId) -> Vec<Arc<Application>> {
        let all = self.applications.read().unwrap_or_else(PoisonError::into_inner);
        let mut own: Vec<_> = all.get(tenant).into_iter().flat_map(HashMap::values).cloned().collect();
        own.sort_by(|one, other| one.record.id.cmp(&other.record.id));
        own
    }

    /// Forgets an application; sends under way finish with it.
    pub fn remove(&self, tenant: &TenantId, id: &str) -> Result<(), Error> {
        let mut all = self.applications.write().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(tenant).and_then(|own| own.remove(id)).map(drop).ok_or_else(not_found)
    }

    pub fn get(&self, tenant: &TenantId, id: &str) -> Result<Arc<Application>, Error> {
        let all = self.applications.read().unwrap_or_else(PoisonError::into_inner);
        all.get(tenant).and_then(|own| own.get(id)).cloned().ok_or_else(not_found)
    }
}

fn not_found() -> Error {
    let message = "no application found for the provided application_id";
    Error::new(Kind::NotFound, "application_not_found", message)
}
