//! Puts the parts together.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use pushlet_credential::SealingKey;
use pushlet_gateway::tenants::{self, Tenants};
use pushlet_gateway::{self as gateway, Gateway, Policy, Uploads};
use pushlet_quota::account::{self, AccountSettings, Accounts, WorkLimits};
use pushlet_registry::{
    self as registry, FileStorage, FleetSettings, MemoryStorage, NatsLogin, NatsSettings, NatsStorage,
    Registry, Storage, StorageError,
};
use pushlet_sandbox::{self as provider, ComponentCompiler, ProviderCatalogue, ProviderLoader, Sandbox};
use pushlet_settings::{self as config, Config, HiddenText, Problem, secrets};
use pushlet_transport::{self as transport, Route, Transport};

/// The purpose that the key of the artefact cache is derived for, and the cache's default folder in `data_dir`.
const ARTEFACTS: &str = "artefacts";

/// Creates the gateway that a configuration describes, with its providers loaded. Needs a Tokio runtime.
pub fn gateway(config: &Config) -> Result<Gateway, Problem> {
    with_registry(config, Arc::new(registry(config)?))
}

/// Creates the same in memory, with all its connections leading to one address, whose certificates come from this
/// authority: for a provider that is being written.
pub fn gateway_to(
    config: &Config,
    address: SocketAddr,
    authority: CertificateDer<'static>,
) -> Result<Gateway, Problem> {
    let mut settings = transport_settings(config)?;
    settings.redirect = Some(address);
    settings.extra_roots.push(authority);
    let of_gateway = gateway::Settings { is_recorded: true, ..gateway::Settings::of(config) };
    gateway_over(config, Arc::new(registry(config)?), settings, of_gateway)
}

