//! Secrets that can be found again, in whatever way somebody wrote them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Bytes of a piece that is looked for.
const PIECE: usize = 24;
/// Pieces of one secret.
const PIECES: usize = 6;

/// All secrets, and what betrays each.
#[derive(Default)]
pub struct KnownSecrets(Vec<(String, Vec<String>)>);

impl KnownSecrets {
    pub fn text(&mut self, name: &str, secret: &str) {
        self.add(&Secret::whole(name, secret.as_bytes()));
    }

    /// Adds the parts of a secret that must not come out.
    pub fn add(&mut self, secret: &Secret) {
        let needles = secret.parts.iter().flat_map(|part| pieces(part)).flat_map(needles).collect();
        self.0.push((secret.name.clone(), needles));
    }

    /// The names of those that a text holds, each with what stands around it.
    pub fn found_in(&self, text: &[u8]) -> Vec<String> {
        let text = letters(text);
        let place = |needles: &[String]| needles.iter().find_map(|needle| text.find(needle));
        let found = self.0.iter().filter_map(|(name, needles)| Some((name, place(needles)?)));
        found.map(|(name, at)| format!("{name}: {}", around(&text, at))).collect()
    }

    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// What a request carries, and the parts of it that are secret.
pub struct Secret {
    name: String,
    pub content: Vec<u8>,
    parts: Vec<Vec<u8>>,
}

impl Secret {
    fn new(name: &str, content: &[u8], parts: Vec<Vec<u8>>) -> Self {
        Self { name: name.to_owned(), content: content.to_vec(), parts }
    }

    /// Content that is secret from its first byte to its last.
    pub fn whole(name: &str, content: &[u8]) -> Self {
        Self::new(name, content, vec![content.to_vec()])
    }

    /// A PEM file, whose private key is secret: as it is written, and what it encodes.
    pub fn pem(name: &str, content: &[u8]) -> Self {
        Self::new(name, content, private_key(std::str::from_utf8(content).unwrap()))
    }

    /// A service account's JSON file, whose private key is secret.
    pub fn service_account(name: &str, content: &[u8]) -> Self {
        let account: serde_json::Value = serde_json::from_slice(content).unwrap();
        Self::new(name, content, private_key(account["private_key"].as_str().unwrap()))
    }

    /// An API key, whose last part is secret.
    pub fn api_key(name: &str, key: &str) -> Self {
        Self::new(name, key.as_bytes(), vec![key.splitn(3, '_').nth(2).unwrap().as_bytes().to_vec()])
    }
}

fn private_key(pem: &str) -> Vec<Vec<u8>> {
    let (_, key) = pem.split_once("PRIVATE KEY-----").unwrap();
    let (body, _) = key.split_once("-----END").unwrap();
    let body: String = body.split_ascii_whitespace().collect();
    let key = base64::engine::general_purpose::STANDARD.decode(&body).unwrap();
    // How a key begins is no secret; it is the same for all.
    vec![body.into_bytes(), key[30..].to_vec()]
}

/// The whole if it is short, else some from all over it.
fn pieces(secret: &[u8]) -> impl Iterator<Item = &[u8]> {
    assert!(secret.len() >= 12, "too short to be told from other text");
    let last = secret.len().saturating_sub(PIECE);
    let step = (last / (PIECES - 1)).max(1);
    let starts: Vec<usize> = (0..=last).step_by(step).collect();
    starts.into_iter().map(move |start| &secret[start..secret.len().min(start + PIECE)])
}

/// A letter for each byte, so that any bytes can be looked for in any.
fn letters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn around(text: &str, at: usize) -> &str {
    let (from, to) = (at.saturating_sub(200), (at + 50).min(text.len()));
    &text[text.floor_char_boundary(from)..text.ceil_char_boundary(to)]
}

fn needles(piece: &[u8]) -> Vec<String> {
    let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<String> = piece.iter().map(u8::to_string).collect();
    let escaped: String =
        piece.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
    let url = url::form_urlencoded::byte_serialize(piece).collect();
    let mut all =
        vec![letters(piece), hex.to_uppercase(), hex, numbers.join(", "), numbers.join(","), escaped, url];
    all.extend((0..3).flat_map(|offset| {
        // In the middle of something longer, from the first letter to the last that depend on it alone.
        let shifted = [&[0; 2][..offset], piece].concat();
        let from = (offset * 8).div_ceil(6);
        let to = shifted.len() * 8 / 6;
        [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)]
            .map(|text| text[from..to].to_owned())
    }));
    all
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    let secret = b"a secret of some length, with / and + and \xff in it";
    let mut secrets = KnownSecrets::default();
    secrets.add(&Secret::whole("it", secret));
    let around = |middle: &[u8]| [b"before ", middle, b" after"].concat();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let url: String = url::form_urlencoded::byte_serialize(secret).collect();
    let ways: [Vec<u8>; 8] = [
        secret.to_vec(),
        hex.clone().into_bytes(),
        hex.to_uppercase().into_bytes(),
        format!("{:?}", secret).into_bytes(),
        url.into_bytes(),
        STANDARD_NO_PAD.encode(secret).into_bytes(),
        URL_SAFE_NO_PAD.encode(around(secret)).into_bytes(),
        STANDARD_NO_PAD.encode([b"xy", &secret[..]].concat()).into_bytes(),
    ];
    for way in ways {
        assert_eq!(secrets.found_in(&around(&way)).len(), 1, "{}", String::from_utf8_lossy(&way));
    }
    assert_eq!(secrets.found_in(&around(&secret[10..40])).len(), 1, "a part of it");
    assert!(secrets.found_in(b"nothing of the kind, and no part of it").is_empty());
}
