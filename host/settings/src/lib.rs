//! The configuration: from a TOML file, `PUSHLET_…` variables and flags, each over the one before it.
//!
//! [`keys::KEYS`] lists every key with its default; [`ConfigLayers`] puts the sources over each other and makes a
//! [`Config`], whose parts the other crates read. [`private`] checks who else can read or write a file.

mod callers;
pub mod keys;
pub mod layers;
pub mod names;
mod networks;
pub mod private;
mod registry;
pub mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

pub use callers::{AdminConfig, AuthConfig, CallerConfig, Login, read_secret};
pub use layers::ConfigLayers;
pub use networks::IpNetworks;
pub use registry::RegistryConfig;
pub use value::{BaseUrl, HiddenText};

use pushlet_model::contract::Environment;
use pushlet_model::names::did_you_mean;

/// Everything that can be configured.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    /// Names of this server.
    pub allowed_hosts: Vec<String>,
    /// None: what is registered and uploaded ends with the server.
    pub data_dir: Option<PathBuf>,
    #[serde(default)]
    pub registry: RegistryConfig,
    #[serde(default)]
    pub auth: AuthConfig,
    #[serde(default)]
    pub admin: AdminConfig,
    pub tls: TlsConfig,
    #[serde(default)]
    pub endpoints: EndpointsConfig,
    pub delivery: DeliveryConfig,
    pub limits: LimitsConfig,
    pub sandbox: SandboxConfig,
    pub metrics: MetricsConfig,
    pub telemetry: TelemetryConfig,
    pub providers: ProvidersConfig,
    pub log: LogConfig,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// With `key`: what callers see.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// PEM files: trusted for push services in addition to the system's roots.
    pub extra_roots: Vec<PathBuf>,
}

/// By provider: where to send instead of the manifest's endpoints. `name` is a provider that all tenants share,
/// `tenant/name` one that a tenant uploaded.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct EndpointsConfig(BTreeMap<String, EndpointOverrides>);

