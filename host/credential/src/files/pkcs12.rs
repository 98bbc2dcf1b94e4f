//! PKCS#12 files (RFC 7292) with one identity: RC2-40, RC2-128, 3DES and AES encryption.
//!
//! Read here rather than with a library because a file is hostile input: the work of all its key
//! derivations together is bounded before any is done, and plaintext keys are wiped.

use pkcs8::der::asn1::ObjectIdentifier;
use pkcs8::der::{Tag, TagNumber};
use pkcs8::spki::AlgorithmIdentifierRef;
use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::der::{DerReader, context};
use super::identity::IdentityParts;
use super::pbe::{self, IterationBudget};
use super::private_key::{KeyDer, KeyEncoding};
use crate::error::{FileFault, FilePassword};

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
const KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.1");
const SHROUDED_KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const LOCAL_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.21");
const X509_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// The keys and certificates of a file, in its order.
pub(crate) fn parse(file: &[u8], password: FilePassword<'_>) -> Result<IdentityParts, FileFault> {
    let mut budget = IterationBudget::new();
    if file.starts_with(&[0x30, 0x80]) {
        return Err("it is in BER with indefinite lengths; export it anew with openssl pkcs12".into());
    }
    let mut pfx = DerReader::new(file).enter(Tag::Sequence)?;
    if pfx.integer()? != 3 {
        return Err(FileFault::Unreadable);
    }
    let mut content = pfx.enter(Tag::Sequence)?;
    if content.oid()? != DATA {
        return Err("it is signed with a public key, which is not supported".into());
    }
    let authenticated = content.enter(context(0))?.value(Tag::OctetString)?;
    if !pfx.is_finished() {
        check_mac(pfx.enter(Tag::Sequence)?, authenticated, password, &mut budget)?;
    }
    let mut parts = IdentityParts::default();
    let mut safes = DerReader::new(authenticated).enter(Tag::Sequence)?;
    while !safes.is_finished() {
        read_safe(safes.enter(Tag::Sequence)?, password, &mut budget, &mut parts)?;
    }
    Ok(parts)
}

/// RFC 7292 section 5.1: the MAC tells a wrong password from a damaged file.
fn check_mac(
    mut mac_data: DerReader<'_>,
    content: &[u8],
    password: FilePassword<'_>,
    budget: &mut IterationBudget,
) -> Result<(), FileFault> {
    let mut digest_info = mac_data.enter(Tag::Sequence)?;
    let algorithm: AlgorithmIdentifierRef<'_> = digest_info.decode()?;
    let tag = digest_info.value(Tag::OctetString)?;
    let salt = mac_data.value(Tag::OctetString)?;
    let iterations = if mac_data.is_finished() { 1 } else { mac_data.integer()? };
    let (hash, mac, cost) = match algorithm.oid {
        SHA1 => (&digest::SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 1),
        SHA256 => (&digest::SHA256, hmac::HMAC_SHA256, 1),
        SHA384 => (&digest::SHA384, hmac::HMAC_SHA384, pbe::WIDE_HASH),
        SHA512 => (&digest::SHA512, hmac::HMAC_SHA512, pbe::WIDE_HASH),
        oid => return Err(format!("its MAC algorithm is not supported ({oid})").into()),
    };
    // Without a password, some programs take an empty text and some no text at all.
    let with_terminator = pbe::pkcs12_password(password.value.unwrap_or_default());
    let candidates: &[&[u8]] = if with_terminator.len() > 2 { &[&with_terminator] } else { &[&[0, 0], &[]] };
    for candidate in candidates {
        budget.spend(u64::from(iterations) * cost)?;
        let key = pbe::pkcs12_key(hash, candidate, salt, 3, iterations, hash.output_len());
        if hmac::verify(&hmac::Key::new(mac, &key), content, tag).is_ok() {
            return Ok(());
        }
    }
    Err(password.wrong())
}

fn read_safe(
    mut safe: DerReader<'_>,
    password: FilePassword<'_>,
    budget: &mut IterationBudget,
    parts: &mut IdentityParts,
) -> Result<(), FileFault> {
    match safe.oid()? {
        DATA => {
            let contents = safe.enter(context(0))?.value(Tag::OctetString)?;
            read_bags(contents, password, budget, parts)
        }
        ENCRYPTED_DATA => {
            let mut encrypted = safe.enter(context(0))?.enter(Tag::Sequence)?;
            encrypted.integer()?;
            let mut info = encrypted.enter(Tag::Sequence)?;
            info.oid()?;
            let algorithm = info.decode()?;
            let data = info.value(Tag::ContextSpecific { constructed: false, number: TagNumber(0) })?;
            let contents = pbe::decrypt(algorithm, password, data, budget)?;
            read_bags(&contents, password, budget, parts).map_err(|fault| garbled(fault, password))
        }
        _ => Err("it is encrypted with a public key, which is not supported".into()),
    }
}

fn read_bags(
    contents: &[u8],
    password: FilePassword<'_>,
    budget: &mut IterationBudget,
    parts: &mut IdentityParts,
) -> Result<(), FileFault> {
    let mut bags = DerReader::new(contents).enter(Tag::Sequence)?;
    while !bags.is_finished() {
        let mut bag = bags.enter(Tag::Sequence)?;
        let kind = bag.oid()?;
        let value = bag.value(context(0))?;
        let local_id = local_id(bag);
        match kind {
            KEY_BAG => parts.add_key(pkcs8(Zeroizing::new(value.to_vec()), local_id))?,
            SHROUDED_KEY_BAG => parts.add_key(pkcs8(open_key(value, password, budget)?, local_id))?,
            CERTIFICATE_BAG => {
                let mut certificate = DerReader::new(value).enter(Tag::Sequence)?;
                if certificate.oid()? == X509_CERTIFICATE {
                    let der = certificate.enter(context(0))?.value(Tag::OctetString)?;
                    parts.add_certificate(der.to_vec(), local_id)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Decrypts an `EncryptedPrivateKeyInfo` (RFC 5958 section 3).
pub(crate) fn open_key(
    encrypted: &[u8],
    password: FilePassword<'_>,
    budget: &mut IterationBudget,
) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    let mut info = DerReader::new(encrypted).enter(Tag::Sequence)?;
    let algorithm = info.decode()?;
    let data = info.value(Tag::OctetString)?;
    let key = pbe::decrypt(algorithm, password, data, budget)?;
    // One wrong password in 256 leaves a valid padding, but no structure.
    DerReader::new(&key).enter(Tag::Sequence).map_err(|fault| garbled(fault, password))?;
    Ok(key)
}

fn garbled(fault: FileFault, password: FilePassword<'_>) -> FileFault {
    match fault {
        FileFault::Unreadable => password.wrong(),
        other => other,
    }
}

fn pkcs8(der: Zeroizing<Vec<u8>>, local_id: Option<Vec<u8>>) -> KeyDer {
    KeyDer { local_id, ..KeyDer::new(KeyEncoding::Pkcs8, der) }
}

/// The id that ties a key to its certificate, among a bag's attributes. They say nothing that a file could not do
/// without, so damaged ones count as none.
fn local_id(mut bag: DerReader<'_>) -> Option<Vec<u8>> {
    let mut attributes = bag.enter(Tag::Set).ok()?;
    while !attributes.is_finished() {
        let mut attribute = attributes.enter(Tag::Sequence).ok()?;
        if attribute.oid().ok()? == LOCAL_KEY_ID {
            let id = attribute.enter(Tag::Set).ok()?.value(Tag::OctetString).ok()?;
            return Some(id.to_vec());
        }
    }
    None
}
