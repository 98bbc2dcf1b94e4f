//! PKCS#12 files (RFC 7292) with one identity, and password-based decryption (RC2-40, RC2-128, 3DES and AES).
//!
//! Read here rather than with a library because a file is hostile input: the work of all its key
//! derivations together is bounded before any of it is done, and plaintext keys are wiped.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, InnerIvInit, KeyInit};
use pkcs8::der::asn1::ObjectIdentifier;
use pkcs8::der::{Decode, Encode, Tag, TagNumber};
use pkcs8::pkcs5::pbes2::{self, Kdf, Pbkdf2Prf};
use pkcs8::spki::AlgorithmIdentifierRef;
use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::identity::IdentityParts;
use super::keys::{DerReader, KeyDer, KeyEncoding, context};
use super::{FileFault, FilePassword};

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

/// Returns the keys and certificates of a file, in its order.
pub(crate) fn parse(file: &[u8], password: FilePassword<'_>) -> Result<IdentityParts, FileFault> {
    let mut budget = IterationBudget::new();
    // 0x80 is the indefinite length (X.690, section 8.1.3.6), which the DER reader would refuse without a reason.
    if file.starts_with(&[0x30, 0x80]) {
        return Err("it is in BER with indefinite lengths; export it again with openssl pkcs12".into());
    }
    let mut pfx = DerReader::new(file).enter(Tag::Sequence)?;
    // The only version (RFC 7292, section 4).
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
    // `iterations INTEGER DEFAULT 1` (RFC 7292, section 4).
    let iterations = if mac_data.is_finished() { 1 } else { mac_data.integer()? };
    let (hash, mac, cost) = match algorithm.oid {
        SHA1 => (&digest::SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 1),
        SHA256 => (&digest::SHA256, hmac::HMAC_SHA256, 1),
        SHA384 => (&digest::SHA384, hmac::HMAC_SHA384, WIDE_HASH),
        SHA512 => (&digest::SHA512, hmac::HMAC_SHA512, WIDE_HASH),
        oid => return Err(format!("its MAC algorithm is not supported ({oid})").into()),
    };
    // Without a password, some programs take an empty text and some no text at all.
    let with_terminator = pkcs12_password(password.value.unwrap_or_default());
    let candidates: &[&[u8]] = if with_terminator.len() > 2 { &[&with_terminator] } else { &[&[0, 0], &[]] };
    for candidate in candidates {
        budget.spend(u64::from(iterations) * cost)?;
        let key = pkcs12_key(hash, candidate, salt, 3, iterations, hash.output_len());
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
            let contents = decrypt(algorithm, password, data, budget)?;
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
    let key = decrypt(algorithm, password, data, budget)?;
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

/// Returns the id that ties a key to its certificate, from a bag's attributes. They say nothing that a file could not
/// do without, so damaged ones count as none.
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

/// RFC 7292 appendix C.
const SHA1_3DES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.3");
const SHA1_RC2_128: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.5");
const SHA1_RC2_40: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.6");

/// Rounds of hashing that one upload may cost, over all of its key derivations. OpenSSL asks for 2048 for each of
/// three, Firefox for 600,000: the most that is common, and it fits.
const MOST_ROUNDS: u64 = 2_000_000;
/// A round of SHA-384 or SHA-512 costs about twice as much as one of SHA-1 or SHA-256, and counts so.
pub(crate) const WIDE_HASH: u64 = 2;
const MOST_SCRYPT_MEMORY: u64 = 64 << 20;

/// The rounds of key derivation that one upload may still cost.
pub(crate) struct IterationBudget(u64);

impl IterationBudget {
    pub(crate) fn new() -> Self {
        Self(MOST_ROUNDS)
    }

    /// Spends rounds, before they are computed.
    pub(crate) fn spend(&mut self, rounds: u64) -> Result<(), FileFault> {
        self.0 = self.0.checked_sub(rounds).ok_or("its key derivation asks for too many iterations")?;
        Ok(())
    }
}

/// Decrypts what `algorithm` (PBES2 of RFC 8018, or a SHA-1 scheme of RFC 7292) protects.
pub(crate) fn decrypt(
    algorithm: AlgorithmIdentifierRef<'_>,
    password: FilePassword<'_>,
    data: &[u8],
    budget: &mut IterationBudget,
) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    let parameters =
        algorithm.parameters.ok_or(FileFault::Unreadable)?.to_der().map_err(|_| FileFault::Unreadable)?;
    match algorithm.oid {
        pbes2::PBES2_OID => pbes2_decrypt(&parameters, password, data, budget),
        SHA1_3DES => pbes1_decrypt::<des::TdesEde3>(&parameters, 24, password, data, budget),
        SHA1_RC2_128 => pbes1_decrypt::<rc2::Rc2>(&parameters, 16, password, data, budget),
        SHA1_RC2_40 => pbes1_decrypt::<rc2::Rc2>(&parameters, 5, password, data, budget),
        oid => Err(format!("it is encrypted with an algorithm that is not supported ({oid})").into()),
    }
}

/// Derives a key by RFC 7292 appendix B.2. `purpose` is 1 for a key, 2 for an IV, 3 for a MAC key.
pub(crate) fn pkcs12_key(
    hash: &'static digest::Algorithm,
    password: &[u8],
    salt: &[u8],
    purpose: u8,
    iterations: u32,
    length: usize,
) -> Zeroizing<Vec<u8>> {
    let block = hash.block_len();
    let fill = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().copied().cycle().take(block * bytes.len().div_ceil(block)).collect()
    };
    let mut input = Zeroizing::new([fill(salt), fill(password)].concat());
    let mut key = Zeroizing::new(Vec::with_capacity(length + hash.output_len()));
    while key.len() < length {
        let mut context = digest::Context::new(hash);
        context.update(&vec![purpose; block]);
        context.update(&input);
        let mut output = context.finish();
        for _ in 1..iterations {
            output = digest::digest(hash, output.as_ref());
        }
        key.extend_from_slice(output.as_ref());
        // Step 6.C of the algorithm: the input of the next block depends on this one.
        for chunk in input.chunks_mut(block) {
            add_one_more(chunk, output.as_ref());
        }
    }
    key.truncate(length);
    key
}

