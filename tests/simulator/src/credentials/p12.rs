//! PKCS#12 files (RFC 7292) as today's tools and as Keychain wrote them.

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY};
use yasna::models::ObjectIdentifier;
use yasna::{ASN1Result, Tag};

use super::{PASSWORD, broken};
use crate::error::StartError;

/// What Keychain used for both the encryption and the MAC.
const LEGACY_ITERATIONS: u32 = 2048;
const LOCAL_KEY_ID: [u8; 4] = [1, 2, 3, 4];

/// AES-256 (PBES2) and an HMAC-SHA-256 MAC; the password is empty.
pub(super) fn modern(key: &[u8], chain: &[Vec<u8>]) -> Result<Vec<u8>, StartError> {
    archive(key, chain, "", EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256)
}

/// RC2-40 for the certificates, 3DES for the key, an HMAC-SHA-1 MAC: as Go's `x509/pkcs12` and other old readers
/// want it, with one safe of certificates before one of the key.
///
/// The PKCS#12 writer encrypts everything in one way, so this takes the certificates of one archive and
/// the key of another and computes the MAC over the two.
pub(super) fn legacy(key: &[u8], chain: &[Vec<u8>]) -> Result<Vec<u8>, StartError> {
    let sha1 = MacAlgorithm::HmacSha1;
    let rc2 = archive(key, chain, PASSWORD, EncryptionAlgorithm::PbeWithShaAnd40BitRc4Cbc, sha1)?;
    let des = archive(key, chain, PASSWORD, EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, sha1)?;
    let (rc2, des) = (safes(&rc2).map_err(broken)?, safes(&des).map_err(broken)?);
    let (Some(certificates), Some(shrouded_key)) = (rc2.first(), des.get(1)) else {
        return Err(broken("the archive does not hold certificates and a key"));
    };
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|safes| {
            safes.next().write_der(certificates);
            safes.next().write_der(shrouded_key);
        });
    });
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(broken)?;
    Ok(pfx(&content, &salt))
}

fn archive(
    key: &[u8],
    chain: &[Vec<u8>],
    password: &str,
    encryption: EncryptionAlgorithm,
    mac: MacAlgorithm,
) -> Result<Vec<u8>, StartError> {
    let certificates: Result<Vec<Certificate>, _> =
        chain.iter().map(|der| Certificate::from_der(der)).collect();
    let key = PrivateKey::from_der(key).map_err(broken)?;
    let entry = PrivateKeyChain::new(LOCAL_KEY_ID.as_slice(), key, certificates.map_err(broken)?);
    let mut store = KeyStore::new();
    store.add_entry("Apple Push Services", KeyStoreEntry::PrivateKeyChain(entry));
    let written = store
        .writer(password)
        .encryption_algorithm(encryption)
        .encryption_iterations(LEGACY_ITERATIONS)
        .mac_algorithm(mac)
        .mac_iterations(LEGACY_ITERATIONS)
        .write();
    written.map_err(broken)
}

/// The encoded parts of an archive's AuthenticatedSafe.
fn safes(pfx: &[u8]) -> ASN1Result<Vec<Vec<u8>>> {
    let content = yasna::parse_der(pfx, |reader| {
        reader.read_sequence(|pfx| {
            pfx.next().read_i64()?;
            let content = pfx.next().read_sequence(|info| {
                info.next().read_oid()?;
                info.next().read_tagged(Tag::context(0), |content| content.read_bytes())
            })?;
            pfx.next().read_der()?;
            Ok(content)
        })
    })?;
    yasna::parse_der(&content, |reader| reader.collect_sequence_of(|safe| safe.read_der()))
}

/// PFX: version 3, the content as data, the MAC over it.
fn pfx(content: &[u8], salt: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, &mac_key(PASSWORD, salt));
    let mac = hmac::sign(&key, content);
    let data = ObjectIdentifier::from_slice(&[1, 2, 840, 113_549, 1, 7, 1]);
    let sha1 = ObjectIdentifier::from_slice(&[1, 3, 14, 3, 2, 26]);
    yasna::construct_der(|writer| {
        writer.write_sequence(|pfx| {
            pfx.next().write_u8(3);
            pfx.next().write_sequence(|info| {
                info.next().write_oid(&data);
                info.next().write_tagged(Tag::context(0), |inner| inner.write_bytes(content));
            });
            pfx.next().write_sequence(|mac_data| {
                mac_data.next().write_sequence(|digest_info| {
                    digest_info.next().write_sequence(|algorithm| {
                        algorithm.next().write_oid(&sha1);
                        algorithm.next().write_null();
                    });
                    digest_info.next().write_bytes(mac.as_ref());
                });
                mac_data.next().write_bytes(salt);
                mac_data.next().write_u32(LEGACY_ITERATIONS);
            });
        });
    })
}

/// Key derivation of RFC 7292 appendix B.2 for a MAC key with SHA-1. Key and digest have one length, so one
/// round makes it.
fn mac_key(password: &str, salt: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 64;
    const MAC_ID: u8 = 3;
    let utf16: Vec<u8> = password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect();
    let filled = |bytes: &[u8]| -> Vec<u8> {
        let length = bytes.len().div_ceil(BLOCK) * BLOCK;
        bytes.iter().copied().cycle().take(length).collect()
    };
    let mut hash = [vec![MAC_ID; BLOCK], filled(salt), filled(&utf16)].concat();
    for _ in 0..LEGACY_ITERATIONS {
        hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &hash).as_ref().to_vec();
    }
    hash
}
