//! The steps of one upload.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::shared::{Change, name_taken};
use super::{Policy, ProviderView, UploadRefusal, Uploads, blocking, dry_run};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Work;
use pushlet_sandbox::{ComponentTrust, GuestLog, Provider, ProviderCatalogue, ProviderLoader, digest};

/// The right to upload one component, held until it is dropped.
pub struct Upload {
    change: Change,
    name: String,
    _place: OwnedSemaphorePermit,
}

/// Takes a component of the operator's through the same steps, and adds it for everybody.
pub fn for_everybody(
    catalogue: ProviderCatalogue,
    loader: &ProviderLoader,
    policy: &Policy,
    component: &[u8],
) -> Result<ProviderCatalogue, Error> {
    let provider = loader.load(component, ComponentTrust::Uploaded, &Arc::default())?;
    let name = provider.manifest().name.clone();
    if catalogue.shared().get(&name).is_some() && !policy.allow_shadowing {
        return Err(name_taken(&name));
    }
    policy.check(&name, provider.manifest())?;
    dry_run::run_here(&provider, &TenantId::default_tenant())?;
    Ok(catalogue.with(provider))
}

impl Upload {
    pub(super) fn new(change: Change, name: &str, place: OwnedSemaphorePermit) -> Self {
        Self { change, name: name.to_owned(), _place: place }
    }

    /// Takes the component through all steps. `confirmed`: hosts that may get secrets though the version before did
    /// not send any there. `Err`: nothing has changed.
    pub async fn finish(
        self,
        component: Vec<u8>,
        confirmed: &[String],
    ) -> Result<ProviderView, UploadRefusal> {
        let (shared, tenant, name) = (self.change.shared.clone(), self.change.tenant.clone(), &self.name);
        let component: Arc<[u8]> = component.into();
        let hashed = component.clone();
        let digest = shared.accounts.in_background(move || digest(&hashed)).await?;
        shared.has_room(&tenant, name, &digest, component.len())?;
        let log = Arc::<GuestLog>::default();
        let loaded = self.load(&component, &log).await;
        if let Ok(provider) = &loaded {
            // What the version before says of hosts is known when it is loaded.
            Uploads(shared.clone()).ready(&tenant, name).await?;
            shared.check_hosts(&tenant, name, provider, confirmed)?;
        }
        let tried = match &loaded {
            Ok(provider) => dry_run::run(provider, &tenant).await.inspect_err(|_| {
                log_of(provider, &tenant, &log);
            }),
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = &tried {
            shared.refuse(&tenant, name, &digest, error, &log);
        }
        tried?;
        let provider = loaded?;
        let name = self.name.clone();
        blocking(move || {
            // Both are held until the change is made.
            let _upload = self;
            shared.keep(&tenant, &name, provider, &component)
        })
        .await
        .map_err(UploadRefusal::from)
    }

    async fn load(&self, component: &Arc<[u8]>, log: &Arc<GuestLog>) -> Result<Arc<Provider>, Error> {
        let Change { shared, tenant } = &self.change;
        let account = shared.accounts.of(tenant);
        account.admit_work(Work::Compiling)?;
        let find = {
            let (shared, account) = (shared.clone(), account.clone());
            let (component, log) = (component.clone(), log.clone());
            move || {
                let _meter = account.meter(Work::Compiling);
                shared.loader.find(&account, &component, &log)
            }
        };
        let provider = match shared.accounts.in_background(find).await?? {
            Some(provider) => provider,
            None => {
                let job = shared.jobs.acquire(tenant).await?;
                let (shared, component, log) = (shared.clone(), component.clone(), log.clone());
                let accounts = shared.accounts.clone();
                let compile = move || {
                    let _job = job;
                    let _meter = account.meter(Work::Compiling);
                    shared.loader.compile(&account, &component, &log)
                };
                accounts.in_background(compile).await??
            }
        };
        shared.policy.check(&self.name, provider.manifest())?;
        Ok(provider)
    }
}

/// Adds what the tenant's instances printed to the log of the upload.
fn log_of(provider: &Provider, tenant: &TenantId, log: &GuestLog) {
    log.append(provider.instances(tenant).log().text().as_bytes());
}
