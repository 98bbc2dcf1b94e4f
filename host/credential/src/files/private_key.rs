//! Private keys as they stand in files.

use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::{Decode, Tag};
use zeroize::Zeroizing;

use super::der::DerReader;

/// How the DER of a private key is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyEncoding {
    Pkcs8,
    Pkcs1,
    Sec1,
}

/// A private key as it stands in a file.
pub(crate) struct KeyDer {
    pub(crate) encoding: KeyEncoding,
    pub(crate) der: Zeroizing<Vec<u8>>,
    /// What PKCS#12 calls it (localKeyID).
    pub(crate) local_id: Option<Vec<u8>>,
}

impl KeyDer {
    pub(crate) fn new(encoding: KeyEncoding, der: Zeroizing<Vec<u8>>) -> Self {
        Self { encoding, der, local_id: None }
    }

    /// The EC key (RFC 5915) together with the point of a subject public key info, if it is one.
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

/// DER of an element with at most 255 bytes of content.
fn element(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(content.len()).ok()?;
    let head: &[u8] = if length < 0x80 { &[tag, length] } else { &[tag, 0x81, length] };
    Some([head, content].concat())
}
