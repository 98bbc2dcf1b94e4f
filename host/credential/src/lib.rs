//! Credentials: the only place that holds secret material.
//!
//! An upload becomes a [`Credential`] once, at registration, with everything checked. For a send, the
//! [`Authorizer`] turns it into what goes on the wire: a TLS client certificate, or a header whose
//! value is marked sensitive. Secrets have no `Debug`, `Display` or `Serialize`, and their bytes are
//! wiped when dropped; what the TLS and signing libraries keep in their own key types is theirs.
//!
//! - [`files`]: PKCS#12, PEM, `.p8` and service accounts, and the identities and keys in them
//! - [`tokens`]: JWT, OAuth and VAPID tokens: signed, fetched, cached
//! - [`at_rest`]: sealed secrets, and the keys that callers authenticate with
//! - [`manifest`]: what a provider's manifest may ask of credentials

mod at_rest;
mod credential;
mod files;
mod manifest;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
mod tokens;

pub use at_rest::{
    API_KEY_PREFIX, ApiKey, KeyHash, KeyHasher, KeyId, NoRandomness, SealError, SealingKey, VapidKey,
};
pub use credential::{Credential, CredentialPurpose, CredentialSummary, upload_fields};
pub use files::certificate::certificate_end;
pub use files::identity::ClientCertificate;
pub use files::{CredentialError, Secret, UploadedSecrets};
pub use manifest::{ManifestError, check_manifest, settings, token_host};
pub use tokens::composition::{ComposedRequest, RESERVED};
pub use tokens::token::{AuthorizeError, ClockReading, TokenHandle};
pub use tokens::token_endpoint::{TokenClient, TokenHttpError, TokenRequest, TokenResponse, TokenTrust};
pub use tokens::{Authorization, AuthorizeRequest, Authorizer, TokenCounts};
