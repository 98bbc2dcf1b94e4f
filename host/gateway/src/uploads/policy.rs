//! What the operator allows uploaded providers.

use url::Url;

use pushlet_model::contract::manifest::{Authentication, Grant, Origin, ProviderManifest, Source};
use pushlet_model::error::{Error, Kind};
use pushlet_settings::ProvidersConfig;

/// More are no trial but a burden.
const MOST_EXAMPLES: usize = 32;

/// What the operator allows.
#[derive(Debug, Clone)]
pub struct Policy {
    /// May a tenant's provider have the name of one that everybody has?
    pub allow_shadowing: bool,
    /// Host names, `*.example.com` for all below one, `*` for all.
    pub allowed_hosts: Vec<String>,
    /// Versions kept of a provider.
    pub versions: usize,
}

impl Policy {
    /// What the configuration says.
    pub fn of(providers: &ProvidersConfig) -> Self {
        Self {
            allow_shadowing: providers.allow_shadowing,
            allowed_hosts: providers.allowed_hosts.clone(),
            versions: providers.versions,
        }
    }

    /// Is a manifest, which is sound, one that is allowed under this name?
    pub(super) fn check(&self, name: &str, manifest: &ProviderManifest) -> Result<(), Error> {
        self.fault(name, manifest).map_or(Ok(()), |fault| {
            Err(Error::new(Kind::Invalid, "invalid_manifest", format!("the component's manifest: {fault}")))
        })
    }

    fn fault(&self, name: &str, manifest: &ProviderManifest) -> Option<String> {
        if manifest.name != name {
            return Some(format!("its name is {}, not {name}", manifest.name));
        }
        if manifest.examples.is_empty() || manifest.examples.len() > MOST_EXAMPLES {
            return Some(format!("it must have 1 to {MOST_EXAMPLES} examples, with which it is tried"));
        }
        let endpoints = manifest.endpoints.iter().find_map(|endpoint| match &endpoint.origin {
            Origin::Fixed(origin) => self.forbids_url(origin),
            Origin::AnyHttps => self.forbids_any(&format!("the endpoint {} is any host", endpoint.name)),
        });
        endpoints.or_else(|| {
            manifest.credentials.iter().find_map(|credential| self.authentication(&credential.authentication))
        })
    }

    /// An access token comes from a server too.
    fn authentication(&self, authentication: &Authentication) -> Option<String> {
        let Authentication::ExchangedToken((exchange, _)) = authentication else { return None };
        if let Grant::ClientCredentials(_) | Grant::JwtBearer(_) = &exchange.grant
            && let Source::Literal(json) = &exchange.token_url
        {
            let url: String = serde_json::from_str(json).unwrap_or_default();
            return self.forbids_url(&url);
        }
        self.forbids_any("the token-url may be at any host")
    }

    fn forbids_url(&self, url: &str) -> Option<String> {
        let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        let forbidden = !self.allowed_hosts.iter().any(|pattern| covers(pattern, &host));
        forbidden.then(|| format!("{url} is not one of the hosts that this server allows"))
    }

    fn forbids_any(&self, what: &str) -> Option<String> {
        let forbidden = !self.allowed_hosts.iter().any(|pattern| pattern == "*");
        forbidden.then(|| format!("{what}, and this server does not allow them all"))
    }
}

fn covers(pattern: &str, host: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_hosts_and_not_their_lookalikes() {
        assert!(covers("*", "push.example"));
        assert!(covers("*.Example.com", "push.example.com") && covers("*.example.com", "a.b.example.com"));
        assert!(!covers("*.example.com", "example.com") && !covers("*.example.com", ".example.com"));
        assert!(!covers("*.example.com", "evil-example.com") && !covers("*.example.com", "example.com.evil"));
        assert!(covers("push.example", "push.example") && !covers("push.example", "a.push.example"));
        assert!(!covers("*example.com", "evilexample.com"), "a star stands for whole names");
    }
}
