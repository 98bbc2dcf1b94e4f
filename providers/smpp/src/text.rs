//! Texts as octets, and long ones in parts.
//!
//! Source: 3GPP TS 23.038 section 6.2.1 (the alphabet and its extension), TS 23.040 section 9.2.3.24 (headers).

use crate::pdu::Submit;

/// Codes 0 to 0x7F. The code 0x1B announces a character of the extension; no character stands for it alone.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\u{1b}ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
const ESCAPE: u8 = 0x1b;
/// Characters that take two codes.
const EXTENSION: [(u8, char); 10] = [
    (0x0a, '\u{c}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2f, '\\'),
    (0x3c, '['),
    (0x3d, '~'),
    (0x3e, ']'),
    (0x40, '|'),
    (0x65, '€'),
];
/// Most parts of one message.
const MOST_PARTS: usize = 10;
/// A header follows in the message (section 5.2.12).
const WITH_HEADER: u8 = 0x40;

/// How characters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// One octet for each code of the default alphabet.
    Gsm,
    /// UTF-16, which is what services take as UCS-2.
    Ucs2,
}

impl Alphabet {
    /// The shorter one that has all characters.
    pub fn of(text: &str) -> Self {
        if text.chars().all(|letter| gsm(letter).is_some()) { Self::Gsm } else { Self::Ucs2 }
    }

    /// `data_coding` (section 5.2.19).
    pub fn data_coding(self) -> u8 {
        match self {
            Self::Gsm => 0,
            Self::Ucs2 => 8,
        }
    }

    /// Octets of a message that is alone, and of each of several parts.
    fn limits(self) -> (usize, usize) {
        match self {
            Self::Gsm => (160, 153),
            Self::Ucs2 => (140, 134),
        }
    }

    /// Appends a character; false: the alphabet does not have it.
    fn write(self, letter: char, octets: &mut Vec<u8>) -> bool {
        match self {
            Self::Gsm => match gsm(letter) {
                Some((true, code)) => octets.extend([ESCAPE, code]),
                Some((false, code)) => octets.push(code),
                None => return false,
            },
            Self::Ucs2 => {
                let mut units = [0; 2];
                octets.extend(letter.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
            }
        }
        true
    }
}

/// The code of a character, and whether it is one of the extension.
fn gsm(letter: char) -> Option<(bool, u8)> {
    let basic = BASIC.chars().position(|other| other == letter).and_then(|place| u8::try_from(place).ok());
    let extension = || EXTENSION.iter().find(|(_, other)| *other == letter).map(|(code, _)| (true, *code));
    basic.filter(|code| *code != ESCAPE).map(|code| (false, code)).or_else(extension)
}

/// How a long message goes out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LongMessages {
    /// In parts, each with a header.
    #[default]
    Parts,
    /// As one `message_payload`, which the service divides.
    Payload,
}

/// Why a text cannot be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum TextError {
    /// The alphabet does not have this character.
    Character(char),
    /// It needs more than [`MOST_PARTS`] parts.
    TooLong,
}

/// Returns the submissions of a text: `submit` with each part of it. `reference`: tells the parts of messages apart.
pub fn submissions(
    text: &str,
    alphabet: Alphabet,
    long: LongMessages,
    reference: u8,
    submit: &Submit,
) -> Result<Vec<Submit>, TextError> {
    let (alone, each) = alphabet.limits();
    let parts = parts(text, alphabet, each)?;
    let length: usize = parts.iter().map(Vec::len).sum();
    let submit = Submit { data_coding: alphabet.data_coding(), ..submit.clone() };
    if parts.len() > MOST_PARTS {
        return Err(TextError::TooLong);
    }
    if length <= alone || long == LongMessages::Payload {
        let as_payload = length > alone;
        return Ok(vec![Submit { message: parts.concat(), as_payload, ..submit }]);
    }
    let total = u8::try_from(parts.len()).unwrap_or(u8::MAX);
    let numbered = (1..=total).zip(parts).map(|(number, part)| {
        // A header of five octets with one element: concatenation with a reference of one octet.
        let message = [&[5, 0, 3, reference, total, number][..], &part].concat();
        Submit { message, esm_class: submit.esm_class | WITH_HEADER, ..submit.clone() }
    });
    Ok(numbered.collect())
}

