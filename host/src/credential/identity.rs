//! A certificate with its private key, checked, ready for TLS.

use std::sync::Arc;
use std::time::SystemTime;

use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::{Decode, Tag};
use ring::digest;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::{CertifiedKey, SigningKey};
use zeroize::Zeroizing;

use super::der::Reader;
use super::fault::Fault;
use super::key;
use super::x509::CertificateInfo;

const MOST_CERTIFICATES: usize = 16;
const MOST_KEYS: usize = 4;

/// How the DER of a private key is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyEncoding {
    Pkcs8,
    Pkcs1,
    Sec1,
}

/// A private key as it stands in a file.
pub(super) struct KeyDer {
    pub(super) encoding: KeyEncoding,
    pub(super) der: Zeroizing<Vec<u8>>,
}

impl KeyDer {
    /// The EC key (RFC 5915) together with the point of a subject public key info, if it is one.
    fn with_public_key(&self, public_key_info: &[u8]) -> Option<KeyDer> {
        let info;
        let ec_key = match self.encoding {
            KeyEncoding::Sec1 => self.der.as_slice(),
            KeyEncoding::Pkcs8 => {
                info = PrivateKeyInfoRef::from_der(&self.der).ok()?;
                info.private_key.as_bytes()
            }
            KeyEncoding::Pkcs1 => return None,
        };
        let mut ec_key = Reader::new(ec_key).enter(Tag::Sequence).ok()?;
        ec_key.integer().ok().filter(|version| *version == 1)?;
        let secret = Zeroizing::new(element(0x04, ec_key.value(Tag::OctetString).ok()?)?);
        let mut public = Reader::new(public_key_info).enter(Tag::Sequence).ok()?;
        public.value(Tag::Sequence).ok()?;
        let point = element(0x03, public.value(Tag::BitString).ok()?)?;
        let public = element(0xa1, &point)?;
        let body = Zeroizing::new([&[0x02, 0x01, 0x01], secret.as_slice(), public.as_slice()].concat());
        Some(KeyDer { encoding: KeyEncoding::Sec1, der: Zeroizing::new(element(0x30, &body)?) })
    }
}

/// DER of an element with at most 255 bytes of content.
fn element(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(content.len()).ok()?;
    let head: &[u8] = if length < 0x80 { &[tag, length] } else { &[tag, 0x81, length] };
    Some([head, content].concat())
}

/// What a file holds, in its order.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) keys: Vec<KeyDer>,
    certificates: Vec<Vec<u8>>,
}

impl Parts {
    pub(super) fn add_key(&mut self, key: KeyDer) -> Result<(), Fault> {
        if self.keys.len() == MOST_KEYS {
            return Err(format!("it holds more than {MOST_KEYS} private keys").into());
        }
        self.keys.push(key);
        Ok(())
    }

    pub(super) fn add_certificate(&mut self, der: Vec<u8>) -> Result<(), Fault> {
        if self.certificates.len() == MOST_CERTIFICATES {
            return Err(format!("it holds more than {MOST_CERTIFICATES} certificates").into());
        }
        self.certificates.push(der);
        Ok(())
    }
}

/// A TLS client certificate with its chain and key.
#[derive(Clone)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate: connections of different certificates are never shared.
    pub fingerprint: [u8; 32],
    pub key: Arc<CertifiedKey>,
}

/// A client certificate and what is written in it.
pub(super) struct Identity {
    pub(super) certificate: ClientCertificate,
    pub(super) info: CertificateInfo,
}

impl Identity {
    /// Finds the certificate that belongs to the key, checks its validity, and puts its issuers after it.
    pub(super) fn assemble(parts: Parts, now: SystemTime) -> Result<Self, Fault> {
        if parts.certificates.is_empty() {
            return Err("it holds no certificate".into());
        }
        if parts.keys.is_empty() {
            return Err("it holds no private key".into());
        }
        let mut certificates = Vec::new();
        for der in parts.certificates {
            certificates.push((CertificateInfo::parse(&der)?, CertificateDer::from(der)));
        }
        let keys = parts.keys.iter().map(|key| load(key, &certificates)).collect::<Result<Vec<_>, _>>()?;
        let (leaf, key) = best_match(&certificates, &keys)
            .ok_or_else(|| Fault::from("the private key does not match the certificate"))?;
        let (info, der) = certificates.swap_remove(leaf);
        info.check_validity(now)?;
        let fingerprint = sha256(&der);
        let chain = chain(&info, der, certificates);
        let key = Arc::new(CertifiedKey::new(chain, key));
        Ok(Self { certificate: ClientCertificate { fingerprint, key }, info })
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

type Certificates = [(CertificateInfo, CertificateDer<'static>)];

fn load(key: &KeyDer, certificates: &Certificates) -> Result<Arc<dyn SigningKey>, Fault> {
    // Java's keytool leaves the public part out of EC keys; the certificate has it.
    let completed =
        || certificates.iter().find_map(|(info, _)| signer(&key.with_public_key(&info.public_key)?));
    signer(key).or_else(completed).ok_or_else(|| key::why_refused(key))
}

fn signer(key: &KeyDer) -> Option<Arc<dyn SigningKey>> {
    let der = key.der.as_slice();
    let typed = match key.encoding {
        KeyEncoding::Pkcs8 => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
        KeyEncoding::Pkcs1 => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        KeyEncoding::Sec1 => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
    };
    any_supported_type(&typed).ok()
}

/// A renewed certificate may lie beside the old one of the same key: the one that ends last counts.
fn best_match(
    certificates: &Certificates,
    keys: &[Arc<dyn SigningKey>],
) -> Option<(usize, Arc<dyn SigningKey>)> {
    let owner = |info: &CertificateInfo| {
        keys.iter().find(|key| key.public_key().is_some_and(|public| public.as_ref() == info.public_key))
    };
    let matches = certificates
        .iter()
        .enumerate()
        .filter_map(|(index, (info, _))| owner(info).map(|key| (info.ends_at(), index, key)));
    matches.max_by_key(|(ends_at, _, _)| *ends_at).map(|(_, index, key)| (index, key.clone()))
}

/// The leaf, its issuer, the issuer's issuer, and so on as far as the file goes.
fn chain(
    leaf: &CertificateInfo,
    der: CertificateDer<'static>,
    mut others: Vec<(CertificateInfo, CertificateDer<'static>)>,
) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![der];
    let (mut subject, mut issuer) = (leaf.subject.clone(), leaf.issuer.clone());
    while subject != issuer {
        let Some(next) = others.iter().position(|(info, _)| info.subject == issuer) else { break };
        let (info, der) = others.swap_remove(next);
        chain.push(der);
        (subject, issuer) = (info.subject, info.issuer);
    }
    chain
}
