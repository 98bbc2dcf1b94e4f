//! Encryption of one message for one subscription: RFC 8291, in the content coding `aes128gcm` of RFC 8188.

use aes_gcm::aead::{AeadInOut, Buffer, KeyInit, Result as AeadResult};
use aes_gcm::{Aes128Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use p256::ecdh::SharedSecret;
use p256::elliptic_curve::point::AffineCoordinates;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::elliptic_curve::{BatchNormalize, Group};
use p256::{ProjectivePoint, PublicKey, SecretKey};
use pushlet_provider::input::invalid;
use pushlet_provider::{Rejection, json};
use sha2::Sha256;

/// Bytes of randomness for one message: a salt, and two tries for a private key, of which all but one in 2^32 are one.
pub const ENTROPY: usize = SALT + 2 * SCALAR;
/// Bytes of a message at most, so that its body has the 4,096 bytes that every service takes (RFC 8030 section 7.2).
pub const LONGEST: usize = 4096 - HEADER - 1 - TAG;

const SALT: usize = 16;
const SCALAR: usize = 32;
const TAG: usize = 16;
const POINT: usize = 65;
/// Salt, record size, length of the key, key (RFC 8188 section 2.1).
const HEADER: usize = SALT + 4 + 1 + POINT;
/// One record holds any message: it is longer than the longest.
const RECORD: u32 = 4096;
/// The delimiter of the last record.
const LAST: u8 = 2;

/// The keys of a subscription, as `PushSubscription.toJSON()` has them.
pub struct Keys {
    public: PublicKey,
    /// Uncompressed.
    point: [u8; POINT],
    secret: Vec<u8>,
}

impl Keys {
    /// Reads both keys: base64url or base64, with or without padding.
    pub fn read(p256dh: &str, auth: &str) -> Result<Self, Rejection> {
        let wrong = || invalid("p256dh", "p256dh must be a point of P-256, 65 bytes in base64url");
        let point: [u8; POINT] = decoded(p256dh).and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
        // A point that is not on the curve would tell an attacker something of the private key.
        let public = PublicKey::from_sec1_bytes(&point).map_err(|_| wrong())?;
        let secret = decoded(auth).filter(|secret| secret.len() == 16);
        let secret = secret.ok_or_else(|| invalid("auth", "auth must be 16 bytes in base64url"))?;
        Ok(Self { public, point, secret })
    }

    /// Encrypts a message of at most [`LONGEST`] bytes with [`ENTROPY`] random bytes; None: the randomness holds no
    /// key.
    pub fn encrypt(&self, message: &[u8], entropy: &[u8]) -> Option<Vec<u8>> {
        let (salt, scalars) = entropy.split_at_checked(SALT)?;
        let own = scalars.chunks_exact(SCALAR).find_map(|scalar| SecretKey::from_slice(scalar).ok())?;
        let own = own.to_nonzero_scalar();
        // One inversion for both points.
        let points = [ProjectivePoint::mul_by_generator(&own), self.public.to_projective() * *own];
        let [own_point, shared] = ProjectivePoint::batch_normalize(&points);
        let (own_point, shared) = (own_point.to_sec1_point(false), SharedSecret::from(shared.x()));
        let info = [b"WebPush: info\0".as_slice(), &self.point, own_point.as_bytes()].concat();
        let mut input = [0; 32];
        Hkdf::<Sha256>::new(Some(&self.secret), shared.raw_secret_bytes()).expand(&info, &mut input).ok()?;
        let (mut key, mut nonce) = ([0; 16], [0; 12]);
        let keys = Hkdf::<Sha256>::new(Some(salt), &input);
        keys.expand(b"Content-Encoding: aes128gcm\0", &mut key).ok()?;
        keys.expand(b"Content-Encoding: nonce\0", &mut nonce).ok()?;
        let mut body = Vec::with_capacity(HEADER + message.len() + 1 + TAG);
        body.extend_from_slice(salt);
        body.extend_from_slice(&RECORD.to_be_bytes());
        body.push(POINT as u8);
        body.extend_from_slice(own_point.as_bytes());
        body.extend_from_slice(message);
        body.push(LAST);
        let cipher = Aes128Gcm::new(&key.into());
        cipher.encrypt_in_place(&Nonce::from(nonce), b"", &mut Record { body: &mut body }).ok()?;
        Some(body)
    }
}

/// The part of the body that is encrypted: all behind the header.
struct Record<'a> {
    body: &'a mut Vec<u8>,
}

impl AsRef<[u8]> for Record<'_> {
    fn as_ref(&self) -> &[u8] {
        self.body.get(HEADER..).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Record<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.body.get_mut(HEADER..).unwrap_or_default()
    }
}

impl Buffer for Record<'_> {
    fn extend_from_slice(&mut self, other: &[u8]) -> AeadResult<()> {
        self.body.extend_from_slice(other);
        Ok(())
    }

    fn truncate(&mut self, length: usize) {
        self.body.truncate(HEADER + length);
    }
}

/// Decodes base64 of either alphabet.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let text: String = text
        .trim_end_matches('=')
        .chars()
        .map(|letter| match letter {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// The text of an option that is one, as the host hands it over.
pub fn text(json_text: &str) -> Option<String> {
    json::parse(json_text).ok()?.as_str().map(String::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const USER: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn entropy() -> Vec<u8> {
        let mut entropy = decoded("DGv6ra1nlYgDCS1FRnbzlw").unwrap();
        // Zero is no private key: the second try is the example's.
        entropy.extend([0; SCALAR]);
        entropy.extend(decoded("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw").unwrap());
        entropy
    }

    /// RFC 8291 section 5.
    #[test]
    fn the_example_of_the_rfc() {
        let keys = Keys::read(USER, AUTH).unwrap();
        let body = keys.encrypt(b"When I grow up, I want to be a watermelon", &entropy()).unwrap();
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLoc\
                        InmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLV\
                        WGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(URL_SAFE_NO_PAD.encode(body), expected);
        assert_eq!(keys.encrypt(&[b'x'; LONGEST], &entropy()).unwrap().len(), 4096);
        assert!(keys.encrypt(b"", &[0; ENTROPY]).is_none(), "no key in it");
    }

    #[test]
    fn keys_are_checked() {
        let standard: String = USER.replace('-', "+").replace('_', "/") + "=";
        assert!(Keys::read(&standard, &format!("{AUTH}==")).is_ok());
        let mut off_curve = decoded(USER).unwrap();
        off_curve[64] ^= 1;
        for (p256dh, auth, field) in [
            (URL_SAFE_NO_PAD.encode(off_curve).as_str(), AUTH, "p256dh"),
            ("BCVx", AUTH, "p256dh"),
            (USER, "BTBZ", "auth"),
        ] {
            assert_eq!(Keys::read(p256dh, auth).err().unwrap().field.as_deref(), Some(field));
        }
    }
}
