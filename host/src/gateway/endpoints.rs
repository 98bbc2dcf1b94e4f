//! Where an exchange goes: the manifest's endpoint, or what the operator configured in its place.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{self, BaseUrl};
use crate::contract::manifest;
use crate::error::Error;
use crate::fair::FairCache;
use crate::provider::{Exchange, Message, Provider};
use crate::tenant::TenantId;
use crate::transport::{Origin, OriginError, Protocol};

/// The place of one exchange.
pub(super) struct Destination {
    pub origin: Origin,
    /// With the configured prefix.
    pub path: String,
    pub protocol: Protocol,
    /// The operator did not name it: only public addresses are dialled.
    pub guarded: bool,
}

/// Origins that are kept parsed. Manifests can be uploaded, so they are divided among tenants.
const MOST_KNOWN: usize = 4096;

pub(super) struct Destinations {
    overrides: config::Endpoints,
    trusted: Arc<HashSet<Origin>>,
    /// By their text in the configuration or the manifest: reading a URL costs more than encoding a push.
    known: RwLock<FairCache<TenantId, String, Origin>>,
}

impl Destinations {
    pub fn new(overrides: config::Endpoints) -> Self {
        let trusted = overrides.urls().filter_map(|url| bare(url).parse().ok()).collect();
        let known = RwLock::new(FairCache::new(MOST_KNOWN));
        Self { overrides, trusted: Arc::new(trusted), known }
    }

    /// Origins that the operator named: they may have private addresses. A credential's token endpoint may be
    /// one of them; targets never profit from it.
    pub fn trusted(&self) -> Arc<HashSet<Origin>> {
        self.trusted.clone()
    }

    pub fn of(
        &self,
        tenant: &TenantId,
        provider: &Provider,
        message: &Message,
        exchange: &Exchange,
    ) -> Result<Destination, Error> {
        let manifest = provider.manifest();
        let endpoint = &manifest.endpoints[message.endpoint];
        let protocol = match endpoint.transport {
            manifest::Transport::Http2 => Protocol::Http2,
            manifest::Transport::Https => Protocol::Https,
        };
        let base = self.overrides.get(&manifest.name, &endpoint.name, endpoint.environment);
        if let Some(base) = base {
            let origin = self.origin(tenant, base.as_str(), || bare(base).parse())?;
            let path = format!("{}{}", base.prefix(), exchange.path);
            return Ok(Destination { origin, path, protocol, guarded: false });
        }
        let path = exchange.path.clone();
        match (&endpoint.origin, &exchange.url) {
            (manifest::Origin::Fixed(origin), _) => {
                let origin = self.origin(tenant, origin, || origin.parse())?;
                Ok(Destination { origin, path, protocol, guarded: true })
            }
            (manifest::Origin::AnyHttps, Some(url)) => {
                let origin = Origin::of(url).map_err(Error::internal)?;
                Ok(Destination { origin, path, protocol, guarded: true })
            }
            (manifest::Origin::AnyHttps, None) => Err(Error::internal("an exchange without its URL")),
        }
    }

    /// The origin that `parse` makes of `text`, made once.
    fn origin(
        &self,
        tenant: &TenantId,
        text: &str,
        parse: impl FnOnce() -> Result<Origin, OriginError>,
    ) -> Result<Origin, Error> {
        if let Some(origin) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return Ok(origin.clone());
        }
        let origin = parse().map_err(Error::internal)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Where there is no room, it is parsed again the next time.
        let _ = known.get_or_insert_with(tenant, &text.to_owned(), 1, |_| true, || origin.clone());
        Ok(origin)
    }
}

/// The origin of a base URL.
fn bare(base: &BaseUrl) -> String {
    format!("https://{}:{}", base.host(), base.port())
}