/// The overrides of one provider.
#[derive(Clone, Default, Deserialize)]
pub struct EndpointOverrides {
    pub production: Option<BaseUrl>,
    pub development: Option<BaseUrl>,
    /// By name of an endpoint; wins over the two above.
    #[serde(flatten)]
    pub named: BTreeMap<String, PerEnvironment>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerEnvironment {
    pub production: Option<BaseUrl>,
    pub development: Option<BaseUrl>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryConfig {
    #[serde(deserialize_with = "value::duration")]
    pub deadline: Duration,
    #[serde(deserialize_with = "value::duration")]
    pub drain: Duration,
    #[serde(deserialize_with = "value::duration")]
    pub connect_timeout: Duration,
    #[serde(deserialize_with = "value::duration")]
    pub ping_after: Duration,
    pub connections_per_identity: usize,
    pub retries: u32,
    pub resend_unknown: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Bytes.
    #[serde(deserialize_with = "value::size")]
    pub request_body: usize,
    /// Bytes of a body of `/v1/notifications`.
    #[serde(deserialize_with = "value::size")]
    pub notifications_body: usize,
    /// Of one `/v1/notifications`.
    pub targets: usize,
    /// Targets of one stream in flight at once.
    pub stream_window: usize,
    /// Bytes of one line of a stream.
    #[serde(deserialize_with = "value::size")]
    pub stream_line: usize,
    #[serde(deserialize_with = "value::duration")]
    pub stream_idle: Duration,
    #[serde(deserialize_with = "value::duration")]
    pub idempotency_window: Duration,
    /// Per tenant.
    pub idempotency_keys: usize,
    /// Bytes per tenant.
    #[serde(deserialize_with = "value::size")]
    pub idempotency_memory: usize,
    pub fields: usize,
    /// Bytes.
    pub field_name: usize,
    pub connections: usize,
    /// From one address; an IPv6 network of 64 bits is one.
    pub connections_per_address: usize,
    /// In front of this server: many callers behind one address.
    pub trusted_proxies: IpNetworks,
    /// From one address within a minute.
    pub wrong_credentials: u32,
    pub requests: usize,
    /// Of one application.
    pub application_requests: usize,
    /// Per HTTP/2 connection.
    pub streams: u32,
    #[serde(deserialize_with = "value::duration")]
    pub keep_alive: Duration,
    #[serde(deserialize_with = "value::duration")]
    pub header_timeout: Duration,
    #[serde(deserialize_with = "value::duration")]
    pub body_timeout: Duration,
    #[serde(deserialize_with = "value::duration")]
    pub write_timeout: Duration,
    /// Bytes per second.
    #[serde(deserialize_with = "value::size")]
    pub min_data_rate: usize,
    /// Per application.
    pub feedback: usize,
    /// Bytes, of all tenants; None: as much as the machine allows.
    #[serde(default, deserialize_with = "value::some_size")]
    pub memory_bytes: Option<usize>,
    pub tenant: TenantLimitsConfig,
}

/// For tenants that have no limits of their own; None: there is none.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantLimitsConfig {
    pub requests_per_second: Option<u64>,
    /// Targets.
    pub pushes_per_second: Option<u64>,
    pub concurrent_sends: Option<u64>,
    pub applications: u64,
    /// Uploaded providers.
    pub components: u64,
    #[serde(deserialize_with = "value::size")]
    pub component_bytes: usize,
    pub call_milliseconds: Option<u64>,
    pub cpu_milliseconds_per_second: u64,
    #[serde(default, deserialize_with = "value::some_size")]
    pub instance_memory_bytes: Option<usize>,
    #[serde(deserialize_with = "value::size")]
    pub memory_bytes: usize,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxConfig {
    /// Bytes per instance.
    #[serde(deserialize_with = "value::size")]
    pub memory: usize,
    #[serde(deserialize_with = "value::duration")]
    pub call_timeout: Duration,
    pub instances: usize,
    pub isolation: IsolationMode,
}

/// Components that are uploaded, or lie in a directory.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvidersConfig {
    pub allow_shadowing: bool,
    /// Names, `*.example.com`, or `*`.
    pub allowed_hosts: Vec<String>,
    pub dir: Option<PathBuf>,
    pub cache_dir: Option<PathBuf>,
    /// Bytes.
    #[serde(deserialize_with = "value::size")]
    pub cache_size: usize,
    /// Bytes.
    #[serde(deserialize_with = "value::size")]
    pub component_size: usize,
    pub versions: usize,
    pub compiler: Option<PathBuf>,
    /// Bytes.
    #[serde(deserialize_with = "value::size")]
    pub compile_memory: usize,
    #[serde(deserialize_with = "value::duration")]
    pub compile_cpu: Duration,
    #[serde(deserialize_with = "value::duration")]
    pub compile_timeout: Duration,
    pub compile_jobs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationMode {
    Warm,
    PerCall,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// None: on the common address, for those who may call.
    pub listen: Option<SocketAddr>,
    /// Of one tenant, with metrics of their own.
    pub applications: usize,
}

/// Traces, as OpenTelemetry has them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// None: nothing is exported.
    pub otlp_endpoint: Option<Url>,
    pub service_name: String,
    /// Requests for each one that is traced.
    pub sample_one_in: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: LogLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Why the program cannot start, in one sentence for the operator.
#[derive(Debug)]
pub struct Problem(String);

impl Problem {
    pub fn new(sentence: impl fmt::Display) -> Self {
        Self(sentence.to_string().trim_end().replace('\n', " "))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

impl EndpointsConfig {
    /// Where requests for this endpoint go instead, if the operator says so. `owner`: the tenant that uploaded the
    /// provider; None: all tenants share it.
    pub fn get(
        &self,
        owner: Option<&str>,
        provider: &str,
        endpoint: &str,
        environment: Environment,
    ) -> Option<&BaseUrl> {
        let overrides = self.of(owner, provider)?;
        let named = overrides.named.get(endpoint);
        match environment {
            Environment::Production => {
                named.and_then(|named| named.production.as_ref()).or(overrides.production.as_ref())
            }
            Environment::Development => {
                named.and_then(|named| named.development.as_ref()).or(overrides.development.as_ref())
            }
        }
    }

    /// Sends everything of a provider to one place for each environment.
    pub fn redirect(&mut self, provider: &str, production: &BaseUrl, development: &BaseUrl) {
        let (production, development) = (Some(production.clone()), Some(development.clone()));
        let all = EndpointOverrides { production, development, named: BTreeMap::new() };
        self.0.insert(provider.to_owned(), all);
    }

    /// All places that a provider's requests may go to instead.
    pub fn urls(&self, owner: Option<&str>, provider: &str) -> impl Iterator<Item = &BaseUrl> {
        self.of(owner, provider).into_iter().flat_map(|overrides| {
            let named =
                overrides.named.values().flat_map(|named| named.production.iter().chain(&named.development));
            overrides.production.iter().chain(&overrides.development).chain(named)
        })
    }

    /// Returns true if a provider that all tenants share is overridden.
    pub fn has_shared(&self) -> bool {
        self.0.keys().any(|name| !name.contains('/'))
    }

    /// Is every override one of a provider that all tenants share, and of an endpoint that it has? `known`: these
    /// providers with their endpoints. An unknown one would be a redirection that never happens.
    pub fn check(&self, known: &[(String, Vec<String>)]) -> Result<(), Problem> {
        let shared = self.0.iter().filter(|(name, _)| !name.contains('/'));
        for (name, overrides) in shared {
            let Some((_, endpoints)) = known.iter().find(|(provider, _)| provider == name) else {
                let near = names::nearest(name, known.iter().map(|(provider, _)| provider.clone()));
                let hint = did_you_mean(near.as_deref());
                return Err(Problem::new(format_args!(
                    "endpoints.{name}: there is no provider {name} that all tenants share{hint} One that a tenant uploaded is named endpoints.\"TENANT/{name}\""
                )));
            };
            let unknown = overrides.named.keys().find(|endpoint| !endpoints.contains(endpoint));
            if let Some(endpoint) = unknown {
                let near = names::nearest(endpoint, endpoints.iter().cloned());
                let hint = did_you_mean(near.as_deref());
                return Err(Problem::new(format_args!(
                    "endpoints.{name}.{endpoint}: {name} has no endpoint {endpoint}{hint}"
                )));
            }
        }
        Ok(())
    }

    fn of(&self, owner: Option<&str>, provider: &str) -> Option<&EndpointOverrides> {
        match owner {
            None => self.0.get(provider),
            // Few servers have any, and they pay for the text.
            Some(_) if !self.0.keys().any(|name| name.contains('/')) => None,
            Some(owner) => self.0.get(&format!("{owner}/{provider}")),
        }
    }
}

#[cfg(test)]
mod tests;
