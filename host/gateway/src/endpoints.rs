//! Where an exchange is sent: to the manifest's endpoint, or to what the operator configured in its place.

use http::uri::PathAndQuery;
use parking_lot::RwLock;
use url::Url;

use pushlet_model::contract::{Environment, manifest};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairCache;
use pushlet_sandbox::{Exchange, Message, Provider};
use pushlet_settings::{self as config, BaseUrl};
use pushlet_transport::{Origin, OriginError, Protocol};

/// Where one exchange is sent.
pub(super) struct Destination {
    pub origin: Origin,
    /// The target's own origin, if the operator redirects it: tokens name that (RFC 8292 section 2), since
    /// the target's own service reads them in the end.
    pub audience: Option<Origin>,
    /// With the configured prefix.
    pub path: PathAndQuery,
    pub protocol: Protocol,
    /// The operator did not name this host: only public addresses are dialled.
    pub guarded: bool,
}

/// Most origins that are kept parsed. Manifests can be uploaded, so the cache is divided among tenants.
const MOST_KNOWN: usize = 4096;

pub(super) struct EndpointResolver {
    overrides: config::EndpointsConfig,
    is_recorded: bool,
    /// By their text in the configuration or the manifest: parsing a URL costs more than encoding a push.
    known: RwLock<FairCache<TenantId, String, Origin>>,
}

impl EndpointResolver {
    pub fn new(overrides: config::EndpointsConfig, is_recorded: bool) -> Self {
        Self { overrides, is_recorded, known: RwLock::new(FairCache::new(MOST_KNOWN)) }
    }

    /// Returns true if the operator named this place for this provider, so that it may have a private
    /// address. This is for a credential's token endpoint; targets, and other providers, never get this
    /// trust.
    pub fn trusts_token_url(&self, owner: Option<&TenantId>, provider: &str, url: &Url) -> bool {
        self.overrides.urls(owner.map(TenantId::as_str), provider).any(|base| {
            // The slash matters: `/fcmx` is not below `/fcm`.
            let is_below = url.path().strip_prefix(base.prefix()).is_some_and(|rest| rest.starts_with('/'));
            let is_there =
                url.host_str() == Some(base.host()) && url.port_or_known_default() == Some(base.port());
            url.scheme() == "https" && is_there && is_below
        })
    }

    /// Returns where a token is fetched if the operator redirects the endpoint of the manifest that has this URL's
    /// origin: all that goes to that origin goes to the other place then.
    pub fn redirected_token_url(
        &self,
        owner: Option<&TenantId>,
        manifest: &manifest::ProviderManifest,
        environment: Environment,
        url: &Url,
    ) -> Option<Url> {
        let origin = url.origin().ascii_serialization();
        let has_origin = |endpoint: &&manifest::Endpoint| {
            endpoint.environment == environment
                && matches!(&endpoint.origin, manifest::Origin::Fixed(fixed) if *fixed == origin)
        };
        let endpoint = manifest.endpoints.iter().find(has_origin)?;
        let owner = owner.map(TenantId::as_str);
        let base = self.overrides.get(owner, &manifest.name, &endpoint.name, environment)?;
        let path = &url[url::Position::BeforePath..];
        Url::parse(&format!("{}{}{path}", bare(base), base.prefix())).ok()
    }

    /// Returns where an exchange is sent. `owner`: the tenant that uploaded the provider; None: all tenants
    /// share it.
    pub fn of(
        &self,
        tenant: &TenantId,
        owner: Option<&TenantId>,
        provider: &Provider,
        message: &Message,
        exchange: &Exchange,
    ) -> Result<Destination, Error> {
        let manifest = provider.manifest();
        let endpoint = &manifest.endpoints[message.endpoint];
        let protocol = match endpoint.transport {
            manifest::Transport::Http2 => Protocol::Http2,
            manifest::Transport::Https => Protocol::Https,
            manifest::Transport::Tls => return Err(Error::internal("an exchange over a byte stream")),
        };
        let owner = owner.map(TenantId::as_str);
        let base = self.overrides.get(owner, &manifest.name, &endpoint.name, endpoint.environment);
        if let Some(base) = base {
            let origin = self.origin(tenant, base.as_str(), || bare(base).parse())?;
            let path = match base.prefix() {
                "" => exchange.path.clone(),
                prefix => {
                    PathAndQuery::try_from(format!("{prefix}{}", exchange.path)).map_err(Error::internal)?
                }
            };
            let audience = exchange.url.as_ref().map(Origin::of).transpose().map_err(Error::internal)?;
            return Ok(Destination { origin, audience, path, protocol, guarded: false });
        }
        let path = exchange.path.clone();
        match (&endpoint.origin, &exchange.url) {
            (manifest::Origin::Fixed(origin), _) => {
                let origin = self.origin(tenant, origin, || origin.parse())?;
                Ok(Destination { origin, audience: None, path, protocol, guarded: true })
            }
            (manifest::Origin::AnyHttps, Some(url)) => {
                let origin = Origin::of(url).map_err(Error::internal)?;
                Ok(Destination { origin, audience: None, path, protocol, guarded: true })
            }
            (manifest::Origin::Configured, _) => Err(not_configured(&manifest.name)),
            (manifest::Origin::AnyHttps, None) => Err(Error::internal("an exchange without its URL")),
        }
    }