/// Divides a text between characters.
fn parts(text: &str, alphabet: Alphabet, most: usize) -> Result<Vec<Vec<u8>>, TextError> {
    let mut parts = vec![Vec::new()];
    let mut octets = Vec::new();
    for letter in text.chars() {
        octets.clear();
        if !alphabet.write(letter, &mut octets) {
            return Err(TextError::Character(letter));
        }
        let count = parts.len();
        match parts.last_mut() {
            Some(part) if part.len() + octets.len() <= most => part.extend_from_slice(&octets),
            // What is too long is not read to its end.
            _ if count > MOST_PARTS => return Err(TextError::TooLong),
            _ => parts.push(octets.clone()),
        }
    }
    Ok(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(text: &str, long: LongMessages) -> Result<Vec<Submit>, TextError> {
        submissions(text, Alphabet::of(text), long, 0x42, &Submit::default())
    }

    fn octets(text: &str) -> String {
        hex::encode(&sent(text, LongMessages::Parts).unwrap()[0].message)
    }

    #[test]
    fn the_alphabet_is_that_of_the_standard() {
        assert_eq!(BASIC.chars().count(), 128);
        for (code, letter) in [
            (0x00, '@'),
            (0x10, 'Δ'),
            (0x11, '_'),
            (0x1f, 'É'),
            (0x24, '¤'),
            (0x40, '¡'),
            (0x5b, 'Ä'),
            (0x60, '¿'),
            (0x7b, 'ä'),
            (0x7f, 'à'),
        ] {
            assert_eq!(gsm(letter), Some((false, code)), "{letter}");
        }
        assert_eq!(gsm('\u{1b}'), None);
        assert_eq!(octets("a€[ü"), "611b651b3c7e");
        assert_eq!(Alphabet::of("ç"), Alphabet::Ucs2);
        assert_eq!(octets("Grüße €中"), "0047007200fc00df0065002020ac4e2d");
    }

    #[test]
    fn long_messages_are_divided() {
        let count = |text: &str| sent(text, LongMessages::Parts).unwrap().len();
        assert_eq!((count(&"x".repeat(160)), count(&"x".repeat(161))), (1, 2));
        assert_eq!((count(&"中".repeat(70)), count(&"中".repeat(71))), (1, 2));
        assert_eq!(count(&"x".repeat(1530)), 10);
        for long in [LongMessages::Parts, LongMessages::Payload] {
            assert_eq!(sent(&"x".repeat(1531), long), Err(TextError::TooLong));
        }
        let parts = sent(&"x".repeat(154 + 8), LongMessages::Parts).unwrap();
        assert_eq!(parts[1].message, [&[5, 0, 3, 0x42, 2, 2][..], &[b'x'; 9]].concat());
        assert!(parts.iter().all(|part| part.esm_class == 0x40));
        let payload = sent(&"x".repeat(300), LongMessages::Payload).unwrap();
        assert!(payload.len() == 1 && payload[0].as_payload && payload[0].message.len() == 300);
    }

    #[test]
    fn no_character_is_cut_in_two() {
        let parts = sent(&format!("{}€{}", "x".repeat(152), "x".repeat(20)), LongMessages::Parts).unwrap();
        assert_eq!((parts[0].message.len(), &parts[1].message[6..8]), (6 + 152, &[0x1b, 0x65][..]));
        let parts = sent(&format!("{}😀{}", "中".repeat(66), "中".repeat(9)), LongMessages::Parts).unwrap();
        assert_eq!(parts[0].message.len(), 6 + 132);
    }

    #[test]
    fn a_character_that_is_not_there_is_named() {
        let sent = submissions("a中", Alphabet::Gsm, LongMessages::Parts, 0, &Submit::default());
        assert_eq!(sent, Err(TextError::Character('中')));
    }

    /// The text that a device makes of octets.
    fn read(alphabet: Alphabet, octets: &[u8]) -> String {
        if alphabet == Alphabet::Ucs2 {
            let units: Vec<u16> =
                octets.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            return String::from_utf16(&units).unwrap();
        }
        let (mut text, mut codes) = (String::new(), octets.iter());
        while let Some(&code) = codes.next() {
            text.push(match code {
                ESCAPE => {
                    let code = codes.next().unwrap();
                    EXTENSION.iter().find(|(other, _)| other == code).unwrap().1
                }
                code => BASIC.chars().nth(code.into()).unwrap(),
            });
        }
        text
    }

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof!["[a-zA-Z€\\[\\]{}^~äöü@]{0,400}", "\\PC{0,200}"]
    }

    proptest! {
        #[test]
        fn every_text_arrives(text in texts()) {
            let alphabet = Alphabet::of(&text);
            let parts = sent(&text, LongMessages::Parts).unwrap();
            let header = if parts.len() > 1 { 6 } else { 0 };
            let octets: Vec<u8> = parts.iter().flat_map(|part| part.message[header..].to_vec()).collect();
            prop_assert_eq!(read(alphabet, &octets), text);
            let longest = alphabet.limits().0;
            prop_assert!(parts.iter().all(|part| part.message.len() <= longest));
        }
    }
}
