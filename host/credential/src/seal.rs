//! Secrets at rest: sealed under one key, bound to the record that they belong to.
//!
//! AES-256-GCM (NIST SP 800-38D) with a key of its own for every record: HKDF-SHA256 (RFC 5869) of the
//! sealing key and 32 random bytes that are stored in front. A key is used once, so the nonce is constant,
//! and the bound of 2^32 random nonces per key does not apply: two of 2^64 records share a key with a
//! chance of less than 2^-128. The record's identity goes in as associated data: what was sealed for one
//! record does not open as another's, and changes with the record's readable part.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::secret::{Secret, UploadedSecrets};
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
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl SealingKey {
    /// A random key, for what ends with the process.
    pub fn generate() -> Result<Self, SealError> {
        let bytes = random::<KEY>()?;
        Ok(Self::new(&bytes))
    }

    /// From 64 hex digits.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; KEY]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| SealError::InvalidKey)?;
        Ok(Self::new(&bytes))
    }

    fn new(bytes: &[u8; KEY]) -> Self {
        Self(Prk::new_less_safe(HKDF_SHA256, bytes))
    }

    /// A key of its own for another purpose, from which neither this one nor any other can be told.
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

    /// The secrets that were sealed for the record of this identity.
    pub fn open(&self, sealed: &[u8], identity: &[&[u8]]) -> Result<UploadedSecrets, SealError> {
        read(&self.open_text(sealed, identity)?).ok_or(SealError::NotOurs)
    }

    /// The same secrets under another key.
    pub fn reseal(&self, sealed: &[u8], identity: &[&[u8]], new: &Self) -> Result<Vec<u8>, SealError> {
        new.seal_text(&self.open_text(sealed, identity)?, identity)
    }

    fn seal_text(&self, text: &[u8], identity: &[&[u8]]) -> Result<Vec<u8>, SealError> {
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

    fn open_text(&self, sealed: &[u8], identity: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, SealError> {
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

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, SealError> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| SealError::NoRandomness)?;
    Ok(bytes)
}

/// What is authenticated with a sealed text: the format, and whose it is.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const IDENTITY: &[&[u8]] = &[b"application", b"acme", b"app"];

    fn key(digit: char) -> SealingKey {
        SealingKey::from_hex(&digit.to_string().repeat(64)).unwrap()
    }

    fn secrets() -> UploadedSecrets {
        let mut secrets = UploadedSecrets::default();
        secrets.insert("apns_p12", Secret::new(vec![0, 1, 2, 255]));
        secrets.insert("apns_p12_pass", Secret::new(b"sesame".to_vec()));
        secrets
    }

    #[test]
    fn what_is_sealed_opens_again_and_does_not_show() {
        let sealed = key('a').seal(&secrets(), IDENTITY).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"sesame"));
        let opened = key('a').open(&sealed, IDENTITY).unwrap();
        assert_eq!(opened.get("apns_p12"), Some(&[0, 1, 2, 255][..]));
        assert_eq!(opened.get("apns_p12_pass"), Some(&b"sesame"[..]));
        assert_ne!(sealed, key('a').seal(&secrets(), IDENTITY).unwrap(), "never the same twice");
    }

    #[test]
    fn another_key_or_record_or_a_changed_byte_does_not_open() {
        let sealed = key('a').seal(&secrets(), IDENTITY).unwrap();
        assert_eq!(key('b').open(&sealed, IDENTITY).err(), Some(SealError::NotOurs));
        let others: [&[&[u8]]; 4] = [
            &[b"application", b"acme", b"other"],
            &[b"application", b"acm", b"eapp"],
            &[b"application", b"acme"],
            &[b"application", b"acme", b"app", b""],
        ];
        for identity in others {
            assert_eq!(key('a').open(&sealed, identity).err(), Some(SealError::NotOurs));
        }
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key('a').open(&changed, IDENTITY).err(), Some(SealError::NotOurs), "byte {at}");
        }
        assert_eq!(key('a').open(&[9; 100], IDENTITY).err(), Some(SealError::Newer));
        for length in 1..sealed.len() {
            assert!(key('a').open(&sealed[..length], IDENTITY).is_err());
        }
    }

    #[test]
    fn resealed_it_opens_with_the_new_key_alone() {
        let sealed = key('a').seal(&secrets(), IDENTITY).unwrap();
        let resealed = key('a').reseal(&sealed, IDENTITY, &key('b')).unwrap();
        assert!(key('b').open(&resealed, IDENTITY).is_ok());
        assert_eq!(key('a').open(&resealed, IDENTITY).err(), Some(SealError::NotOurs));
    }

    #[test]
    fn a_key_is_64_hex_digits() {
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            assert_eq!(SealingKey::from_hex(wrong).err(), Some(SealError::InvalidKey));
        }
        assert!(SealingKey::from_hex(&format!("{}\n", "0".repeat(64))).is_ok());
    }
}
