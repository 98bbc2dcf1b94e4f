//! Provider tokens: ES256 JSON Web Tokens (RFC 7519, RFC 7515).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::headers::Refusal;

/// Apple: a token must be issued within the last hour.
const MAX_AGE: i64 = 3600;
/// Clocks may differ by this much.
const SKEW: i64 = 60;
/// Apple: no more than one new token in twenty minutes.
const MIN_RENEWAL: i64 = 20 * 60;

/// A signing key of an Apple developer team.
#[derive(Debug, Clone)]
pub(super) struct ProviderKey {
    pub key_id: String,
    pub team_id: String,
    /// Uncompressed P-256 point.
    pub public_key: Vec<u8>,
}

/// A token whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProviderToken {
    pub raw: String,
    pub team_id: String,
    pub issued_at: i64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    #[serde(deserialize_with = "seconds")]
    iat: i64,
}

/// Several clients write a number with a fraction, or a number as text; Apple takes both.
fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    let number = match Value::deserialize(value)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let in_range = |seconds: &f64| (0.0..1e15).contains(seconds);
    number
        .filter(in_range)
        .map(|seconds| seconds as i64)
        .ok_or_else(|| D::Error::custom("iat must be seconds"))
}

impl ProviderToken {
    /// Parses a token and verifies its signature by the key that it names.
    pub fn verify(raw: &str, key: impl Fn(&str) -> Option<ProviderKey>) -> Result<ProviderToken, Refusal> {
        Self::read(raw, key).ok_or(Refusal("InvalidProviderToken"))
    }

    fn read(raw: &str, key: impl Fn(&str) -> Option<ProviderKey>) -> Option<ProviderToken> {
        let (signed, signature) = raw.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        let claims: Claims = serde_json::from_slice(&decode(claims)?).ok()?;
        let signature = decode(signature)?;
        let key = key(&header.kid).filter(|key| header.alg == "ES256" && key.team_id == claims.iss)?;
        // JOSE wants r and s side by side; Apple's own sample sends DER.
        let fixed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.public_key);
        let der = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.public_key);
        let verified = fixed.verify(signed.as_bytes(), &signature);
        verified.or_else(|_| der.verify(signed.as_bytes(), &signature)).ok()?;
        Some(ProviderToken { raw: raw.to_owned(), team_id: claims.iss, issued_at: claims.iat })
    }

    /// Refuses a token that is older than an hour, or from the future.
    pub fn check_age(&self, now: i64) -> Result<(), Refusal> {
        let age = now.saturating_sub(self.issued_at);
        if (-SKEW..=MAX_AGE).contains(&age) { Ok(()) } else { Err(Refusal("ExpiredProviderToken")) }
    }

    /// Whether this token may take the place of `previous` on the same connection.
    ///
    /// Apple counts new tokens per twenty minutes; the times of issue tell that apart without a clock, and
    /// leave alone a client whose connection happens to be younger than its token.
    pub fn check_renewal(&self, previous: &ProviderToken) -> Result<(), Refusal> {
        if self.team_id != previous.team_id {
            return Err(Refusal("UnrelatedKeyIdInToken"));
        }
        match self.issued_at.saturating_sub(previous.issued_at) >= MIN_RENEWAL {
            true => Ok(()),
            false => Err(Refusal("TooManyProviderTokenUpdates")),
        }
    }
}
