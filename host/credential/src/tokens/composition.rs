//! Texts made of secrets, settings, the time and the request: HTTP Basic, digests and signatures, as a manifest
//! composes them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};
use ring::{digest, hmac};
use url::form_urlencoded;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::jwt::TokenInputs;
use super::token::{AuthorizeError, ClockReading};
use pushlet_model::contract::manifest::{
    ComposedText, Composition, Digest, DigestAlgorithm, Encoding, Part, Place, Placement,
};

/// What is percent-encoded of a secret in a URL or a form: all but the unreserved characters (RFC 3986, section 2.3).
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The prefix of a Standard Webhooks secret, which is no part of its base64.
const WEBHOOK_SECRET: &[u8] = b"whsec_";
/// Bytes of a composed text; a header of this length is refused by many servers.
const LONGEST_TEXT: usize = 8 << 10;

/// The request that a composition may be about, as the component wrote it.
#[derive(Clone, Copy)]
pub struct ComposedRequest<'a> {
    /// With the query.
    pub path: &'a str,
    pub body: &'a [u8],
    /// Headers that it shares with other requests.
    pub common: &'a HeaderMap,
    /// Its own headers, which win.
    pub own: &'a [(HeaderName, HeaderValue)],
}

/// Composes the texts of one request. All of them see the same time and the same unique id.
pub(crate) struct Composer<'a> {
    inputs: TokenInputs<'a>,
    request: Option<ComposedRequest<'a>>,
    since_epoch: Duration,
    id: String,
}

impl<'a> Composer<'a> {
    /// `request`: None for a request to a token endpoint, which has none of its parts yet.
    pub(crate) fn new(
        inputs: TokenInputs<'a>,
        request: Option<ComposedRequest<'a>>,
        now: &ClockReading,
    ) -> Self {
        Self { inputs, request, since_epoch: now.since_epoch(), id: Uuid::new_v4().to_string() }
    }

    /// Returns the texts of a composition, each with its place.
    pub(crate) fn texts(
        &self,
        composition: &Composition,
    ) -> Result<Vec<(Place, HeaderValue)>, AuthorizeError> {
        let digest = composition.digest.as_ref().map(|digest| self.digest(digest)).transpose()?;
        let text = |(text, placement): &(ComposedText, Placement)| {
            let text = self.text(text, digest.as_deref().map(String::as_str))?;
            let value = Zeroizing::new([placement.prefix.as_bytes(), text.as_bytes()].concat());
            Ok((placement.place.clone(), secret_value(&value)?))
        };
        composition.texts.iter().map(text).collect()
    }

    /// Returns a digest as text.
    pub(crate) fn digest(&self, digest: &Digest) -> Result<Zeroizing<String>, AuthorizeError> {
        let mut hasher = self.hasher(digest)?;
        for (number, part) in digest.parts.iter().enumerate() {
            if number > 0 {
                hasher.update(digest.join.as_bytes());
            }
            self.part(part, None, &mut |bytes| hasher.update(bytes))?;
        }
        encoded(&hasher.finish(), digest.encoding)
    }

    /// Returns the parts, one after the other, encoded.
    pub(crate) fn text(
        &self,
        text: &ComposedText,
        digest: Option<&str>,
    ) -> Result<Zeroizing<String>, AuthorizeError> {
        let mut length = 0;
        text.parts.iter().try_for_each(|part| self.part(part, digest, &mut |bytes| length += bytes.len()))?;
        if length > LONGEST_TEXT {
            return Err(AuthorizeError::manifest("a composed text is too long"));
        }
        // With its whole capacity from the start: a buffer that grew would leave copies of secrets.
        let mut plain = Zeroizing::new(Vec::with_capacity(length));
        text.parts
            .iter()
            .try_for_each(|part| self.part(part, digest, &mut |bytes| plain.extend_from_slice(bytes)))?;
        encoded(&plain, text.encoding)
    }

    /// Hands the bytes of a part to `sink`.
    fn part(
        &self,
        part: &Part,
        digest: Option<&str>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), AuthorizeError> {
        let mut number = |number: u128| sink(number.to_string().as_bytes());
        match part {
            Part::Seconds => number(self.since_epoch.as_secs().into()),
            Part::Milliseconds => number(self.since_epoch.as_millis()),
            Part::SecondsAfter(wait) => {
                number((self.since_epoch.saturating_add(Duration::from_millis(*wait))).as_secs().into());
            }
            Part::Literal(text) => sink(text.as_bytes()),
            Part::Setting(name) => sink(self.inputs.setting(name)?.as_bytes()),
            Part::EncodedSetting(name) => {
                let setting = self.inputs.setting(name)?;
                utf8_percent_encode(setting, RESERVED).for_each(|piece| sink(piece.as_bytes()));
            }
            Part::Secret(name) => sink(self.secret(name)?),
            Part::UniqueId => sink(self.id.as_bytes()),
            Part::Header(name) => sink(self.header(name)?),
            Part::Path => sink(self.request()?.path.as_bytes()),
            Part::Body => sink(self.request()?.body),
            Part::FormFields(join) => sink(form_fields(self.request()?.body, join).as_bytes()),
            Part::Digest => {
                let digest = digest.ok_or_else(|| AuthorizeError::manifest("there is no digest"))?;
                sink(digest.as_bytes());
            }
        }
        Ok(())
    }

