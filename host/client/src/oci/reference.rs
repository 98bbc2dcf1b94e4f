//! Where an artifact is, and the digests that name its parts.

use std::fmt;
use std::net::IpAddr;

use pushlet_model::digest::sha256;
use pushlet_settings::Problem;

/// How a reference begins, so that it is not taken for a file.
pub const SCHEME: &str = "oci://";

const LONGEST_REPOSITORY: usize = 255;
const LONGEST_TAG: usize = 128;

/// `oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`, by the grammar of the OCI distribution specification 1.1. It has
/// a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// With the port, if it has one.
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:` and 64 digits, in lower case.
    pub digest: Option<String>,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = |why: &str| {
            Problem::new(format_args!(
                "{text}: {why}; expected oci://HOST[:PORT]/REPOSITORY, then :TAG or @sha256:DIGEST"
            ))
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin with oci://"))?;
        let (host, rest) = rest.split_once('/').ok_or_else(|| wrong("it has no repository"))?;
        if !is_host(host) {
            return Err(wrong("its host is not sound"));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(wrong("its digest is not sha256: and 64 digits of 0-9 and a-f")),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => return Err(wrong("its tag is not sound")),
            None => (rest, None),
        };
        if !is_repository(repository) {
            return Err(wrong("its repository is not sound"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(wrong("it has neither a tag nor a digest"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), tag, digest })
    }

    /// Returns the same artifact, named by its digest.
    pub fn pinned(&self, digest: &str) -> Self {
        Self { digest: Some(digest.to_owned()), ..self.clone() }
    }

    /// Returns the name of the manifest: the digest, or else the tag.
    pub fn name(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or_default()
    }

    /// Returns true if the registry is on this machine, where plain HTTP is no risk.
    pub fn is_local(&self) -> bool {
        let Ok(url) = url::Url::parse(&format!("https://{}", self.host)) else { return false };
        match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
            Some(url::Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
            None => false,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.host, self.repository)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// Returns the digest of some bytes, as registries write it.
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha256(bytes)))
}

pub fn is_digest(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(is_digit))
}

/// A name or an address, and perhaps a port, and nothing that a URL would read as something else.
fn is_host(text: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    let url = url::Url::parse(&format!("https://{text}/"));
    !text.is_empty()
        && text.bytes().all(is_allowed)
        && url.is_ok_and(|url| url.has_host() && url.path() == "/")
}

fn is_tag(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=LONGEST_TAG).contains(&text.len()) && text.bytes().all(is_allowed) && !text.starts_with(['.', '-'])
}

/// Parts of small letters and digits, with single separators between them.
fn is_repository(text: &str) -> bool {
    let is_sound = |part: &str| {
        let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let ends = |byte: Option<u8>| byte.is_some_and(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
        part.bytes().all(is_allowed)
            && ends(part.bytes().next())
            && ends(part.bytes().last())
            && !part.contains("..")
    };
    text.len() <= LONGEST_REPOSITORY && text.split('/').all(is_sound)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_they_are_written() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, host, repository) in [
            ("oci://registry.example/team/acme:1.2.0", "registry.example", "team/acme"),
            (&format!("oci://127.0.0.1:5000/acme@{digest}"), "127.0.0.1:5000", "acme"),
            (&format!("oci://[::1]:5000/a/b_c/d-e.f:x@{digest}"), "[::1]:5000", "a/b_c/d-e.f"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.host.as_str(), reference.repository.as_str()), (host, repository));
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for (text, why) in [
            ("registry.example/acme:1", "does not begin"),
            ("oci://registry.example", "no repository"),
            ("oci:///acme:1", "host"),
            ("oci://user@registry.example/acme:1", "host"),
            ("oci://a b/acme:1", "host"),
            ("oci://registry.example:port/acme:1", "host"),
            ("oci://registry.example/acme", "neither"),
            ("oci://registry.example/Acme:1", "repository"),
            ("oci://registry.example/../v2:1", "repository"),
            ("oci://registry.example/a//b:1", "repository"),
            ("oci://registry.example/acme?x:1", "repository"),
            ("oci://registry.example/acme:", "tag"),
            ("oci://registry.example/acme:a/b", "tag"),
            ("oci://registry.example/acme@sha256:00", "digest"),
            (&format!("oci://registry.example/acme@sha256:{}", "0A".repeat(32)), "digest"),
            (&format!("oci://registry.example/acme@sha512:{}", "00".repeat(32)), "digest"),
        ] {
            let problem = Reference::parse(text).map(|_| ()).unwrap_err().to_string();
            assert!(problem.contains(why), "{text}: {problem}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (host, local) in [
            ("localhost:5000", true),
            ("127.8.8.8", true),
            ("[::1]", true),
            ("10.0.0.1", false),
            ("local.example", false),
        ] {
            assert_eq!(Reference::parse(&format!("oci://{host}/a:1")).unwrap().is_local(), local, "{host}");
        }
    }
}
