//! A certificate with its private key, checked, ready for TLS.

use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::{CertifiedKey, SigningKey};

use super::FileFault;
use super::certificate::{self, CertificateCandidate, CertificateInfo, CertificateNeed};
use super::keys::{self, KeyDer, KeyEncoding};
use pushlet_model::digest::sha256;

const MOST_CERTIFICATES: usize = 16;
const MOST_KEYS: usize = 4;

/// The keys and certificates of a file, in its order.
#[derive(Default)]
pub(crate) struct IdentityParts {
    pub(crate) keys: Vec<KeyDer>,
    certificates: Vec<CertificateFile>,
}

/// A certificate as it is in a file.
struct CertificateFile {
    der: Vec<u8>,
    /// Its key's id in PKCS#12 (localKeyID).
    local_id: Option<Vec<u8>>,
}

impl IdentityParts {
    pub(crate) fn add_key(&mut self, key: KeyDer) -> Result<(), FileFault> {
        if self.keys.len() == MOST_KEYS {
            return Err(format!("it holds more than {MOST_KEYS} private keys").into());
        }
        self.keys.push(key);
        Ok(())
    }

    pub(crate) fn add_certificate(
        &mut self,
        der: Vec<u8>,
        local_id: Option<Vec<u8>>,
    ) -> Result<(), FileFault> {
        if self.certificates.len() == MOST_CERTIFICATES {
            return Err(format!("it holds more than {MOST_CERTIFICATES} certificates").into());
        }
        self.certificates.push(CertificateFile { der, local_id });
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

/// A client certificate with its contents.
pub(crate) struct CertificateIdentity {
    pub(crate) certificate: ClientCertificate,
    pub(crate) info: CertificateInfo,
}

impl CertificateIdentity {
    /// Finds the certificate that is needed and its key, checks its validity, and puts its issuers after it.
    pub(crate) fn assemble(parts: IdentityParts, need: &CertificateNeed<'_>) -> Result<Self, FileFault> {
        if parts.certificates.is_empty() {
            return Err("it holds no certificate".into());
        }
        if parts.keys.is_empty() {
            return Err("it holds no private key".into());
        }
        let mut certificates = Vec::new();
        for CertificateFile { der, local_id } in parts.certificates {
            let info = CertificateInfo::parse(&der)?;
            certificates.push(ParsedCertificate { info, der: der.into(), local_id });
        }
        let keys = load_all(&parts.keys, &certificates)?;
        let leaf = certificate::choose(candidates(&certificates, &keys), need)?;
        let ParsedCertificate { info, der, .. } = certificates.swap_remove(leaf);
        // `choose` prefers valid certificates; if none is valid, this reports the one that it chose.
        info.check_validity(need.now)?;
        let key = keys.iter().find(|key| key.fits(&info)).ok_or_else(no_match)?;
        let fingerprint = sha256(&der);
        let chain = chain(&info, der, certificates);
        let key = Arc::new(CertifiedKey::new(chain, key.signer.clone()));
        Ok(Self { certificate: ClientCertificate { fingerprint, key }, info })
    }
}

struct ParsedCertificate {
    info: CertificateInfo,
    der: CertificateDer<'static>,
    local_id: Option<Vec<u8>>,
}

/// A private key that is ready to sign.
struct LoadedKey<'a> {
    signer: Arc<dyn SigningKey>,
    local_id: Option<&'a [u8]>,
}

impl LoadedKey<'_> {
    fn fits(&self, info: &CertificateInfo) -> bool {
        self.signer.public_key().is_some_and(|public| public.as_ref() == info.public_key)
    }
}

/// Loads the keys. An unsupported key is an error only if no other key fits a certificate.
fn load_all<'a>(
    keys: &'a [KeyDer],
    certificates: &[ParsedCertificate],
) -> Result<Vec<LoadedKey<'a>>, FileFault> {
    let (mut loaded, mut refused) = (Vec::new(), None);
    for key in keys {
        match load(key, certificates) {
            Ok(signer) => loaded.push(LoadedKey { signer, local_id: key.local_id.as_deref() }),
            Err(fault) => refused = refused.or(Some(fault)),
        }
    }
    let fits = loaded.iter().any(|key| certificates.iter().any(|one| key.fits(&one.info)));
    if fits { Ok(loaded) } else { Err(refused.unwrap_or_else(no_match)) }
}

fn no_match() -> FileFault {
    "the private key does not match the certificate".into()
}

fn load(key: &KeyDer, certificates: &[ParsedCertificate]) -> Result<Arc<dyn SigningKey>, FileFault> {
    // Java's keytool leaves the public part out of EC keys; the certificate has it.
    let completed =
        || certificates.iter().find_map(|one| signer(&key.with_public_key(&one.info.public_key)?));
    signer(key).or_else(completed).ok_or_else(|| keys::why_refused(key))
}

fn candidates<'a>(
    certificates: &'a [ParsedCertificate],
    keys: &[LoadedKey<'_>],
) -> Vec<CertificateCandidate<'a>> {
    let of = |(index, certificate): (usize, &'a ParsedCertificate)| {
        let key = keys.iter().find(|key| key.fits(&certificate.info))?;
        let local_id = certificate.local_id.as_deref();
        let is_named_by_key = local_id.is_some() && local_id == key.local_id;
        Some(CertificateCandidate { index, info: &certificate.info, is_named_by_key })
    };
    certificates.iter().enumerate().filter_map(of).collect()
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

/// Returns the leaf, its issuer, the issuer's issuer, and so on as far as the file has them.
fn chain(
    leaf: &CertificateInfo,
    der: CertificateDer<'static>,
    mut others: Vec<ParsedCertificate>,
) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![der];
    let (mut subject, mut issuer) = (leaf.subject.clone(), leaf.issuer.clone());
    // A root names itself as its issuer. Each issuer is taken out of the list, so issuers in a circle end too.
    while subject != issuer {
        let Some(next) = others.iter().position(|one| one.info.subject == issuer) else { break };
        let ParsedCertificate { info, der, .. } = others.swap_remove(next);
        chain.push(der);
        (subject, issuer) = (info.subject, info.issuer);
    }
    chain
}
