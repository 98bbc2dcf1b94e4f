//! Private keys in files, the keys that sign tokens, and a reader of DER for the few structures that no library reads
//! with bounds.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::asn1::{AnyRef, ObjectIdentifier};
use pkcs8::der::{Decode, Reader as _, SliceReader, Tag, Tagged};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{self, KeyPair};
use zeroize::Zeroizing;

use super::FileFault;
use pushlet_model::contract::manifest::SigningAlgorithm;
use pushlet_model::digest::sha256;

/// The structure of a private key's DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyEncoding {
    Pkcs8,
    Pkcs1,
    Sec1,
}

/// A private key as it is in a file.
pub(crate) struct KeyDer {
    pub(crate) encoding: KeyEncoding,
    pub(crate) der: Zeroizing<Vec<u8>>,
    /// Its id in PKCS#12 (localKeyID).
    pub(crate) local_id: Option<Vec<u8>>,
}

impl KeyDer {
    pub(crate) fn new(encoding: KeyEncoding, der: Zeroizing<Vec<u8>>) -> Self {
        Self { encoding, der, local_id: None }
    }

    /// Returns the EC key (RFC 5915) with the point of a subject public key info added; None: it is not an EC key.
    pub(crate) fn with_public_key(&self, public_key_info: &[u8]) -> Option<KeyDer> {
        let info;
        let ec_key = match self.encoding {
            KeyEncoding::Sec1 => self.der.as_slice(),
            KeyEncoding::Pkcs8 => {
                info = PrivateKeyInfoRef::from_der(&self.der).ok()?;
                info.private_key.as_bytes()
            }
            KeyEncoding::Pkcs1 => return None,
        };
        let mut ec_key = DerReader::new(ec_key).enter(Tag::Sequence).ok()?;
        // ecPrivkeyVer1 is the only version (RFC 5915, section 3).
        ec_key.integer().ok().filter(|version| *version == 1)?;
        let secret = Zeroizing::new(element(0x04, ec_key.value(Tag::OctetString).ok()?)?);
        let mut public = DerReader::new(public_key_info).enter(Tag::Sequence).ok()?;
        public.value(Tag::Sequence).ok()?;
        let point = element(0x03, public.value(Tag::BitString).ok()?)?;
        let public = element(0xa1, &point)?;
        let body = Zeroizing::new([&[0x02, 0x01, 0x01], secret.as_slice(), public.as_slice()].concat());
        Some(KeyDer::new(KeyEncoding::Sec1, Zeroizing::new(element(0x30, &body)?)))
    }
}

