//! Secrets at rest: sealed under one key and bound to the record that they belong to; and API keys, of which only a
//! keyed hash is kept.
//!
//! Sealing is AES-256-GCM (NIST SP 800-38D) with a key of its own for every record: HKDF-SHA256 (RFC 5869) of the
//! sealing key and 32 random bytes that are stored in front. A key is used once, so the nonce is constant,
//! and the bound of 2^32 random nonces per key does not apply: two of 2^64 records share a key with a
//! chance of less than 2^-128. The record's identity is the associated data: what was sealed for one
//! record does not open as another's, and does not open after a change of the record's readable part.
//!
//! An API key holds 256 random bits, so it cannot be guessed and a slow hash would only slow every request. The hash
//! is keyed (HMAC-SHA256), so that write access to the registry's file without its sealing key is not enough to add a
//! key; the tenant is hashed too, so a key cannot be moved to another tenant. A second secret, derived from the same
//! one, authenticates the registry's records.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::files::{Secret, UploadedSecrets};
use pushlet_model::digest::joined;

/// The first byte of what is sealed.
const FORMAT: u8 = 1;
const SALT: usize = 32;
const KEY: usize = 32;
const INFO: &[u8] = b"pushlet registry record";

/// The key that secrets are sealed under.
pub struct SealingKey(Prk);

