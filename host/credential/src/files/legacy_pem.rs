//! Private keys as OpenSSL encrypted them before PKCS#8: PEM with `Proc-Type` and `DEK-Info` lines
//! (RFC 1421, section 4.6.1; key derivation: OpenSSL's `EVP_BytesToKey` with MD5 and one round).

use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, InnerIvInit, KeyInit, block_padding::Pkcs7};
use md5::{Digest, Md5};
use pkcs8::der::Tag;
use zeroize::Zeroizing;

use super::der::DerReader;
use crate::error::{FileFault, FilePassword};

/// The lines above the base64 of an encrypted key, and that base64; None: the key is not encrypted this way.
pub(crate) fn split(body: &str) -> Option<(&str, &str)> {
    if !body.contains("Proc-Type:") {
        return None;
    }
    let blank = ["\n\n", "\r\n\r\n"].into_iter().find_map(|blank| body.find(blank))?;
    Some(body.split_at(blank))
}

/// Opens what the `DEK-Info` line among `headers` says how to open.
pub(crate) fn decrypt(
    headers: &str,
    data: &[u8],
    password: FilePassword<'_>,
) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    let info =
        headers.lines().find_map(|line| line.strip_prefix("DEK-Info:")).ok_or(FileFault::Unreadable)?;
    let (cipher, iv) = info.split_once(',').ok_or(FileFault::Unreadable)?;
    let iv = hex::decode(iv.trim()).map_err(|_| FileFault::Unreadable)?;
    let der = match cipher.trim() {
        "DES-EDE3-CBC" => open::<des::TdesEde3>(24, &iv, data, password),
        "AES-128-CBC" => open::<aes::Aes128>(16, &iv, data, password),
        "AES-192-CBC" => open::<aes::Aes192>(24, &iv, data, password),
        "AES-256-CBC" => open::<aes::Aes256>(32, &iv, data, password),
        other => {
            let other: String = other.chars().take(40).collect();
            Err(format!("its key is encrypted with an algorithm that is not supported ({other})").into())
        }
    }?;
    // A wrong password leaves padding that seems sound once in 256 times.
    DerReader::new(&der).enter(Tag::Sequence).map_err(|_| password.wrong())?;
    Ok(der)
}

fn open<C: KeyInit + BlockCipherDecrypt>(
    key_length: usize,
    iv: &[u8],
    data: &[u8],
    password: FilePassword<'_>,
) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    let salt = iv.get(..8).ok_or(FileFault::Unreadable)?;
    let key = key(password.value.ok_or_else(|| password.wrong())?, salt, key_length);
    let cipher = C::new_from_slice(&key).map_err(|_| FileFault::Unreadable)?;
    let mode = cbc::Decryptor::inner_iv_slice_init(cipher, iv).map_err(|_| FileFault::Unreadable)?;
    mode.decrypt_padded_vec::<Pkcs7>(data).map(Zeroizing::new).map_err(|_| password.wrong())
}

/// Each block is the hash of the block before it, the password and the salt.
fn key(password: &str, salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + Md5::output_size()));
    while key.len() < length {
        let before = key.len().saturating_sub(Md5::output_size());
        let mut hash = Md5::new();
        hash.update(&key[before..]);
        hash.update(password);
        hash.update(salt);
        key.extend_from_slice(&hash.finalize());
    }
    key.truncate(length);
    key
}
