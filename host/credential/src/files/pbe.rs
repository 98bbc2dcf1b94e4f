//! Password-based decryption, with a bound on the work that a hostile file can ask for.

use cbc::cipher::{BlockModeDecrypt, InnerIvInit, KeyInit, block_padding::Pkcs7};
use pkcs8::der::{Decode, Encode, Tag, asn1::ObjectIdentifier};
use pkcs8::pkcs5::pbes2::{self, Kdf, Pbkdf2Prf};
use pkcs8::spki::AlgorithmIdentifierRef;
use ring::digest;
use zeroize::Zeroizing;

use super::der::DerReader;
use crate::error::{FileFault, FilePassword};

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

    /// Asked before the work is done.
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

/// The key derivation of RFC 7292 appendix B.2. `purpose` is 1 for a key, 2 for an IV, 3 for a MAC key.
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
        for chunk in input.chunks_mut(block) {
            add_one_more(chunk, output.as_ref());
        }
    }
    key.truncate(length);
    key
}

/// A password as RFC 7292 appendix B.1 wants it: big-endian UTF-16 with a terminating zero.
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

/// The library expects an IV of at least a DES block, and panics without.
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
