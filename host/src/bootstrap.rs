//! Puts the parts together.

use std::path::Path;
use std::sync::Arc;

use pushlet_credential::SealingKey;
use pushlet_gateway::tenants::{self, Tenants};
use pushlet_gateway::{self as gateway, Gateway, Policy, Uploads};
use pushlet_quota::account::{self, AccountSettings, Accounts};
use pushlet_registry::{self as registry, FileStorage, Registry, StorageError};
use pushlet_sandbox::{self as provider, ComponentCompiler, ProviderCatalogue, ProviderLoader, Sandbox};
use pushlet_settings::{self as config, Config, HiddenText, Problem, secrets};
use pushlet_transport::{self as transport, Transport};

/// The purpose that the key of the artefact cache is derived for, and the cache's default folder in `data_dir`.
const ARTEFACTS: &str = "artefacts";

/// Creates the gateway that a configuration describes, with its providers loaded. Needs a Tokio runtime.
pub fn gateway(config: &Config) -> Result<Gateway, Problem> {
    with_registry(config, Arc::new(registry(config)?))
}

/// Opens the registry in the configured directory; without one, it is in memory and ends with the process.
pub fn registry(config: &Config) -> Result<Registry, Problem> {
    let most = config.limits.feedback;
    let Some(directory) = &config.data_dir else {
        return Registry::in_memory(most).map_err(|error| Problem::new(format_args!("registry: {error}")));
    };
    let key = needed_key(config)?;
    secrets::check_folder("data_dir", directory)?;
    let opened = FileStorage::open(directory).and_then(|file| Registry::open(Arc::new(file), key, most));
    opened.map_err(|error| in_directory(directory, &error))
}

/// Seals what is kept in the configured directory with another key, as a whole. Returns the number of records.
/// `new`: 64 hex digits.
pub fn rotate_key(config: &Config, new: &HiddenText) -> Result<usize, Problem> {
    let Some(directory) = &config.data_dir else {
        return Err(Problem::new("data_dir is not set: there is nothing that is sealed"));
    };
    let new = SealingKey::from_hex(new.reveal())
        .map_err(|error| Problem::new(format_args!("the new key: {error}")))?;
    let old = needed_key(config)?;
    let rotated =
        FileStorage::open_existing(directory).and_then(|file| registry::rotate_key(&file, &old, &new));
    rotated.map_err(|error| in_directory(directory, &error))
}

/// Returns the configured key, if there is one.
pub fn sealing_key(config: &Config) -> Result<Option<SealingKey>, Problem> {
    let key = config.registry.key()?.map(|key| SealingKey::from_hex(key.reveal()));
    key.transpose().map_err(|error| Problem::new(format_args!("registry.key: {error}")))
}

fn needed_key(config: &Config) -> Result<SealingKey, Problem> {
    sealing_key(config)?.ok_or_else(|| {
        Problem::new("data_dir is set but no registry.key or registry.key_file: secrets are kept sealed only")
    })
}

fn in_directory(directory: &Path, error: &StorageError) -> Problem {
    Problem::new(format_args!("data_dir: {}: {error}", directory.display()))
}

/// Creates the gateway with this registry.
pub fn with_registry(config: &Config, registry: Arc<Registry>) -> Result<Gateway, Problem> {
    let tenants = tenants(config, &registry)?;
    let uploads = uploads(config, tenants.clone(), registry.clone())?;
    // Only now are the providers known.
    config.endpoints.check(&uploads.shared_endpoints())?;
    let transport = Transport::new(transport_settings(config)?)
        .map_err(|error| Problem::new(format_args!("outbound TLS cannot start: {error}")))?;
    Ok(Gateway::new(tenants, registry, uploads, transport, gateway::Settings::of(config)))
}

fn accounts(config: &Config) -> Result<Arc<Accounts>, Problem> {
    let settings = AccountSettings {
        process_memory: config.limits.memory_bytes.unwrap_or_else(account::default_memory),
        ..AccountSettings::default()
    };
    Accounts::new(settings)
        .map_err(|error| Problem::new(format_args!("worker threads cannot start: {error}")))
}

/// Opens the tenants of the registry, with limits as configured.
fn tenants(config: &Config, registry: &Arc<Registry>) -> Result<Arc<Tenants>, Problem> {
    let settings = tenants::Settings { defaults: config.limits.tenant, requests: config.limits.requests };
    let tenants = Tenants::open(registry.clone(), settings, accounts(config)?);
    tenants.map(Arc::new).map_err(|error| Problem::new(format_args!("tenants: {error}")))
}