    /// Returns where connections to an endpoint of a stream provider go, and whether only public addresses are dialled;
    /// None: there is no such endpoint, or the operator did not configure it.
    pub fn of_stream(
        &self,
        owner: Option<&TenantId>,
        manifest: &manifest::ProviderManifest,
        name: &str,
        environment: Environment,
    ) -> Result<Option<(Origin, bool)>, Error> {
        let is_meant = |one: &&manifest::Endpoint| one.name == name && one.environment == environment;
        let Some(endpoint) = manifest.endpoints.iter().find(is_meant) else { return Ok(None) };
        let base = self.overrides.get(owner.map(TenantId::as_str), &manifest.name, name, environment);
        let (text, guarded) = match (base, &endpoint.origin) {
            (Some(base), _) => (bare(base), false),
            (None, manifest::Origin::Fixed(origin)) => (origin.clone(), true),
            (None, manifest::Origin::Configured) if self.is_recorded => {
                (format!("https://{name}.example"), true)
            }
            (None, manifest::Origin::Configured | manifest::Origin::AnyHttps) => return Ok(None),
        };
        Ok(Some((text.parse().map_err(Error::internal)?, guarded)))
    }

    /// Returns an error unless an application of this environment can be sent for.
    pub fn ensure_configured(
        &self,
        owner: Option<&TenantId>,
        manifest: &manifest::ProviderManifest,
        environment: Environment,
    ) -> Result<(), Error> {
        let owner = owner.map(TenantId::as_str);
        let is_there = |endpoint: &manifest::Endpoint| {
            !matches!(endpoint.origin, manifest::Origin::Configured)
                || self.is_recorded
                || self.overrides.get(owner, &manifest.name, &endpoint.name, environment).is_some()
        };
        let mut own = manifest.endpoints.iter().filter(|endpoint| endpoint.environment == environment);
        // One is enough: a service may lack the others, such as that for feedback.
        if own.any(is_there) { Ok(()) } else { Err(not_configured(&manifest.name)) }
    }

    /// Returns the origin that `parse` makes of `text`, from the cache if possible.
    fn origin(
        &self,
        tenant: &TenantId,
        text: &str,
        parse: impl FnOnce() -> Result<Origin, OriginError>,
    ) -> Result<Origin, Error> {
        if let Some(origin) = self.known.read().get(text) {
            return Ok(origin.clone());
        }
        let origin = parse().map_err(Error::internal)?;
        let mut known = self.known.write();
        // If there is no room, the origin is parsed again the next time.
        let _ = known.get_or_insert_with(tenant, &text.to_owned(), 1, |_| true, || origin.clone());
        Ok(origin)
    }
}

/// Returns the error for a provider that the operator has not switched on.
pub(super) fn not_configured(provider: &str) -> Error {
    let message =
        format!("this server has no endpoint for {provider}: its operator must configure one ([endpoints])");
    Error::field("endpoint_not_configured", "type", message)
}

/// Returns the origin of a base URL.
fn bare(base: &BaseUrl) -> String {
    format!("https://{}:{}", base.host(), base.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pushlet_settings::ConfigLayers;

    #[test]
    fn a_token_url_is_trusted_for_the_same_provider_and_prefix_only() {
        let mut layers = ConfigLayers::new().unwrap();
        let text = "endpoints.fcm.production = \"https://inside:8443/fcm\"\n\
                    endpoints.\"acme/hook\".development = \"https://inside\"";
        layers.text(std::path::Path::new("test.toml"), text).unwrap();
        let destinations = EndpointResolver::new(layers.finish().unwrap().endpoints, false);
        let (acme, other) = (TenantId::new("acme"), TenantId::new("other"));
        let trusts = |owner, provider, url: &str| {
            destinations.trusts_token_url(owner, provider, &Url::parse(url).unwrap())
        };
        assert!(trusts(None, "fcm", "https://inside:8443/fcm/token"));
        assert!(trusts(Some(&acme), "hook", "https://inside/any"));
        for (owner, provider, url) in [
            (None, "apns", "https://inside:8443/fcm/token"),
            (Some(&acme), "fcm", "https://inside:8443/fcm/token"),
            (Some(&other), "hook", "https://inside/any"),
            (None, "hook", "https://inside/any"),
            (None, "fcm", "https://inside:8443/token"),
            (None, "fcm", "https://inside:8443/fcmx/token"),
            (None, "fcm", "https://inside:8443/fcm/../token"),
            (None, "fcm", "https://inside:8443/fcm/%2e%2e/token"),
            (None, "fcm", "https://inside/fcm/token"),
            (None, "fcm", "https://inside.example:8443/fcm/token"),
        ] {
            assert!(!trusts(owner, provider, url), "{owner:?} {provider} {url}");
        }
    }
}
