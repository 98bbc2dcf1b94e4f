//! What the operator allows uploaded providers, and which hosts get the secrets of a provider's applications, or what is
//! made of them: the component's author chooses these hosts, and a new version may choose others. So they are shown, and
//! an added one must be confirmed.

use std::collections::BTreeSet;

use serde::Serialize;
use url::Url;
use utoipa::ToSchema;

use pushlet_credential::token_host;
use pushlet_model::contract::Environment;
use pushlet_model::contract::manifest::{Authentication, Origin, ProviderManifest};
use pushlet_model::error::{Error, Kind};
use pushlet_sandbox::CompileLimits;
use pushlet_settings::ProvidersConfig;

/// Examples that are tried at most; the upload waits for them.
const MOST_EXAMPLES: usize = 32;
const ANY: &str = "https://*";
/// Stands for a server that the operator's configuration names.
const CONFIGURED: &str = "configured";

/// What the operator allows.
#[derive(Debug, Clone)]
pub struct Policy {
    /// A tenant's provider may have the name of a shared one.
    pub allow_shadowing: bool,
    /// Host names; `*.example.com` for all hosts below one, `*` for all hosts.
    pub allowed_hosts: Vec<String>,
    /// Most versions kept of a provider.
    pub versions: usize,
}

impl Policy {
    /// Returns the configured policy.
    pub fn of(providers: &ProvidersConfig) -> Self {
        Self {
            allow_shadowing: providers.allow_shadowing,
            allowed_hosts: providers.allowed_hosts.clone(),
            versions: providers.versions,
        }
    }

    /// Returns an error if a valid manifest is not allowed under this name.
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
            Origin::Configured => None,
            Origin::AnyHttps => self.forbids_any(&format!("the endpoint {} is any host", endpoint.name)),
        });
        endpoints.or_else(|| {
            manifest.credentials.iter().find_map(|credential| self.authentication(&credential.authentication))
        })
    }

    /// Returns why a token endpoint is not allowed: an access token is fetched from a server too.
    fn authentication(&self, authentication: &Authentication) -> Option<String> {
        let Authentication::ExchangedToken((exchange, _)) = authentication else { return None };
        match token_host(exchange) {
            Some(url) => self.forbids_url(url.as_str()),
            None => self.forbids_any("the token-url may be at any host"),
        }
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

/// Returns what compiling one component may cost, as the configuration says.
pub fn compile_limits(providers: &ProvidersConfig) -> CompileLimits {
    CompileLimits {
        memory: providers.compile_memory,
        cpu: providers.compile_cpu,
        time: providers.compile_timeout,
    }
}

/// A host that gets secrets of applications, or tokens and signatures made of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct SecretHost {
    /// `https://host[:port]`. `https://*` is any host: the one that a target names, or the application's setting or
    /// credential file where a token is fetched.
    #[schema(example = "https://api.push.apple.com")]
    pub host: String,
    /// `production` or `development`: pushes of applications of this environment; `token`: requests for access tokens.
    pub used_for: &'static str,
}

/// Why an upload was not taken.
#[derive(Debug)]
pub enum UploadRefusal {
    /// Secrets would be sent to these hosts too, and the caller did not confirm them.
    HostsChanged(Vec<SecretHost>),
    Other(Error),
}

impl<E: Into<Error>> From<E> for UploadRefusal {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Returns every host that gets a secret of the provider's applications.
pub(super) fn secret_hosts(manifest: &ProviderManifest) -> BTreeSet<SecretHost> {
    if manifest.credentials.is_empty() {
        return BTreeSet::new();
    }
    let endpoints = manifest.endpoints.iter().map(|endpoint| SecretHost {
        host: match &endpoint.origin {
            Origin::Fixed(origin) => origin_of(origin),
            Origin::AnyHttps => ANY.to_owned(),
            Origin::Configured => CONFIGURED.to_owned(),
        },
        used_for: match endpoint.environment {
            Environment::Production => "production",
            Environment::Development => "development",
        },
    });
    let tokens = manifest.credentials.iter().filter_map(|credential| match &credential.authentication {
        Authentication::ExchangedToken((exchange, _)) => Some(token_host(exchange)),
        _ => None,
    });
    let tokens = tokens.map(|url| SecretHost {
        host: url.map_or_else(|| ANY.to_owned(), |url| origin_of(url.as_str())),
        used_for: "token",
    });
    endpoints.chain(tokens).collect()
}

/// Returns the hosts of a new version that the version before did not have and the caller did not confirm.
/// `confirmed`: as [`SecretHost::host`].
pub(super) fn unconfirmed(
    before: &BTreeSet<SecretHost>,
    now: &BTreeSet<SecretHost>,
    confirmed: &[String],
) -> Vec<SecretHost> {
    now.difference(before).filter(|added| !confirmed.contains(&added.host)).cloned().collect()
}

/// Returns the origin of a URL that was checked with the manifest; one that cannot be parsed is shown as it
/// is.
fn origin_of(url: &str) -> String {
    Url::parse(url).map_or_else(|_| url.to_owned(), |url| url.origin().ascii_serialization())
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

    fn host(host: &str, used_for: &'static str) -> SecretHost {
        SecretHost { host: host.to_owned(), used_for }
    }

    #[test]
    fn only_what_is_added_must_be_confirmed() {
        let before = BTreeSet::from([host("https://a", "production"), host("https://b", "development")]);
        let fewer = BTreeSet::from([host("https://a", "production")]);
        assert!(unconfirmed(&before, &fewer, &[]).is_empty());
        let other_use = BTreeSet::from([host("https://b", "production")]);
        assert_eq!(unconfirmed(&before, &other_use, &[]), [host("https://b", "production")]);
        let more = BTreeSet::from([host("https://*", "production"), host("https://c", "token")]);
        let confirmed = ["https://c".to_owned()];
        assert_eq!(unconfirmed(&before, &more, &confirmed), [host("https://*", "production")]);
        let confirmed = ["https://c".to_owned(), "https://*".to_owned()];
        assert!(unconfirmed(&before, &more, &confirmed).is_empty());
    }
}
