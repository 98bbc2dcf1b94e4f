//! Secret bytes and the fields they are uploaded in.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

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

    /// All of them, by name.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.expose()))
    }
}