/// Why something cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("a sealing key is 32 bytes in hex: 64 digits")]
    InvalidKey,
    /// The key is another one, or the record was changed.
    #[error("it was not sealed with this key for this record")]
    NotOurs,
    #[error("it was sealed by a newer version of this program")]
    Newer,
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl SealingKey {
    /// Creates a random key, for secrets that are not kept beyond the process.
    pub fn generate() -> Result<Self, SealError> {
        let bytes = random::<KEY>()?;
        Ok(Self::new(&bytes))
    }

    /// Parses a key of 64 hex digits.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; KEY]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| SealError::InvalidKey)?;
        Ok(Self::new(&bytes))
    }

    fn new(bytes: &[u8; KEY]) -> Self {
        Self(Prk::new_less_safe(HKDF_SHA256, bytes))
    }

    /// Derives a key for another purpose. It reveals neither this key nor other derived ones.
    pub fn derive(&self, purpose: &str) -> Result<Zeroizing<[u8; KEY]>, SealError> {
        let mut key = Zeroizing::new([0; KEY]);
        let info = [b"pushlet derived key ", purpose.as_bytes()];
        let derived = self.0.expand(&info, HKDF_SHA256).map_err(|_| SealError::InvalidKey)?;
        derived.fill(key.as_mut_slice()).map_err(|_| SealError::InvalidKey)?;
        Ok(key)
    }

    /// Seals secrets for the record of this identity.
    pub fn seal(&self, secrets: &UploadedSecrets, identity: &[&[u8]]) -> Result<Vec<u8>, SealError> {
        self.seal_text(&written(secrets), identity)
    }

    /// Returns the secrets that were sealed for the record of this identity.
    pub fn open(&self, sealed: &[u8], identity: &[&[u8]]) -> Result<UploadedSecrets, SealError> {
        read(&self.open_text(sealed, identity)?).ok_or(SealError::NotOurs)
    }

    /// Seals the same secrets under another key.
    pub fn reseal(&self, sealed: &[u8], identity: &[&[u8]], new: &Self) -> Result<Vec<u8>, SealError> {
        new.seal_text(&self.open_text(sealed, identity)?, identity)
    }

    /// Seals a text for the record of this identity.
    pub fn seal_text(&self, text: &[u8], identity: &[&[u8]]) -> Result<Vec<u8>, SealError> {
        let salt = random::<SALT>()?;
        // Room for everything from the start, so that no copy of the text is left behind.
        let mut sealed = Vec::with_capacity(1 + SALT + text.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&*salt);
        let start = sealed.len();
        sealed.extend_from_slice(text);
        let (_, body) = sealed.split_at_mut(start);
        let aad = Aad::from(associated(identity));
        let tag: Tag = self
            .record_key(&salt)?
            .seal_in_place_separate_tag(nonce(), aad, body)
            .map_err(|_| SealError::NotOurs)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Returns the text that was sealed for the record of this identity.
    pub fn open_text(&self, sealed: &[u8], identity: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (&format, rest) = sealed.split_first().ok_or(SealError::NotOurs)?;
        if format != FORMAT {
            return Err(SealError::Newer);
        }
        let (salt, body) = rest.split_first_chunk::<SALT>().ok_or(SealError::NotOurs)?;
        let mut text = Zeroizing::new(body.to_vec());
        let aad = Aad::from(associated(identity));
        let opened = self.record_key(salt)?.open_in_place(nonce(), aad, &mut text);
        let length = opened.map_err(|_| SealError::NotOurs)?.len();
        text.truncate(length);
        Ok(text)
    }

    fn record_key(&self, salt: &[u8; SALT]) -> Result<LessSafeKey, SealError> {
        // The random bytes vary the derived key as HKDF's `info`; the sealing key is the secret already.
        let info = [INFO, salt.as_slice()];
        let derived = self.0.expand(&info, &AES_256_GCM).map_err(|_| SealError::InvalidKey)?;
        Ok(LessSafeKey::new(UnboundKey::from(derived)))
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Returns the associated data of a sealed text: the format, and the record's identity.
fn associated(identity: &[&[u8]]) -> Vec<u8> {
    [&[FORMAT], joined(identity).as_slice()].concat()
}

/// Names and values, each with its length before it.
fn written(secrets: &UploadedSecrets) -> Zeroizing<Vec<u8>> {
    let size = secrets.fields().map(|(name, value)| 8 + name.len() + value.len()).sum();
    let mut text = Zeroizing::new(Vec::with_capacity(size));
    for (name, value) in secrets.fields() {
        for part in [name.as_bytes(), value] {
            text.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            text.extend_from_slice(part);
        }
    }
    text
}

fn read(mut text: &[u8]) -> Option<UploadedSecrets> {
    let mut secrets = UploadedSecrets::default();
    while !text.is_empty() {
        let name = std::str::from_utf8(part(&mut text)?).ok()?;
        secrets.insert(name, Secret::new(part(&mut text)?.to_vec()));
    }
    Some(secrets)
}

fn part<'a>(text: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = text.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *text = rest;
    Some(part)
}

/// How every key begins.
pub const API_KEY_PREFIX: &str = "pushlet_";
const SECRET_SIZE: usize = 32;
/// The field of its sealed secret.
const HASH_KEY_FIELD: &str = "api_key_hash_key";
/// Present if records are authenticated too.
const AUTHENTICATES: &str = "authenticates_records";

/// The id of a key. It is part of the key, so that its hash is found at once, and is not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u64);

/// A new key. It has no `Debug`, `Display` or `Serialize`.
pub struct ApiKey {
    id: KeyId,
    text: Zeroizing<String>,
}

/// HMAC-SHA256 of a key.
pub type KeyHash = [u8; 32];

/// Hashes keys with a secret of the registry.
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

/// A new key for VAPID (RFC 8292), as Web Push tools print it.
pub struct VapidKey {
    /// The uncompressed point in base64url: the `applicationServerKey` of browsers.
    pub public: String,
    /// The private scalar in base64url.
    pub private: Zeroizing<String>,
}

impl VapidKey {
    pub fn generate() -> Result<Self, NoRandomness> {
        let scalar = random::<32>()?;
        // All but one in 2^32 random numbers are a key.
        let key = p256::SecretKey::from_slice(scalar.as_slice()).map_err(|_| NoRandomness)?;
        let public = URL_SAFE_NO_PAD.encode(key.public_key().to_sec1_point(false).as_bytes());
        Ok(Self { public, private: Zeroizing::new(URL_SAFE_NO_PAD.encode(scalar.as_slice())) })
    }
}

impl ApiKey {
    /// `pushlet_`, its id in 16 hex digits, `_`, and the secret in base64url (RFC 4648 section 5).
    pub fn generate() -> Result<Self, NoRandomness> {
        let id = KeyId(u64::from_be_bytes(*random::<8>()?));
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(*random::<SECRET_SIZE>()?));
        Ok(Self { id, text: Zeroizing::new(format!("{API_KEY_PREFIX}{id}_{}", *secret)) })
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Returns the key itself, for the one response that shows it.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl KeyId {
    /// Returns the id that is written in a key.
    pub fn of_key(key: &str) -> Option<Self> {
        let (id, _) = key.strip_prefix(API_KEY_PREFIX)?.split_once('_')?;
        Self::parse(id)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let id = u64::from_str_radix(text, 16).ok().map(Self)?;
        // An id has exactly one spelling.
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
        secret.insert(HASH_KEY_FIELD, Secret::new(random::<SECRET_SIZE>()?.to_vec()));
        Self::begin_to_authenticate(&mut secret);
        Self::new(secret).ok_or(NoRandomness)
    }

    /// Creates a hasher from the secret of an earlier one; None: it is not such a secret.
    pub fn new(secret: UploadedSecrets) -> Option<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.get(HASH_KEY_FIELD)?);
        // No API key is hashed as this is: its tenant's name comes first, and has no NUL in it.
        let records = hmac::sign(&key, b"\0records");
        Some(Self { records: hmac::Key::new(hmac::HMAC_SHA256, records.as_ref()), key, secret })
    }

    /// Records in a secret that records are authenticated with it. Returns false if that was recorded before.
    pub fn begin_to_authenticate(secret: &mut UploadedSecrets) -> bool {
        let is_new = secret.get(AUTHENTICATES).is_none();
        secret.insert(AUTHENTICATES, Secret::new(b"1".to_vec()));
        is_new
    }

    /// Returns a MAC of these parts of a record, in this order.
    pub fn authenticate(&self, parts: &[&[u8]]) -> KeyHash {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.records, &joined(parts)).as_ref());
        mac
    }

    /// Compares in constant time.
    pub fn is_authentic(&self, parts: &[&[u8]], mac: &KeyHash) -> bool {
        hmac::verify(&self.records, &joined(parts), mac).is_ok()
    }

    /// Returns the secret, to be sealed.
    pub fn secret(&self) -> &UploadedSecrets {
        &self.secret
    }

    pub fn hash(&self, tenant: &str, key: &str) -> KeyHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.key, &hashed(tenant, key)).as_ref());
        hash
    }

    /// Compares in constant time.
    pub fn matches(&self, tenant: &str, key: &str, hash: &KeyHash) -> bool {
        hmac::verify(&self.key, &hashed(tenant, key), hash).is_ok()
    }
}

/// No tenant's id holds a NUL.
fn hashed(tenant: &str, key: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([tenant.as_bytes(), &[0], key.as_bytes()].concat())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "at_rest_tests.rs"]
mod tests;
