//! The keys that callers show: made here, shown once, and kept only as a keyed hash.
//!
//! A key holds 256 random bits, so there is nothing to guess and a slow hash would only slow every request.
//! The hash is keyed (HMAC-SHA256) so that one who can write to the registry's file, but does not have its
//! sealing key, cannot plant a key of their own; the tenant goes into it, so a key cannot be moved either.
//! The same secret, or rather another one that is derived from it, authenticates the registry's records.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::secret::{Secret, UploadedSecrets};
use pushlet_model::digest::joined;

/// How every key begins.
pub const PREFIX: &str = "pushlet_";
const SECRET: usize = 32;
/// Its field among what is sealed.
const FIELD: &str = "api_key_hash_key";
/// It is there where records are authenticated too.
const AUTHENTICATES: &str = "authenticates_records";

/// What a key is called: it stands in the key, so that its hash is found at once, and is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u64);

/// A new key. It has no `Debug`, `Display` or `Serialize`.
pub struct ApiKey {
    id: KeyId,
    text: Zeroizing<String>,
}

/// HMAC-SHA256 of a key.
pub type KeyHash = [u8; 32];

/// Hashes keys with a secret of the registry's own.
pub struct KeyHasher {
    key: hmac::Key,
    /// For records.
    records: hmac::Key,
    secret: UploadedSecrets,
}

/// The system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

impl ApiKey {
    /// `pushlet_`, its id in 16 hex digits, `_`, and the secret in base64url (RFC 4648 section 5).
    pub fn generate() -> Result<Self, NoRandomness> {
        let id = KeyId(u64::from_be_bytes(*random::<8>()?));
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(*random::<SECRET>()?));
        Ok(Self { id, text: Zeroizing::new(format!("{PREFIX}{id}_{}", *secret)) })
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The key itself, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl KeyId {
    /// The id in what a caller shows as their key.
    pub fn of_key(key: &str) -> Option<Self> {
        let (id, _) = key.strip_prefix(PREFIX)?.split_once('_')?;
        Self::parse(id)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let id = u64::from_str_radix(text, 16).ok().map(Self)?;
        // One way to write it, and no other.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl KeyHasher {
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut secret = UploadedSecrets::default();
        secret.insert(FIELD, Secret::new(random::<SECRET>()?.to_vec()));
        Self::begin_to_authenticate(&mut secret);
        Self::new(secret).ok_or(NoRandomness)
    }

    /// From the secret of an earlier one. None: it is not such a secret.
    pub fn new(secret: UploadedSecrets) -> Option<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.get(FIELD)?);
        // No API key is hashed as this is: its tenant's name comes first, and has no NUL in it.
        let records = hmac::sign(&key, b"\0records");
        Some(Self { records: hmac::Key::new(hmac::HMAC_SHA256, records.as_ref()), key, secret })
    }

    /// Notes in a secret that records are authenticated with it. False: that is noted already.
    pub fn begin_to_authenticate(secret: &mut UploadedSecrets) -> bool {
        let is_new = secret.get(AUTHENTICATES).is_none();
        secret.insert(AUTHENTICATES, Secret::new(b"1".to_vec()));
        is_new
    }

    /// Proves that these parts of a record, in this order, come from one who has the secret.
    pub fn authenticate(&self, parts: &[&[u8]]) -> KeyHash {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.records, &joined(parts)).as_ref());
        mac
    }

    /// Takes the same time whatever the difference.
    pub fn is_authentic(&self, parts: &[&[u8]], mac: &KeyHash) -> bool {
        hmac::verify(&self.records, &joined(parts), mac).is_ok()
    }

    /// To be sealed.
    pub fn secret(&self) -> &UploadedSecrets {
        &self.secret
    }

    pub fn hash(&self, tenant: &str, key: &str) -> KeyHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.key, &hashed(tenant, key)).as_ref());
        hash
    }

    /// Takes the same time whatever the difference.
    pub fn matches(&self, tenant: &str, key: &str, hash: &KeyHash) -> bool {
        hmac::verify(&self.key, &hashed(tenant, key), hash).is_ok()
    }
}

/// No tenant's id holds a NUL.
fn hashed(tenant: &str, key: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([tenant.as_bytes(), &[0], key.as_bytes()].concat())
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_itself_and_no_two_are_alike() {
        let key = ApiKey::generate().unwrap();
        assert_eq!(KeyId::of_key(key.reveal()), Some(key.id()));
        assert_eq!(key.reveal().len(), 8 + 16 + 1 + 43);
        assert_ne!(ApiKey::generate().unwrap().reveal(), key.reveal());
        for wrong in ["", "pushlet_", "pushlet_0_x", "0123456789abcdef_x", "pushlet_0123456789ABCDEF_x"] {
            assert_eq!(KeyId::of_key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hash_fits_one_key_of_one_tenant() {
        let hasher = KeyHasher::generate().unwrap();
        let key = ApiKey::generate().unwrap();
        let hash = hasher.hash("acme", key.reveal());
        assert!(hasher.matches("acme", key.reveal(), &hash));
        assert!(!hasher.matches("other", key.reveal(), &hash));
        assert!(!hasher.matches("acme", &format!("{}x", key.reveal()), &hash));
        assert!(!KeyHasher::generate().unwrap().matches("acme", key.reveal(), &hash));
        let mac = hasher.authenticate(&[b"tenants", b"acme"]);
        assert!(hasher.is_authentic(&[b"tenants", b"acme"], &mac));
        assert!(!hasher.is_authentic(&[b"tenantsa", b"cme"], &mac));
        assert!(!KeyHasher::generate().unwrap().is_authentic(&[b"tenants", b"acme"], &mac));
        let mut copy = UploadedSecrets::default();
        copy.insert(FIELD, Secret::new(hasher.secret().get(FIELD).unwrap().to_vec()));
        assert!(KeyHasher::new(copy).unwrap().matches("acme", key.reveal(), &hash));
    }
}
