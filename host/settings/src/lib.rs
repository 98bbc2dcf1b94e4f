//! The configuration: from a TOML file, `PUSHLET_…` variables and flags, each over the one before it.
//!
//! [`keys`] declares every key with its type, default, bounds and meaning; [`ConfigLayers`] puts the sources over each
//! other and makes a [`Config`], whose parts the other crates read. [`secrets`] reads keys and passwords, and checks
//! who else can read or write a file. [`applications`] reads those that files describe.

pub mod applications;
pub mod keys;
mod layers;
pub mod names;
pub mod secrets;
mod section;
pub mod value;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use keys::MILLION;
use pushlet_model::contract::Environment;
use pushlet_model::text::did_you_mean;
use section::{ConfigSection, ReadSection, section};
use value::{ValueKind, count, size};

pub use keys::{
    AdminConfig, AuthConfig, Config, DeliveryConfig, LimitsConfig, LogConfig, MetricsConfig, ProvidersConfig,
    RegistryConfig, SandboxConfig, TelemetryConfig, TlsConfig, WebhooksConfig,
};
pub use layers::ConfigLayers;
pub use secrets::{CallerConfig, Login, read_secret};
pub use section::ConfigKey;
pub use value::{BaseUrl, HiddenText, IpNetworks, ListenAddress};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationMode {
    Warm,
    PerCall,
}

/// Over which addresses push services are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressFamily {
    Any,
    #[serde(rename = "prefer-ipv4")]
    PreferIpv4,
    Ipv4,
    Ipv6,
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

/// The keys of `[endpoints]`, whose names are those of providers.
pub(crate) const ENDPOINTS: ConfigSection = ConfigSection {
    path: "endpoints.",
    docs: "",
    keys: &[
        endpoint("endpoints.<provider>.production", "Base URL in place of a provider's production servers"),
        endpoint("endpoints.<provider>.development", "Base URL in place of a provider's development servers"),
        endpoint("endpoints.<provider>.<endpoint>.production", "The same for one endpoint of the provider"),
        endpoint("endpoints.<provider>.<endpoint>.development", "The same for one endpoint of the provider"),
    ],
};

const fn endpoint(path: &'static str, docs: &'static str) -> ConfigKey {
    ConfigKey { path, kind: ValueKind::Url, default: None, example: "", docs }
}

section! {
    /// For each tenant that has no limits of its own, which PUT /v1/tenants/{id} sets under the same names. Requests
    /// over a limit get 429; the lines of a stream are delayed instead. Without a default there is no limit.
    const TENANT_LIMITS "limits.tenant." {
        /// Most requests of one tenant per second
        requests_per_second = count(1, 1_000_000_000), (unset 100);
        /// Most targets that one tenant sends to per second
        pushes_per_second = count(1, 1_000_000_000), (unset 1000);
        /// Most sends of one tenant at a time
        /// A send with many targets counts once, and so does a stream.
        concurrent_sends = count(1, MILLION), (unset 100);
        /// Most registered applications of one tenant
        applications = count(0, 10 * MILLION), 10000;
        /// Most uploaded providers of one tenant
        /// With 0, tenants cannot upload providers.
        components = count(0, 10_000), 20;
        /// Most bytes of these, with all versions
        component_bytes = size(0, 1 << 50), "1GiB";
        /// Longest run of one call into an uploaded provider, where sandbox.call_timeout is longer
        call_milliseconds = count(1, 60_000), (unset 100);
        /// Most CPU time of one tenant per second, for uploaded providers and other heavy work
        /// Heavy work is signatures, reading credential files, and bodies over 64 KiB. After a rest, ten seconds' worth
        /// may be used at once. Compiling has as much again, with ten minutes' worth at once.
        cpu_milliseconds_per_second = count(1, MILLION), 200;
        /// Most memory of one instance of an uploaded provider, where sandbox.memory is more
        instance_memory_bytes = size(1 << 16, 4 << 30), (unset "16MiB");
        /// Most memory of one tenant: requests in flight, what is kept for it, its providers' instances
        memory_bytes = size(1 << 16, 1 << 40), "512MiB";
        /// In a fleet: do the limits per second hold exactly, however requests are spread over the servers?
        /// Otherwise each of n servers grants an nth.
        exact_rates = ValueKind::Switch, false;
    }
}

impl ReadSection for EndpointsConfig {
    fn read(table: toml::Table) -> Result<Self, Problem> {
        table.try_into().map_err(Problem::new)
    }
}

impl EndpointsConfig {
    /// Returns the URL that replaces this endpoint, if one is configured. `owner`: the tenant that uploaded the
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

    /// Returns all URLs that replace endpoints of a provider.
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
