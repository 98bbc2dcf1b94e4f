//! PEM files (RFC 7468): certificates and keys in any order, with anything between them. And service accounts: JSON with
//! such a key and properties that are no secret.
//!
//! Also private keys as OpenSSL encrypted them before PKCS#8: with `Proc-Type` and `DEK-Info` lines
//! (RFC 1421, section 4.6.1; key derivation: OpenSSL's `EVP_BytesToKey` with MD5 and one round).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, InnerIvInit, KeyInit};
use md5::{Digest, Md5};
use pkcs8::der::Tag;
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::identity::IdentityParts;
use super::keys::{DerReader, KeyDer, KeyEncoding, TokenKey};
use super::pkcs12::{self, IterationBudget};
use super::{FileFault, FilePassword};
use pushlet_model::contract::manifest::SigningAlgorithm;
use pushlet_model::digest::sha256;

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Of a service account.
const MOST_PROPERTIES: usize = 64;
const LONGEST_PROPERTY: usize = 2048;
const UTF16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Returns the keys and certificates of a file, in its order.
pub(crate) fn parse(file: &[u8], password: FilePassword<'_>) -> Result<IdentityParts, FileFault> {
    let file = with_line_breaks(file);
    if UTF16.iter().any(|mark| file.starts_with(mark)) {
        return Err("it is in UTF-16; save it as UTF-8 or ASCII".into());
    }
    let sections = sections(&file)?;
    if sections.is_empty() && std::str::from_utf8(&file).is_err() {
        return Err(FileFault::Unreadable);
    }
    let mut budget = IterationBudget::new();
    let mut parts = IdentityParts::default();
    for section in sections {
        match section.label {
            "CERTIFICATE" | "X509 CERTIFICATE" => {
                parts.add_certificate(section.decode()?.to_vec(), None)?;
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => {
                parts.add_key(read_key(&section, password, &mut budget)?)?;
            }
            // OpenSSL writes EC PARAMETERS before an EC key, which names its curve itself.
            _ => {}
        }
    }
    Ok(parts)
}

/// Returns the one private key of a `.p8` file: PEM, or its base64 without the frame, or DER.
pub(crate) fn parse_key(file: &[u8], password: FilePassword<'_>) -> Result<KeyDer, FileFault> {
    let is_pem = find(file, BEGIN).is_some() || UTF16.iter().any(|mark| file.starts_with(mark));
    let mut parts = if is_pem {
        parse(file, password)?
    } else {
        let der = match std::str::from_utf8(file) {
            Ok(_) => decode_base64(&with_line_breaks(file))?,
            Err(_) => Zeroizing::new(file.to_vec()),
        };
        let mut parts = IdentityParts::default();
        parts.add_key(KeyDer::new(KeyEncoding::Pkcs8, der))?;
        parts
    };
    match (parts.keys.pop(), parts.keys.is_empty()) {
        (Some(key), true) => Ok(key),
        (Some(_), false) => Err("it holds more than one private key".into()),
        (None, _) => Err("it holds no private key".into()),
    }
}

struct PemSection<'a> {
    label: &'a str,
    /// Everything between the two boundary lines.
    body: &'a str,
}

impl PemSection<'_> {
    fn decode(&self) -> Result<Zeroizing<Vec<u8>>, FileFault> {
        decode_base64(self.body.as_bytes())
            .map_err(|_| format!("the base64 of its {} is damaged", self.label.to_lowercase()).into())
    }
}

fn read_key(
    section: &PemSection<'_>,
    password: FilePassword<'_>,
    budget: &mut IterationBudget,
) -> Result<KeyDer, FileFault> {
    let der = match split_headers(section.body) {
        Some((headers, body)) => {
            let data = PemSection { body, ..*section }.decode()?;
            decrypt_legacy(headers, &data, password)?
        }
        None => section.decode()?,
    };
    let (encoding, der) = match section.label {
        "RSA PRIVATE KEY" => (KeyEncoding::Pkcs1, der),
        "EC PRIVATE KEY" => (KeyEncoding::Sec1, der),
        "ENCRYPTED PRIVATE KEY" => (KeyEncoding::Pkcs8, pkcs12::open_key(&der, password, budget)?),
        _ => (KeyEncoding::Pkcs8, der),
    };
    Ok(KeyDer::new(encoding, der))
}