/// Opens the registry: that of the fleet, or the one in the configured directory; without either, it is in memory and
/// ends with the process.
pub fn registry(config: &Config) -> Result<Registry, Problem> {
    let most = config.limits.feedback;
    if let Some(fleet) = fleet(config)? {
        let settings = FleetSettings {
            name: node_name(),
            version: env!("CARGO_PKG_VERSION"),
            answers: config.limits.idempotency_window,
            feedback: most,
            deliveries: config.limits.async_window,
            parts: config.limits.async_parts,
        };
        let opened = Registry::join(fleet, needed_key(config)?, most, settings);
        return opened.map_err(|error| Problem::new(format_args!("registry.url: {error}")));
    }
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
    if config.registry.url.is_some() {
        return Err(Problem::new("registry.url is set: the key of a fleet cannot be changed yet"));
    }
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

/// Returns the name of this machine.
pub fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Connects to the registry of the fleet, if this server is part of one.
fn fleet(config: &Config) -> Result<Option<NatsStorage>, Problem> {
    let Some(servers) = config.registry.servers()? else { return Ok(None) };
    let text = |text: &HiddenText| text.reveal().to_owned().into();
    let login = match config.registry.login()? {
        Some(("registry.nkey", seed)) => NatsLogin::Nkey(text(&seed)),
        Some((_, credentials)) => NatsLogin::Credentials(text(&credentials)),
        None => NatsLogin::None,
    };
    let roots = config.tls.extra_roots.clone();
    let settings = NatsSettings { servers, replicas: config.registry.replicas, login, roots };
    let snapshot: Box<dyn Storage> = match &config.data_dir {
        Some(directory) => {
            secrets::check_folder("data_dir", directory)?;
            let file = FileStorage::open_snapshot(directory);
            Box::new(file.map_err(|error| in_directory(directory, &error))?)
        }
        None => Box::new(MemoryStorage::default()),
    };
    let opened = NatsStorage::open(&settings, snapshot);
    opened.map(Some).map_err(|error| Problem::new(format_args!("registry.url: {error}")))
}

/// Returns the configured key, if there is one.
pub fn sealing_key(config: &Config) -> Result<Option<SealingKey>, Problem> {
    let key = config.registry.key()?.map(|key| SealingKey::from_hex(key.reveal()));
    key.transpose().map_err(|error| Problem::new(format_args!("registry.key: {error}")))
}

fn needed_key(config: &Config) -> Result<SealingKey, Problem> {
    let needs = if config.registry.url.is_some() { "registry.url" } else { "data_dir" };
    sealing_key(config)?.ok_or_else(|| {
        Problem::new(format_args!(
            "{needs} is set but no registry.key or registry.key_file: secrets are kept sealed only"
        ))
    })
}

fn in_directory(directory: &Path, error: &StorageError) -> Problem {
    Problem::new(format_args!("data_dir: {}: {error}", directory.display()))
}

/// Creates the gateway with this registry.
pub fn with_registry(config: &Config, registry: Arc<Registry>) -> Result<Gateway, Problem> {
    gateway_over(config, registry, transport_settings(config)?, gateway::Settings::of(config))
}

fn gateway_over(
    config: &Config,
    registry: Arc<Registry>,
    settings: transport::TransportSettings,
    of_gateway: gateway::Settings,
) -> Result<Gateway, Problem> {
    let tenants = tenants(config, &registry)?;
    let uploads = uploads(config, tenants.clone(), registry.clone())?;
    // Only now are the providers known.
    config.endpoints.check(&uploads.shared_endpoints())?;
    let transport = Transport::new(settings)
        .map_err(|error| Problem::new(format_args!("outbound TLS cannot start: {error}")))?;
    Ok(Gateway::new(tenants, registry, uploads, transport, of_gateway))
}

/// Registers the applications that files describe. One that is wrong is logged, and keeps no other away.
pub async fn register_files(config: &Config, gateway: &Gateway) -> Result<(), Problem> {
    let files = config.application_files()?;
    let changes = gateway.check_files(files.as_deref()).await;
    for problem in &changes.problems {
        tracing::error!(%problem, "an application of registry.applications is not registered");
    }
    let taken = gateway.take_files(changes, files.is_some()).await;
    taken.map(drop).map_err(|error| Problem::new(format_args!("registry.applications: {}", error.message)))
}

fn accounts(config: &Config) -> Result<Arc<Accounts>, Problem> {
    let work = WorkLimits { low_priority: config.providers.low_priority, ..WorkLimits::default() };
    let settings = AccountSettings {
        work,
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
    let (files, components) = components(directory)?;
    for (file, component) in files.iter().zip(&components) {
        let added = gateway::for_everybody(catalogue, None, loader, policy, component);
        catalogue = added.map_err(|error| wrong_component(file, &error))?;
    }
    Ok(catalogue)
}

fn wrong_component(path: &Path, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(format_args!("providers.dir: {}: {why}", path.display()))
}

/// Loads the operator's directory again: what a running server can take in place of the providers that it has.
pub fn reload_providers(
    config: &Config,
    gateway: &Gateway,
) -> Result<Arc<provider::TenantProviders>, Problem> {
    let (files, components) =
        config.providers.dir.as_deref().map(components).transpose()?.unwrap_or_default();
    gateway.load_shared(&components).map_err(|(number, error)| wrong_component(&files[number], &error))
}

/// Reads all components of a directory, in the order of their names.
fn components(directory: &Path) -> Result<(Vec<PathBuf>, Vec<Vec<u8>>), Problem> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| wrong_component(path, why);
    let entries = std::fs::read_dir(directory).map_err(|error| wrong(directory, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(|error| wrong(directory, &error))?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    let read = |file: &PathBuf| std::fs::read(file).map_err(|error| wrong(file, &error));
    let components = files.iter().map(read).collect::<Result<_, _>>()?;
    Ok((files, components))
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

/// Reads the certificates of authorities that push services may have.
pub fn extra_roots(config: &Config) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let mut extra_roots = Vec::new();
    for path in &config.tls.extra_roots {
        let roots = transport::read_certificates(path).map_err(Problem::new);
        extra_roots.extend(roots.map_err(|why| Problem::new(format_args!("tls.extra_roots: {why}")))?);
    }
    Ok(extra_roots)
}

fn transport_settings(config: &Config) -> Result<transport::TransportSettings, Problem> {
    Ok(transport::TransportSettings {
        extra_roots: extra_roots(config)?,
        route: route(&config.delivery)?,
        // 10,000 channels of an app take 300 KiB.
        max_response: 512 << 10,
        connect_timeout: config.delivery.connect_timeout,
        ping_after: config.delivery.ping_after,
        max_connections: config.delivery.connections_per_identity,
        ..transport::TransportSettings::default()
    })
}

/// Returns the way to the push services.
fn route(delivery: &config::DeliveryConfig) -> Result<Route, Problem> {
    let family = match delivery.address_family {
        config::AddressFamily::Any => transport::AddressFamily::Any,
        config::AddressFamily::PreferIpv4 => transport::AddressFamily::PreferIpv4,
        config::AddressFamily::Ipv4 => transport::AddressFamily::Ipv4,
        config::AddressFamily::Ipv6 => transport::AddressFamily::Ipv6,
    };
    let parse = |text: &String| {
        let wrong = |_| Problem::new(format_args!("delivery.bind: {text} is not an IP address"));
        text.parse::<IpAddr>().map_err(wrong)
    };
    let local = delivery.bind.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let ipv4 = local.iter().filter(|address| address.is_ipv4()).count();
    if ipv4 > 1 || local.len() - ipv4 > 1 {
        return Err(Problem::new("delivery.bind: at most one address of each family"));
    }
    let route = Route::new(family, local);
    match delivery.proxy()? {
        None => Ok(route.through_environment()),
        Some(proxy) if proxy.reveal() == "none" => Ok(route),
        Some(proxy) => {
            let route = route.through(proxy.reveal(), &delivery.no_proxy.join(","));
            route.map_err(|why| Problem::new(format_args!("delivery.proxy: {why}")))
        }
    }
}