/// Loads the built-in providers, those of the directory, and those that were uploaded.
fn uploads(config: &Config, tenants: Arc<Tenants>, registry: Arc<Registry>) -> Result<Uploads, Problem> {
    let mut loader = loader(config, tenants.accounts().clone())?;
    let beside_the_data = || config.data_dir.as_ref().map(|directory| directory.join(ARTEFACTS));
    if let Some(directory) = config.providers.cache_dir.clone().or_else(beside_the_data) {
        let key = sealing_key(config)?.map(|key| key.derive(ARTEFACTS)).transpose().map_err(Problem::new)?;
        loader.keep_artefacts(&directory, key.as_deref(), config.providers.cache_size).map_err(|error| {
            Problem::new(format_args!("providers.cache_dir: {}: {error}", directory.display()))
        })?;
    }
    let policy = Policy::of(&config.providers);
    let catalogue = shared_providers(config, &loader, &policy)?;
    let uploads = Uploads::new(catalogue, loader, tenants, registry, policy, config.providers.compile_jobs);
    uploads.restore();
    Ok(uploads)
}

/// Checks that each override in `[endpoints]` is one of a provider and an endpoint that exist. Compiles the providers,
/// so it takes a while, and touches neither the cache nor the data of a server that may be running.
pub fn check_endpoints(config: &Config) -> Result<(), Problem> {
    if !config.endpoints.has_shared() {
        return Ok(());
    }
    let loader = loader(config, accounts(config)?)?;
    let catalogue = shared_providers(config, &loader, &Policy::of(&config.providers))?;
    config.endpoints.check(&catalogue.shared_endpoints())
}

fn loader(config: &Config, accounts: Arc<Accounts>) -> Result<ProviderLoader, Problem> {
    let sandbox = Sandbox::new(limits(config), accounts)
        .map_err(|error| Problem::new(format_args!("the sandbox cannot start: {error}")))?;
    Ok(ProviderLoader::new(sandbox, compiler(&config.providers)?))
}

/// Loads the built-in providers and those of the directory.
fn shared_providers(
    config: &Config,
    loader: &ProviderLoader,
    policy: &Policy,
) -> Result<ProviderCatalogue, Problem> {
    let catalogue = ProviderCatalogue::built_in(loader)
        .map_err(|(name, error)| Problem::new(format_args!("the built-in provider {name}: {error}")))?;
    match &config.providers.dir {
        Some(directory) => add_directory(catalogue, loader, policy, directory),
        None => Ok(catalogue),
    }
}

/// Components from the operator's directory; one that is not sound keeps the server from starting.
fn add_directory(
    mut catalogue: ProviderCatalogue,
    loader: &ProviderLoader,
    policy: &Policy,
    directory: &Path,
) -> Result<ProviderCatalogue, Problem> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| {
        Problem::new(format_args!("providers.dir: {}: {why}", path.display()))
    };
    let entries = std::fs::read_dir(directory).map_err(|error| wrong(directory, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(|error| wrong(directory, &error))?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).map_err(|error| wrong(&file, &error))?;
        let added = gateway::for_everybody(catalogue, loader, policy, &bytes);
        catalogue = added.map_err(|error| wrong(&file, &error))?;
    }
    Ok(catalogue)
}

fn compiler(providers: &config::ProvidersConfig) -> Result<ComponentCompiler, Problem> {
    let program = match &providers.compiler {
        Some(program) => program.clone(),
        None => ComponentCompiler::this_program().map_err(Problem::new)?,
    };
    Ok(ComponentCompiler { program, limits: gateway::compile_limits(providers) })
}

fn limits(config: &Config) -> provider::SandboxLimits {
    let sandbox = &config.sandbox;
    provider::SandboxLimits {
        memory: sandbox.memory,
        call_timeout: sandbox.call_timeout,
        instances: u32::try_from(sandbox.instances).unwrap_or(u32::MAX),
        isolation: match sandbox.isolation {
            config::IsolationMode::Warm => provider::InstanceIsolation::Warm,
            config::IsolationMode::PerCall => provider::InstanceIsolation::PerCall,
        },
        component: config.providers.component_size,
        ..provider::SandboxLimits::default()
    }
}

fn transport_settings(config: &Config) -> Result<transport::TransportSettings, Problem> {
    let mut extra_roots = Vec::new();
    for path in &config.tls.extra_roots {
        let roots = transport::read_certificates(path).map_err(Problem::new);
        extra_roots.extend(roots.map_err(|why| Problem::new(format_args!("tls.extra_roots: {why}")))?);
    }
    Ok(transport::TransportSettings {
        extra_roots,
        // 10,000 channels of an app take 300 KiB.
        max_response: 512 << 10,
        connect_timeout: config.delivery.connect_timeout,
        ping_after: config.delivery.ping_after,
        max_connections: config.delivery.connections_per_identity,
        ..transport::TransportSettings::default()
    })
}