/// Splits a file into its sections. Only the inside of a section is text: OpenSSL writes names of any encoding between
/// them (RFC 7468 section 5.2 calls that explanatory text).
fn sections(mut file: &[u8]) -> Result<Vec<PemSection<'_>>, FileFault> {
    let mut found = Vec::new();
    while let Some(start) = find(file, BEGIN) {
        let rest = file.get(start + BEGIN.len()..).unwrap_or_default();
        let (label, rest) = split(rest, DASHES).ok_or(FileFault::Unreadable)?;
        let label = std::str::from_utf8(label).map_err(|_| FileFault::Unreadable)?;
        let end = format!("-----END {label}-----");
        let (body, rest) = split(rest, end.as_bytes()).ok_or("one of its sections has no end line")?;
        let damaged = |_| format!("the base64 of its {} is damaged", label.to_lowercase());
        found.push(PemSection { label, body: std::str::from_utf8(body).map_err(damaged)? });
        file = rest;
    }
    Ok(found)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Returns what comes before and after a part.
fn split<'a>(bytes: &'a [u8], part: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(bytes, part)?;
    Some((bytes.get(..at)?, bytes.get(at + part.len()..)?))
}

/// Environment variables and JSON often carry `\n` as two characters. A backslash stands nowhere in PEM or base64, so
/// nothing is lost by reading them as what was meant.
fn with_line_breaks(file: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut rest = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    // Of full size at once: a buffer that grows would leave copies of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(rest.len()));
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after.first()) {
            (b'\\', Some(b'n')) => text.push(b'\n'),
            (b'\\', Some(b'r')) => text.push(b'\r'),
            _ => {
                text.push(byte);
                rest = after;
                continue;
            }
        }
        rest = after.get(1..).unwrap_or_default();
    }
    text
}

fn decode_base64(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    let compact: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let mut der = Zeroizing::new(vec![0; compact.len()]);
    let length = STANDARD.decode_slice(&*compact, &mut der).map_err(|_| FileFault::Unreadable)?;
    der.truncate(length);
    if der.is_empty() { Err(FileFault::Unreadable) } else { Ok(der) }
}

/// Returns the lines above the base64 of an encrypted key, and that base64; None: the key is not encrypted this way.
pub(crate) fn split_headers(body: &str) -> Option<(&str, &str)> {
    if !body.contains("Proc-Type:") {
        return None;
    }
    let blank = ["\n\n", "\r\n\r\n"].into_iter().find_map(|blank| body.find(blank))?;
    Some(body.split_at(blank))
}

/// Decrypts data with the cipher that the `DEK-Info` line among `headers` names.
pub(crate) fn decrypt_legacy(
    headers: &str,
    data: &[u8],
    password: FilePassword<'_>,
) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    let info =
        headers.lines().find_map(|line| line.strip_prefix("DEK-Info:")).ok_or(FileFault::Unreadable)?;
    let (cipher, iv) = info.split_once(',').ok_or(FileFault::Unreadable)?;
    let iv = hex::decode(iv.trim()).map_err(|_| FileFault::Unreadable)?;
    let der = match cipher.trim() {
        "DES-EDE3-CBC" => decrypt_cbc::<des::TdesEde3>(24, &iv, data, password),
        "AES-128-CBC" => decrypt_cbc::<aes::Aes128>(16, &iv, data, password),
        "AES-192-CBC" => decrypt_cbc::<aes::Aes192>(24, &iv, data, password),
        "AES-256-CBC" => decrypt_cbc::<aes::Aes256>(32, &iv, data, password),
        other => {
            let other: String = other.chars().take(40).collect();
            Err(format!("its key is encrypted with an algorithm that is not supported ({other})").into())
        }
    }?;
    // A wrong password leaves padding that seems sound once in 256 times.
    DerReader::new(&der).enter(Tag::Sequence).map_err(|_| password.wrong())?;
    Ok(der)
}

fn decrypt_cbc<C: KeyInit + BlockCipherDecrypt>(
    key_length: usize,
    iv: &[u8],
    data: &[u8],
    password: FilePassword<'_>,
) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    // OpenSSL uses the first eight bytes of the IV as the salt.
    let salt = iv.get(..8).ok_or(FileFault::Unreadable)?;
    let key = derive_legacy_key(password.value.ok_or_else(|| password.wrong())?, salt, key_length);
    let cipher = C::new_from_slice(&key).map_err(|_| FileFault::Unreadable)?;
    let mode = cbc::Decryptor::inner_iv_slice_init(cipher, iv).map_err(|_| FileFault::Unreadable)?;
    mode.decrypt_padded_vec::<Pkcs7>(data).map(Zeroizing::new).map_err(|_| password.wrong())
}