/// Returns the DER of an element with at most 255 bytes of content.
fn element(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(content.len()).ok()?;
    let head: &[u8] = if length < 0x80 { &[tag, length] } else { &[tag, 0x81, length] };
    Some([head, content].concat())
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A key that signs tokens with one algorithm.
pub(crate) struct TokenKey {
    pair: SigningPair,
    /// The uncompressed point of an EC key, the PKCS#1 structure of an RSA key.
    public: Box<[u8]>,
    fingerprint: [u8; 32],
}

enum SigningPair {
    P256(SigningKey),
    Rsa(RsaKeyPair, &'static dyn signature::RsaEncoding),
}

impl TokenKey {
    /// Checks that the key fits the algorithm; the fault says what it is instead.
    pub(crate) fn parse(key: &KeyDer, algorithm: SigningAlgorithm) -> Result<Self, FileFault> {
        let (pair, public) = match algorithm {
            SigningAlgorithm::Es256 => {
                let key = p256(key)?;
                let point = key.verifying_key().to_sec1_point(false);
                (SigningPair::P256(key), point.as_bytes().into())
            }
            SigningAlgorithm::Rs256 => rsa_pair(key, &signature::RSA_PKCS1_SHA256)?,
            SigningAlgorithm::Ps256 => rsa_pair(key, &signature::RSA_PSS_SHA256)?,
        };
        let fingerprint = sha256(&public);
        Ok(Self { pair, public, fingerprint })
    }

    /// Reads a P-256 key: the private scalar in base64url, with or without padding, as Web Push tools print it,
    /// or PEM in PKCS#8 or SEC 1, which `read_pem` reads.
    pub(crate) fn parse_p256(
        file: &[u8],
        read_pem: impl FnOnce(&[u8]) -> Result<KeyDer, FileFault>,
    ) -> Result<Self, FileFault> {
        let text = file.trim_ascii();
        let text = text.strip_suffix(b"=").unwrap_or(text);
        // Tools that cut leading zeros wrote fewer than 43 letters.
        let scalar = match text.len() {
            40..=43 => URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok(),
            _ => None,
        };
        if let Some(scalar) = scalar {
            return Self::of_scalar(&Zeroizing::new(scalar));
        }
        let key = read_pem(file)?;
        match key.encoding {
            KeyEncoding::Sec1 => {
                let mut ec_key = DerReader::new(&key.der).enter(Tag::Sequence)?;
                ec_key.integer()?;
                Self::of_scalar(ec_key.value(Tag::OctetString)?)
            }
            _ => Self::parse(&key, SigningAlgorithm::Es256),
        }
    }

    /// `scalar`: big endian, at most 32 bytes.
    fn of_scalar(scalar: &[u8]) -> Result<Self, FileFault> {
        let mut padded = Zeroizing::new([0; 32]);
        let start = padded.len().checked_sub(scalar.len()).ok_or("it is longer than a P-256 key")?;
        padded[start..].copy_from_slice(scalar);
        let key = SigningKey::from_slice(&*padded).map_err(|_| "it is not a number of a P-256 key")?;
        let public: Box<[u8]> = key.verifying_key().to_sec1_point(false).as_bytes().into();
        let fingerprint = sha256(&public);
        Ok(Self { pair: SigningPair::P256(key), public, fingerprint })
    }

    /// Returns a JWS signature (RFC 7518 sections 3.3 to 3.5); None if the system has no randomness. That of an EC key
    /// needs none (RFC 6979): every node of a fleet makes the same one.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.pair {
            SigningPair::P256(key) => {
                let signature: Signature = key.try_sign(message).ok()?;
                Some(signature.to_vec())
            }
            SigningPair::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*padding, &SystemRandom::new(), message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }

    /// Returns the uncompressed point of an EC key, the PKCS#1 structure of an RSA key.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// Returns SHA-256 of the public key.
    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

fn rsa_pair(
    key: &KeyDer,
    padding: &'static dyn signature::RsaEncoding,
) -> Result<(SigningPair, Box<[u8]>), FileFault> {
    let pair = rsa(key)?;
    let public = pair.public_key().as_ref().into();
    Ok((SigningPair::Rsa(pair, padding), public))
}

/// Returns why no signer could be created from a key.
pub(crate) fn why_refused(key: &KeyDer) -> FileFault {
    match kind(key) {
        KeyKind::Rsa => match rsa(key) {
            Err(fault) => fault,
            Ok(_) => "its RSA key is not supported".into(),
        },
        KeyKind::Ec(curve) if curve == P256 || curve == P384 => {
            "its EC key is damaged, or does not match the certificate".into()
        }
        KeyKind::Ec(_) => "its EC key is on a curve that is not supported; P-256 and P-384 are".into(),
        KeyKind::Other(oid) => format!("its key is of a kind that is not supported ({oid})").into(),
        KeyKind::Sec1 => {
            "its EC key is damaged or on a curve that is not supported; P-256 and P-384 are".into()
        }
        KeyKind::Damaged => "its private key is damaged".into(),
    }
}

enum KeyKind {
    Rsa,
    Ec(ObjectIdentifier),
    Sec1,
    Other(ObjectIdentifier),
    Damaged,
}

fn kind(key: &KeyDer) -> KeyKind {
    match key.encoding {
        KeyEncoding::Pkcs1 => return KeyKind::Rsa,
        KeyEncoding::Sec1 => return KeyKind::Sec1,
        KeyEncoding::Pkcs8 => {}
    }
    let Ok(info) = PrivateKeyInfoRef::from_der(&key.der) else { return KeyKind::Damaged };
    match info.algorithm.oid {
        RSA => KeyKind::Rsa,
        EC => info.algorithm.parameters_oid().map_or(KeyKind::Damaged, KeyKind::Ec),
        oid => KeyKind::Other(oid),
    }
}

fn p256(key: &KeyDer) -> Result<SigningKey, FileFault> {
    match kind(key) {
        // A public part that does not belong to the key is refused too.
        KeyKind::Ec(P256) => PrivateKeyInfoRef::from_der(&key.der)
            .map_err(|_| FileFault::Unreadable)
            .and_then(|info| SigningKey::try_from(info).map_err(|_| "its EC key is damaged".into())),
        KeyKind::Ec(P384) => Err("it holds an EC key on P-384; one on P-256 is needed".into()),
        KeyKind::Ec(_) => Err("it holds an EC key on another curve than P-256".into()),
        KeyKind::Sec1 => Err("its EC key is not in PKCS#8; \
                           convert it with: openssl pkcs8 -topk8 -nocrypt -in key.pem -out key.p8"
            .into()),
        KeyKind::Rsa => Err("it holds an RSA key; an EC key on P-256 is needed".into()),
        KeyKind::Other(oid) => {
            Err(format!("it holds a key of kind {oid}; an EC key on P-256 is needed").into())
        }
        KeyKind::Damaged => Err(FileFault::Unreadable),
    }
}

fn rsa(key: &KeyDer) -> Result<RsaKeyPair, FileFault> {
    let pair = match (kind(key), key.encoding) {
        (KeyKind::Rsa, KeyEncoding::Pkcs1) => RsaKeyPair::from_der(&key.der),
        (KeyKind::Rsa, _) => RsaKeyPair::from_pkcs8(&key.der),
        (KeyKind::Damaged, _) => return Err("its private key is damaged".into()),
        _ => return Err("its private key is not an RSA key".into()),
    };
    // ring's `KeyRejected` has no public variants: its text is the only way to tell its reasons apart.
    pair.map_err(|rejected| match rejected.to_string().as_str() {
        "TooSmall" => "its RSA key is too short; at least 2048 bits are needed".into(),
        "TooLarge" => "its RSA key is too long; at most 4096 bits are supported".into(),
        "PrivateModulusLenNotMultipleOf512Bits" => {
            "the length of its RSA key is not a multiple of 512 bits".into()
        }
        _ => "its RSA key is damaged".into(),
    })
}

/// Reads elements one after another from a slice.
pub(crate) struct DerReader<'a>(Option<SliceReader<'a>>);

impl<'a> DerReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(SliceReader::new(bytes).ok())
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|reader| reader.is_finished())
    }

    pub(crate) fn decode<T: Decode<'a>>(&mut self) -> Result<T, FileFault> {
        let reader = self.0.as_mut().ok_or(FileFault::Unreadable)?;
        T::decode(reader).map_err(|_| FileFault::Unreadable)
    }

    /// Returns the content of the next element, which must have this tag.
    pub(crate) fn value(&mut self, tag: Tag) -> Result<&'a [u8], FileFault> {
        let any: AnyRef<'a> = self.decode()?;
        if any.tag() == tag { Ok(any.value()) } else { Err(FileFault::Unreadable) }
    }

    /// Returns a reader of the content of the next element, which must have this tag.
    pub(crate) fn enter(&mut self, tag: Tag) -> Result<DerReader<'a>, FileFault> {
        self.value(tag).map(DerReader::new)
    }

    pub(crate) fn oid(&mut self) -> Result<ObjectIdentifier, FileFault> {
        self.decode()
    }

    pub(crate) fn integer(&mut self) -> Result<u32, FileFault> {
        self.decode()
    }
}

/// Returns the tag of a constructed, context-specific element.
pub(crate) fn context(number: u8) -> Tag {
    Tag::ContextSpecific { constructed: true, number: pkcs8::der::TagNumber(u32::from(number)) }
}