/// Returns a password in the form of RFC 7292 appendix B.1: big-endian UTF-16 with a terminating zero.
pub(crate) fn pkcs12_password(password: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect())
}

/// `chunk + addend (repeated) + 1`, as one big-endian number that wraps.
fn add_one_more(chunk: &mut [u8], addend: &[u8]) {
    let addend: Vec<u8> = addend.iter().copied().cycle().take(chunk.len()).collect();
    let mut carry = 1u16;
    for (digit, add) in chunk.iter_mut().zip(addend).rev() {
        carry += u16::from(*digit) + u16::from(add);
        *digit = carry.to_le_bytes()[0];
        carry >>= 8;
    }
}

fn pbes1_decrypt<C>(
    parameters: &[u8],
    key_length: usize,
    password: FilePassword<'_>,
    data: &[u8],
    budget: &mut IterationBudget,
) -> Result<Zeroizing<Vec<u8>>, FileFault>
where
    C: KeyInit + cbc::cipher::BlockCipherDecrypt,
{
    let mut reader = DerReader::new(parameters).enter(Tag::Sequence)?;
    let salt = reader.value(Tag::OctetString)?;
    let iterations = reader.integer()?;
    let keys = key_length.div_ceil(digest::SHA1_OUTPUT_LEN) as u64;
    // The key takes one derivation for each SHA-1 hash that it is long, the IV takes one.
    budget.spend(u64::from(iterations) * (keys + 1))?;
    let secret = pkcs12_password(password.value.unwrap_or_default());
    let derive = |purpose, length| {
        pkcs12_key(&digest::SHA1_FOR_LEGACY_USE_ONLY, &secret, salt, purpose, iterations, length)
    };
    let cipher = C::new_from_slice(&derive(1, key_length)).map_err(|_| FileFault::Unreadable)?;
    let mode =
        cbc::Decryptor::inner_iv_slice_init(cipher, &derive(2, 8)).map_err(|_| FileFault::Unreadable)?;
    mode.decrypt_padded_vec::<Pkcs7>(data).map(Zeroizing::new).map_err(|_| password.wrong())
}

fn pbes2_decrypt(
    parameters: &[u8],
    password: FilePassword<'_>,
    data: &[u8],
    budget: &mut IterationBudget,
) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    check_iv(parameters)?;
    let parameters = pbes2::Parameters::from_der(parameters)
        .map_err(|_| FileFault::from("it is encrypted with an algorithm that is not supported"))?;
    budget.spend(pbes2_rounds(&parameters)?)?;
    let mut buffer = Zeroizing::new(data.to_vec());
    let length = parameters
        .decrypt_in_place(password.value.unwrap_or_default(), &mut buffer)
        .map_err(|_| password.wrong())?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

/// Checks the IV: the library panics if it is shorter than a DES block.
fn check_iv(parameters: &[u8]) -> Result<(), FileFault> {
    let mut parameters = DerReader::new(parameters).enter(Tag::Sequence)?;
    parameters.value(Tag::Sequence)?;
    let mut scheme = parameters.enter(Tag::Sequence)?;
    scheme.oid()?;
    if scheme.value(Tag::OctetString)?.len() < 8 { Err(FileFault::Unreadable) } else { Ok(()) }
}

fn pbes2_rounds(parameters: &pbes2::Parameters) -> Result<u64, FileFault> {
    match &parameters.kdf {
        Kdf::Pbkdf2(kdf) => {
            let hash_length = match kdf.prf {
                Pbkdf2Prf::HmacWithSha1 => 20,
                Pbkdf2Prf::HmacWithSha224 => 28,
                _ => 32,
            };
            let cost = match kdf.prf {
                Pbkdf2Prf::HmacWithSha384 | Pbkdf2Prf::HmacWithSha512 => WIDE_HASH,
                _ => 1,
            };
            let blocks = parameters.encryption.key_size().div_ceil(hash_length) as u64;
            Ok(u64::from(kdf.iteration_count) * blocks * cost)
        }
        Kdf::Scrypt(kdf) => {
            // RFC 7914 section 2; the library panics at 0.
            if kdf.cost_parameter < 2 || !kdf.cost_parameter.is_power_of_two() {
                return Err(FileFault::Unreadable);
            }
            let memory = kdf.cost_parameter.saturating_mul(128 * u64::from(kdf.block_size));
            if memory > MOST_SCRYPT_MEMORY {
                return Err("its key derivation asks for too much memory".into());
            }
            // Each of the p lanes mixes every 64 byte block of the memory twice.
            Ok(memory / 32 * u64::from(kdf.parallelization))
        }
        _ => Err("it is encrypted with an algorithm that is not supported".into()),
    }
}