/// Derives the key: each block is the hash of the block before it, the password and the salt.
fn derive_legacy_key(password: &str, salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
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

/// A service account.
pub(crate) struct ServiceAccount {
    pub(crate) key: Arc<TokenKey>,
    /// The text properties without the private key.
    properties: BTreeMap<String, String>,
}

impl ServiceAccount {
    /// `needed`: the properties that the provider refers to.
    pub(crate) fn parse(
        file: &[u8],
        algorithm: SigningAlgorithm,
        needed: &[&str],
    ) -> Result<Self, FileFault> {
        let mut properties = read_properties(file)?;
        let private_key =
            properties.remove("private_key").map(Zeroizing::new).ok_or("it has no private_key")?;
        for name in needed {
            if properties.get(*name).is_none_or(String::is_empty) {
                return Err(format!("it has no {name}").into());
            }
        }
        if let Some(url) = properties.get("token_uri") {
            crate::tokens::token_endpoint::parse_token_url(url)
                .ok_or("its token_uri is not the https URL of a token endpoint")?;
        }
        let no_password = FilePassword { value: None, field: None };
        let key = parse_key(private_key.as_bytes(), no_password).map_err(|fault| match fault {
            FileFault::Unreadable => "its private_key cannot be read".into(),
            other => other,
        })?;
        Ok(Self { key: Arc::new(TokenKey::parse(&key, algorithm)?), properties })
    }

    /// Returns a property that is not secret.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// Returns a digest that distinguishes accounts: of the key and of all properties.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut text = hex::encode(self.key.public_key());
        for (name, value) in &self.properties {
            text.push_str(&Value::from(name.as_str()).to_string());
            text.push_str(&Value::from(value.as_str()).to_string());
        }
        sha256(text.as_bytes())
    }
}

/// Reads the top-level text properties. Those that look like a second secret are left out, since properties
/// can become settings that a provider sees.
fn read_properties(file: &[u8]) -> Result<BTreeMap<String, String>, FileFault> {
    let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    if file.trim_ascii_start().starts_with(b"<") {
        return Err("it is XML, as GoogleService-Info.plist of an app; \
                    a service account's key is a JSON file from the project's settings"
            .into());
    }
    let mut values: BTreeMap<String, Value> =
        serde_json::from_slice(file).map_err(|error| match error.classify() {
            // The text of the error may quote the file.
            serde_json::error::Category::Data => FileFault::from("it is not a JSON object"),
            _ => format!("it is not JSON (line {}, column {})", error.line(), error.column()).into(),
        })?;
    if let Some(kind) = other_kind(&values) {
        values.values_mut().for_each(wipe);
        return Err(kind.into());
    }
    let mut properties = BTreeMap::new();
    for (name, value) in &mut values {
        let Value::String(text) = value else { continue };
        let is_key = name == "private_key";
        if is_key
            || (text.len() <= LONGEST_PROPERTY
                && !is_secret(name, text)
                && properties.len() < MOST_PROPERTIES)
        {
            properties.insert(name.clone(), std::mem::take(text));
        } else {
            text.zeroize();
        }
    }
    Ok(properties)
}

/// Returns what the file is, if it is another kind of file that Google issues.
fn other_kind(values: &BTreeMap<String, Value>) -> Option<String> {
    const WANTED: &str = "download a service account's key from the project's settings instead";
    let kind = match values.get("type").and_then(Value::as_str) {
        Some("service_account") => return None,
        Some("external_account") => {
            "an external_account, which is for workload identity federation and holds no key"
        }
        Some("authorized_user") => "an authorized_user, which is a person's login (gcloud auth)",
        Some("impersonated_service_account") => {
            "an impersonated_service_account, which holds no key of its own"
        }
        Some("external_account_authorized_user") => {
            "an external_account_authorized_user, which is a person's login (gcloud auth)"
        }
        Some(_) => return Some("its type is not service_account".to_owned()),
        None if values.contains_key("project_info") && values.contains_key("client") => {
            "a google-services.json, which is for Android apps and holds no key"
        }
        None if values.contains_key("installed") || values.contains_key("web") => "the id of an OAuth client",
        None if values.contains_key("apiKey") => "the configuration of a web app, which holds no key",
        None => return None,
    };
    Some(format!("it is {kind}; {WANTED}"))
}

/// Overwrites the texts in a value.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        _ => {}
    }
}

fn is_secret(name: &str, value: &str) -> bool {
    let secret_name = ["secret", "password", "private_key_"].iter().any(|part| name.contains(part));
    (secret_name && name != "private_key_id") || value.contains("PRIVATE KEY")
}
