//! What is uploaded: secret bytes, the files that they come in, and why a file cannot be used.

pub(crate) mod certificate;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod pem;
pub(crate) mod pkcs12;

use std::borrow::Cow;
use std::collections::BTreeMap;

use zeroize::Zeroizing;

use pushlet_model::contract::manifest::SecretFormat;
use pushlet_model::error::Error;

/// Secret bytes, wiped from memory when dropped. It can be neither printed, serialised nor copied,
/// and only this module can look inside.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the buffer itself is wiped later, not a copy of it.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// What a caller uploaded for a credential: field name → value, passwords included.
#[derive(Default)]
pub struct UploadedSecrets(BTreeMap<String, Secret>);

impl UploadedSecrets {
    /// Adds a field. An empty value counts as not given, as an HTML form sends it.
    pub fn insert(&mut self, field: &str, value: Secret) {
        if !value.expose().is_empty() {
            self.0.insert(field.to_owned(), value);
        }
    }

    pub(crate) fn get(&self, field: &str) -> Option<&[u8]> {
        self.0.get(field).map(Secret::expose)
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn reveal(&self, field: &str) -> Option<&[u8]> {
        self.get(field)
    }

    /// Returns all fields, by name.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.expose()))
    }
}

/// An uploaded credential is wrong: the caller must act. It never holds a part of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CredentialError {
    /// `invalid_{field}`.
    pub code: String,
    /// For the caller: what is wrong.
    pub message: String,
    /// The upload field that is wrong.
    pub field: String,
}

impl From<CredentialError> for Error {
    fn from(error: CredentialError) -> Self {
        Error::field(error.code, error.field, error.message)
    }
}

/// The cause of a [`CredentialError`], before it is known which field it is about.
#[derive(Debug)]
pub(crate) enum FileFault {
    /// It is not in the format at all.
    Unreadable,
    Because(Cow<'static, str>),
}

impl From<&'static str> for FileFault {
    fn from(cause: &'static str) -> Self {
        Self::Because(Cow::Borrowed(cause))
    }
}

impl From<String> for FileFault {
    fn from(cause: String) -> Self {
        Self::Because(Cow::Owned(cause))
    }
}

impl FileFault {
    /// Returns the sentence that callers of the classic API know, with the cause if there is one.
    pub(crate) fn into_error(self, field: &str, format: SecretFormat) -> CredentialError {
        let sentence = match format {
            SecretFormat::Pkcs12Identity => {
                format!("could not process {field} certificate, check that it is in p12 format and is valid")
            }
            SecretFormat::PemIdentity => {
                format!("could not process {field} certificate, check that it is in pem format and is valid")
            }
            SecretFormat::Pkcs8Key => {
                format!("could not process {field} key, check that it is in p8 format and is valid")
            }
            SecretFormat::P256Key => {
                format!(
                    "could not process {field} key, check that it is a P-256 private key in base64url or PEM"
                )
            }
            SecretFormat::ServiceAccount => {
                format!(
                    "could not process {field}, check that it is a service account in json format and is valid"
                )
            }
            SecretFormat::Text => format!("could not process {field}, check that it is plain text"),
        };
        let message = match self {
            Self::Unreadable => sentence,
            Self::Because(cause) => format!("{sentence}: {cause}"),
        };
        CredentialError { code: format!("invalid_{field}"), message, field: field.to_owned() }
    }
}

/// The password that came with a secret, and the field it came in.
#[derive(Clone, Copy)]
pub(crate) struct FilePassword<'a> {
    pub(crate) value: Option<&'a str>,
    pub(crate) field: Option<&'a str>,
}

impl FilePassword<'_> {
    /// Returns the fault when the password does not open the secret.
    pub(crate) fn wrong(&self) -> FileFault {
        match (self.value, self.field) {
            (Some(_), _) => "wrong password".into(),
            (None, Some(field)) => format!("it needs a password, given as {field}").into(),
            (None, None) => "it has a password; upload it without one".into(),
        }
    }
}
