//! Headers of the requests that a component makes: which it may set, and with what.

use http::header::{self, HeaderName, HeaderValue};

use super::error::{ProviderError, bad, printable};
use pushlet_model::contract::manifest::{Authentication, Place, Placement, ProviderManifest};

pub(super) const MAX_HEADERS: usize = 32;
pub(super) const MAX_HEADER_BYTES: usize = 4 << 10;
/// Names that are known to be allowed.
const MAX_KNOWN: usize = 8;

/// Headers that belong to the host: authority, credential, framing, connection.
const HOST_HEADERS: [HeaderName; 12] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Checks the headers of one call's requests.
pub(super) struct HeaderRules<'a> {
    pub manifest: &'a ProviderManifest,
    /// Names that were checked already: the requests of many targets have the same.
    known: Vec<HeaderName>,
}

impl<'a> HeaderRules<'a> {
    pub fn new(manifest: &'a ProviderManifest) -> Self {
        Self { manifest, known: Vec::new() }
    }

    /// Returns the headers of one request, or the rule that one of them breaks.
    pub fn checked(
        &mut self,
        raw: Vec<(String, String)>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, ProviderError> {
        if raw.len() > MAX_HEADERS {
            return Err(bad("it has too many headers"));
        }
        raw.into_iter().map(|(name, value)| Ok((self.name(&name)?, checked_value(&name, value)?))).collect()
    }

    fn name(&mut self, name: &str) -> Result<HeaderName, ProviderError> {
        if let Some(known) = self.known.iter().find(|known| known.as_str() == name) {
            return Ok(known.clone());
        }
        let header = HeaderName::from_lowercase(name.as_bytes()).map_err(|_| {
            let is_a_name = HeaderName::from_bytes(name.as_bytes()).is_ok();
            let rule =
                if is_a_name { "its name must be in lower case" } else { "its name cannot be one of HTTP" };
            not_allowed(name, rule)
        })?;
        if belongs_to_host(&header) {
            return Err(ProviderError::Refused(format!("header {header} belongs to the host")));
        }
        // Of two headers with the same name a server may read the first one, and the host adds its own last.
        if carries_credential(self.manifest, &header) {
            return Err(bad(format!("header {header} belongs to a credential of its manifest")));
        }
        if self.known.len() < MAX_KNOWN {
            self.known.push(header.clone());
        }
        Ok(header)
    }
}

fn checked_value(name: &str, value: String) -> Result<HeaderValue, ProviderError> {
    if value.len() > MAX_HEADER_BYTES {
        return Err(not_allowed(name, "its value is longer than 4096 bytes"));
    }
    HeaderValue::try_from(value).map_err(|_| not_allowed(name, "its value has a control character"))
}

fn not_allowed(name: &str, rule: &str) -> ProviderError {
    bad(format!("header {:?} is not allowed: {rule}", printable(name)))
}

/// Returns true for a header that no component sets.
pub(super) fn belongs_to_host(name: &HeaderName) -> bool {
    HOST_HEADERS.contains(name) || name.as_str().starts_with("proxy-")
}

/// Returns true if the host puts one of the manifest's credentials into this header.
fn carries_credential(manifest: &ProviderManifest, header: &HeaderName) -> bool {
    let is_here = |placement: &Placement| match &placement.place {
        Place::Header(name) => name == header.as_str(),
        _ => false,
    };
    manifest.credentials.iter().any(|credential| match &credential.authentication {
        Authentication::SignedToken((_, place))
        | Authentication::ExchangedToken((_, place))
        | Authentication::Secret((_, place)) => is_here(place),
        Authentication::Composed(composition) => composition.texts.iter().any(|(_, place)| is_here(place)),
        // Its header is `authorization`.
        Authentication::Vapid(_) | Authentication::ClientCertificate | Authentication::InStream => false,
    })
}
