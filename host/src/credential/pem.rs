//! PEM files (RFC 7468): certificates and keys, in any order, with any text between.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::fault::{Fault, Password};
use super::identity::{KeyDer, KeyEncoding, Parts};
use super::pbe::Budget;
use super::{pkcs12, traditional};

/// The keys and certificates of a file, in its order.
pub(super) fn parse(file: &[u8], password: Password<'_>) -> Result<Parts, Fault> {
    let text = std::str::from_utf8(file).map_err(|_| Fault::Unreadable)?;
    let mut budget = Budget::new();
    let mut parts = Parts::default();
    for section in sections(text)? {
        match section.label {
            "CERTIFICATE" | "X509 CERTIFICATE" => parts.add_certificate(section.decode()?.to_vec())?,
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => {
                parts.add_key(read_key(&section, password, &mut budget)?)?;
            }
            _ => {}
        }
    }
    Ok(parts)
}

/// The one private key of a `.p8` file: PEM, or its base64 without the frame, or DER.
pub(super) fn parse_key(file: &[u8], password: Password<'_>) -> Result<KeyDer, Fault> {
    let mut parts = match std::str::from_utf8(file) {
        Ok(text) if text.contains("-----BEGIN") => parse(file, password)?,
        Ok(text) => {
            let mut parts = Parts::default();
            let der = decode_base64(text)?;
            parts.add_key(KeyDer { encoding: KeyEncoding::Pkcs8, der })?;
            parts
        }
        Err(_) => {
            let mut parts = Parts::default();
            parts.add_key(KeyDer { encoding: KeyEncoding::Pkcs8, der: Zeroizing::new(file.to_vec()) })?;
            parts
        }
    };
    match (parts.keys.pop(), parts.keys.is_empty()) {
        (Some(key), true) => Ok(key),
        (Some(_), false) => Err("it holds more than one private key".into()),
        (None, _) => Err("it holds no private key".into()),
    }
}

struct Section<'a> {
    label: &'a str,
    /// Everything between the two boundary lines.
    body: &'a str,
}

impl Section<'_> {
    fn decode(&self) -> Result<Zeroizing<Vec<u8>>, Fault> {
        decode_base64(self.body)
            .map_err(|_| format!("the base64 of its {} is damaged", self.label.to_lowercase()).into())
    }
}

fn read_key(section: &Section<'_>, password: Password<'_>, budget: &mut Budget) -> Result<KeyDer, Fault> {
    let der = match traditional::split(section.body) {
        Some((headers, body)) => {
            let data = Section { body, ..*section }.decode()?;
            traditional::decrypt(headers, &data, password)?
        }
        None => section.decode()?,
    };
    let (encoding, der) = match section.label {
        "RSA PRIVATE KEY" => (KeyEncoding::Pkcs1, der),
        "EC PRIVATE KEY" => (KeyEncoding::Sec1, der),
        "ENCRYPTED PRIVATE KEY" => (KeyEncoding::Pkcs8, pkcs12::open_key(&der, password, budget)?),
        _ => (KeyEncoding::Pkcs8, der),
    };
    Ok(KeyDer { encoding, der })
}

fn sections(mut text: &str) -> Result<Vec<Section<'_>>, Fault> {
    let mut found = Vec::new();
    while let Some((_, rest)) = text.split_once("-----BEGIN ") {
        let (label, rest) = rest.split_once("-----").ok_or(Fault::Unreadable)?;
        let end = format!("-----END {label}-----");
        let (body, rest) = rest.split_once(end.as_str()).ok_or("one of its sections has no end line")?;
        found.push(Section { label, body });
        text = rest;
    }
    Ok(found)
}

fn decode_base64(text: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let compact: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let mut der = Zeroizing::new(vec![0; compact.len()]);
    let length = STANDARD.decode_slice(&*compact, &mut der).map_err(|_| Fault::Unreadable)?;
    der.truncate(length);
    if der.is_empty() { Err(Fault::Unreadable) } else { Ok(der) }
}
