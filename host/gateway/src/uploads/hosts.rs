//! Which hosts get the secrets of a provider's applications, or what is made of them: the component's author chooses
//! these hosts, and a new version may choose others. So they are shown, and an added one must be confirmed.

use std::collections::BTreeSet;

use serde::Serialize;
use url::Url;
use utoipa::ToSchema;

use pushlet_model::contract::Environment;
use pushlet_model::contract::manifest::{Authentication, Origin, ProviderManifest, Source};
use pushlet_model::error::Error;

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
    /// Secrets would go to these too, and nobody confirmed that.
    HostsChanged(Vec<SecretHost>),
    Other(Error),
}

impl<E: Into<Error>> From<E> for UploadRefusal {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Every way that a secret of the provider's applications may take, in order.
pub(super) fn secret_hosts(manifest: &ProviderManifest) -> BTreeSet<SecretHost> {
    if manifest.credentials.is_empty() {
        return BTreeSet::new();
    }
    let endpoints = manifest.endpoints.iter().map(|endpoint| SecretHost {
        host: match &endpoint.origin {
            Origin::Fixed(origin) => origin_of(origin),
            Origin::AnyHttps => ANY.to_owned(),
        },
        used_for: match endpoint.environment {
            Environment::Production => "production",
            Environment::Development => "development",
        },
    });
    let tokens = manifest.credentials.iter().filter_map(|credential| match &credential.authentication {
        Authentication::ExchangedToken((exchange, _)) => Some(&exchange.token_url),
        _ => None,
    });
    let tokens = tokens.map(|url| SecretHost {
        host: match url {
            Source::Literal(json) => origin_of(&serde_json::from_str::<String>(json).unwrap_or_default()),
            _ => ANY.to_owned(),
        },
        used_for: "token",
    });
    endpoints.chain(tokens).collect()
}

/// Those of a new version that the one before did not have and nobody confirmed. `confirmed`: as [`SecretHost::host`].
pub(super) fn unconfirmed(
    before: &BTreeSet<SecretHost>,
    now: &BTreeSet<SecretHost>,
    confirmed: &[String],
) -> Vec<SecretHost> {
    now.difference(before).filter(|added| !confirmed.contains(&added.host)).cloned().collect()
}

const ANY: &str = "https://*";

/// Of a URL that was checked when the manifest was; one that cannot be read is shown as it is.
fn origin_of(url: &str) -> String {
    Url::parse(url).map_or_else(|_| url.to_owned(), |url| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

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
