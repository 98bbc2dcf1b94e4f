//! Credentials: the only place that holds secret material.
//!
//! An upload becomes a [`Credential`] once, at registration, with everything checked. For a send, the
//! [`Authorizer`] turns it into what goes on the wire: a TLS client certificate, or a header whose
//! value is marked sensitive. Secrets have no `Debug`, `Display` or `Serialize`, and their bytes are
//! wiped when dropped; what the TLS and signing libraries keep in their own key types is theirs.
//!
//! - [`files`]: PKCS#12, PEM, `.p8` and service accounts, and the identities and keys in them
//! - [`tokens`]: JWT, OAuth and VAPID tokens: signed, fetched, cached
//! - [`seal`] and [`api_key`]: secrets at rest, and the keys that callers authenticate with
//! - [`manifest`]: what a provider's manifest may ask of credentials

mod api_key;
mod credential;
mod error;
mod files;
mod manifest;
mod seal;
mod secret;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
mod tokens;

pub use self::api_key::{ApiKey, KeyHash, KeyHasher, KeyId, NoRandomness, PREFIX as API_KEY_PREFIX};
pub use self::credential::{Credential, CredentialPurpose, CredentialSummary, upload_fields};
pub use self::error::CredentialError;
pub use self::files::identity::ClientCertificate;
pub use self::manifest::{ManifestError, check_manifest, sources};
pub use self::seal::{SealError, SealingKey};
pub use self::secret::{Secret, UploadedSecrets};
pub use self::tokens::authorizer::{Authorization, AuthorizeRequest, Authorizer, TokenCounts};
pub use self::tokens::error::AuthorizeError;
pub use self::tokens::handle::TokenHandle;
pub use self::tokens::moment::ClockReading;
pub use self::tokens::token_client::{TokenClient, TokenHttpError, TokenRequest, TokenResponse, TokenTrust};