    fn secret(&self, name: &str) -> Result<&'a [u8], AuthorizeError> {
        let secret = self.inputs.credential.text(name);
        secret.ok_or_else(|| AuthorizeError::manifest("a part is not one of its secrets"))
    }

    fn request(&self) -> Result<ComposedRequest<'a>, AuthorizeError> {
        self.request.ok_or_else(|| AuthorizeError::manifest("there is no request to be signed"))
    }

    fn header(&self, name: &str) -> Result<&'a [u8], AuthorizeError> {
        let request = self.request()?;
        let own = request.own.iter().find(|(header, _)| header.as_str() == name).map(|(_, value)| value);
        let value = own.or_else(|| request.common.get(name));
        let missing = || AuthorizeError::manifest("the request lacks a header that is signed");
        value.map(HeaderValue::as_bytes).ok_or_else(missing)
    }

    fn hasher(&self, digest: &Digest) -> Result<Hasher, AuthorizeError> {
        let key = || {
            let name = digest.key.as_deref().ok_or_else(|| AuthorizeError::manifest("an HMAC has no key"))?;
            decoded(self.secret(name)?, digest.key_encoding)
        };
        Ok(match digest.algorithm {
            DigestAlgorithm::Md5 => Hasher::Md5(Md5::new()),
            DigestAlgorithm::Sha1 => Hasher::Sha(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
            DigestAlgorithm::Sha256 => Hasher::Sha(digest::Context::new(&digest::SHA256)),
            DigestAlgorithm::HmacSha1 => Hasher::hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key()?),
            DigestAlgorithm::HmacSha256 => Hasher::hmac(hmac::HMAC_SHA256, &key()?),
        })
    }
}

enum Hasher {
    Md5(Md5),
    Sha(digest::Context),
    Hmac(hmac::Context),
}

impl Hasher {
    fn hmac(algorithm: hmac::Algorithm, key: &[u8]) -> Self {
        Self::Hmac(hmac::Context::with_key(&hmac::Key::new(algorithm, key)))
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Sha(hasher) => hasher.update(bytes),
            Self::Hmac(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Md5(hasher) => hasher.finalize().to_vec(),
            Self::Sha(hasher) => hasher.finish().as_ref().to_vec(),
            Self::Hmac(hasher) => hasher.sign().as_ref().to_vec(),
        }
    }
}

/// Returns the decoded fields of a form, sorted by name, each `name=value`.
fn form_fields(body: &[u8], join: &str) -> String {
    let mut fields: Vec<_> = form_urlencoded::parse(body).collect();
    fields.sort();
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    fields.join(join)
}

fn encoded(bytes: &[u8], encoding: Encoding) -> Result<Zeroizing<String>, AuthorizeError> {
    Ok(Zeroizing::new(match encoding {
        Encoding::Plain => std::str::from_utf8(bytes)
            .map_err(|_| AuthorizeError::manifest("a composed text is not UTF-8"))?
            .to_owned(),
        Encoding::Hex => hex::encode(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
        Encoding::Base64url => URL_SAFE_NO_PAD.encode(bytes),
        Encoding::Base64Percent => percent_encode(STANDARD.encode(bytes).as_bytes(), RESERVED).to_string(),
    }))
}

/// Decodes the key of an HMAC. The caller gave it, so the fault is told without its text.
fn decoded(secret: &[u8], encoding: Encoding) -> Result<Zeroizing<Vec<u8>>, AuthorizeError> {
    let wrong = || AuthorizeError::manifest("the secret is not encoded as the manifest says");
    let bytes = match encoding {
        Encoding::Plain => secret.to_vec(),
        Encoding::Hex => hex::decode(secret).map_err(|_| wrong())?,
        _ => {
            let secret = secret.strip_prefix(WEBHOOK_SECRET).unwrap_or(secret);
            STANDARD.decode(secret).map_err(|_| wrong())?
        }
    };
    Ok(Zeroizing::new(bytes))
}

/// Returns a text as a value that is never shown.
fn secret_value(text: &[u8]) -> Result<HeaderValue, AuthorizeError> {
    let mut value = HeaderValue::from_bytes(text)
        .map_err(|_| AuthorizeError::manifest("a composed text makes no header value"))?;
    value.set_sensitive(true);
    Ok(value)
}
