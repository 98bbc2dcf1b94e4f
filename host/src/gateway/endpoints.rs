//! Where an exchange goes: the manifest's endpoint, or what the operator configured in its place.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::config;
use crate::contract::manifest;
use crate::error::Error;
use crate::provider::{Exchange, Message, Provider, Trust};
use crate::transport::{Origin, OriginError, Protocol};

/// The place of one exchange.
pub(super) struct Destination {
    pub origin: Origin,
    /// With the configured prefix.
    pub path: String,
    pub protocol: Protocol,
    /// It came with a request: only public addresses are dialled.
    pub guarded: bool,
}

/// Origins that are kept parsed; there are few, but manifests can be uploaded.
const MOST_KNOWN: usize = 4096;

pub(super) struct Destinations {
    overrides: config::Endpoints,
    trusted_hosts: Arc<HashSet<String>>,
    /// By their text in the configuration or the manifest: reading a URL costs more than encoding a push.
    known: RwLock<HashMap<String, Origin>>,
}

impl Destinations {
    pub fn new(overrides: config::Endpoints) -> Self {
        let trusted_hosts = overrides.hosts().map(str::to_owned).collect();
        Self { overrides, trusted_hosts: Arc::new(trusted_hosts), known: RwLock::default() }
    }

    /// Hosts that the operator named: what runs there may be reached on a private address, since TLS
    /// proves who it is.
    pub fn trusted_hosts(&self) -> Arc<HashSet<String>> {
        self.trusted_hosts.clone()
    }

    pub fn of(
        &self,
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
            let bare = || format!("https://{}:{}", base.host(), base.port());
            let origin = self.origin(base.as_str(), || bare().parse())?;
            let path = format!("{}{}", base.prefix(), exchange.path);
            return Ok(Destination { origin, path, protocol, guarded: false });
        }
        let path = exchange.path.clone();
        match (&endpoint.origin, &exchange.url) {
            (manifest::Origin::Fixed(origin), _) => {
                let origin = self.origin(origin, || origin.parse())?;
                // A stranger's component may name a host inside; TLS alone does not keep it out.
                let guarded = provider.trust() == Trust::Uploaded;
                Ok(Destination { origin, path, protocol, guarded })
            }
            (manifest::Origin::AnyHttps, Some(url)) => {
                let origin = Origin::of(url).map_err(Error::internal)?;
                let guarded = !url.host_str().is_some_and(|host| self.trusted_hosts.contains(host));
                Ok(Destination { origin, path, protocol, guarded })
            }
            (manifest::Origin::AnyHttps, None) => Err(Error::internal("an exchange without its URL")),
        }
    }

    /// The origin that `parse` makes of `text`, made once.
    fn origin(
        &self,
        text: &str,
        parse: impl FnOnce() -> Result<Origin, OriginError>,
    ) -> Result<Origin, Error> {
        if let Some(origin) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return Ok(origin.clone());
        }
        let origin = parse().map_err(Error::internal)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST_KNOWN {
            known.insert(text.to_owned(), origin.clone());
        }
        Ok(origin)
    }
}
