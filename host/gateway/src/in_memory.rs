//! A gateway that needs no files, for tests of the crates that call it.

use std::sync::Arc;

use crate::tenants::Tenants;
use crate::{Gateway, Policy, Settings, Uploads};
use pushlet_model::error::Error;
use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_registry::Registry;
use pushlet_sandbox::{
    CompileLimits, ComponentCompiler, ProviderCatalogue, ProviderLoader, Sandbox, SandboxLimits,
};
use pushlet_settings::ConfigLayers;
use pushlet_transport::{Transport, TransportSettings};

impl Gateway {
    /// A gateway without providers, whose data ends with the process. Must be called in a Tokio runtime.
    pub fn in_memory() -> Result<Self, Error> {
        let config = ConfigLayers::new().and_then(ConfigLayers::finish).map_err(Error::internal)?;
        let accounts = Accounts::new(AccountSettings::default()).map_err(Error::internal)?;
        let registry = Arc::new(Registry::in_memory(config.limits.feedback).map_err(Error::internal)?);
        let requests = config.limits.requests;
        let tenants = crate::tenants::Settings { requests, ..Default::default() };
        let tenants = Tenants::open(registry.clone(), tenants, accounts.clone()).map_err(Error::internal)?;
        let tenants = Arc::new(tenants);
        let sandbox = Sandbox::new(SandboxLimits::default(), accounts)?;
        let providers = &config.providers;
        let limits = CompileLimits {
            memory: providers.compile_memory,
            cpu: providers.compile_cpu,
            time: providers.compile_timeout,
        };
        let program = ComponentCompiler::this_program().map_err(Error::internal)?;
        let loader = ProviderLoader::new(sandbox, ComponentCompiler { program, limits });
        let policy = Policy::of(providers);
        let jobs = providers.compile_jobs;
        let uploads = Uploads::new(
            ProviderCatalogue::default(),
            loader,
            tenants.clone(),
            registry.clone(),
            policy,
            jobs,
        );
        let transport = Transport::new(TransportSettings::default()).map_err(Error::internal)?;
        Ok(Self::new(tenants, registry, uploads, transport, Settings::of(&config)))
    }
}
