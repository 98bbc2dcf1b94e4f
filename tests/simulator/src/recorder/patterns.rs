//! Bytes as a file of answers writes them: pairs of hex digits, texts in single quotes, and in a pattern `..` for any
//! byte, in an answer `{12..16}` for these bytes of the message that it answers. Spaces mean nothing.

use std::ops::Range;

use serde::Deserialize;

/// Bytes of one pattern, or of what one answer writes.
const MOST: usize = 64 << 10;

/// How a message begins.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct BytePattern(Vec<Option<u8>>);

/// What is written, with parts of the message in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteAnswer(Vec<Piece>);

/// Where a message says how long it is: a number whose first byte is the highest.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageLength {
    /// How many bytes of the message stand before the number.
    pub at: usize,
    /// How many bytes the number has: 1 to 4.
    pub bytes: usize,
    /// What is added to it, if it does not count the whole message.
    #[serde(default)]
    pub more: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    Any,
    Part(Range<usize>),
}

/// What a pattern says of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    No,
    /// More bytes are needed.
    Undecided,
}

impl BytePattern {
    pub(super) fn fits(&self, bytes: &[u8]) -> Fit {
        let differs = self.0.iter().zip(bytes).any(|(wanted, byte)| wanted.is_some_and(|one| one != *byte));
        match differs {
            true => Fit::No,
            false if bytes.len() < self.0.len() => Fit::Undecided,
            false => Fit::Yes,
        }
    }
}

impl ByteAnswer {
    /// Returns the bytes of the answer to a message. What the message does not have is left out.
    pub(super) fn to(&self, message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Byte(byte) => bytes.push(*byte),
                Piece::Part(range) => {
                    let end = range.end.min(message.len());
                    bytes.extend_from_slice(message.get(range.start..end).unwrap_or_default());
                }
                Piece::Any => {}
            }
        }
        bytes.truncate(MOST);
        bytes
    }
}

impl MessageLength {
    /// Returns how long a message is that begins so; None: more bytes are needed.
    pub(super) fn of(&self, bytes: &[u8]) -> Option<usize> {
        let number = bytes.get(self.at..self.at.checked_add(self.bytes)?)?;
        let number = number.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        Some(number.saturating_add(self.more))
    }

    pub(super) fn is_sound(&self) -> bool {
        (1..=4).contains(&self.bytes) && self.at <= MOST && self.more <= MOST
    }
}

impl TryFrom<String> for BytePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pieces = parse(&text)?.into_iter().map(|piece| match piece {
            Piece::Byte(byte) => Ok(Some(byte)),
            Piece::Any => Ok(None),
            Piece::Part(_) => Err("a pattern has no {..}".to_owned()),
        });
        pieces.collect::<Result<_, _>>().map(Self)
    }
}

impl TryFrom<String> for ByteAnswer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pieces = parse(&text)?;
        if pieces.contains(&Piece::Any) {
            return Err("only a pattern has `..`; {12..16} are bytes of what was received".to_owned());
        }
        Ok(Self(pieces))
    }
}

fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        rest = piece(rest, &mut pieces).ok_or_else(|| wrong(rest))?.trim_start();
        if pieces.len() > MOST {
            return Err(format!("it has more than {MOST} bytes"));
        }
    }
    Ok(pieces)
}

/// Takes one piece off; returns what is after it.
fn piece<'a>(text: &'a str, pieces: &mut Vec<Piece>) -> Option<&'a str> {
    if let Some(rest) = text.strip_prefix("..") {
        pieces.push(Piece::Any);
        return Some(rest);
    }
    if let Some(rest) = text.strip_prefix('\'') {
        let (quoted, rest) = rest.split_once('\'')?;
        pieces.extend(quoted.bytes().map(Piece::Byte));
        return Some(rest);
    }
    if let Some(rest) = text.strip_prefix('{') {
        let (range, rest) = rest.split_once('}')?;
        let (start, end) = range.split_once("..")?;
        pieces.push(Piece::Part(start.trim().parse().ok()?..end.trim().parse().ok()?));
        return Some(rest);
    }
    let (pair, rest) = text.split_at_checked(2)?;
    pieces.push(Piece::Byte(*hex::decode(pair).ok()?.first()?));
    Some(rest)
}

fn wrong(rest: &str) -> String {
    let shown: String = rest.chars().take(20).collect();
    format!("{shown:?} is neither two hex digits, nor a 'text', nor .., nor {{0..4}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> BytePattern {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn a_pattern_is_of_the_beginning() {
        for (text, bytes, fit) in [
            ("0102", &[1, 2, 3][..], Fit::Yes),
            ("01 .. 03", &[1, 9, 3], Fit::Yes),
            ("01 .. 03", &[1, 9], Fit::Undecided),
            ("01 .. 03", &[2], Fit::No),
            ("'GET' 20", b"GET /", Fit::Yes),
            ("", &[], Fit::Yes),
        ] {
            assert_eq!(pattern(text).fits(bytes), fit, "{text}");
        }
    }

    #[test]
    fn an_answer_takes_parts_of_the_message() {
        let answer: ByteAnswer = "ff {1..3} 'ok' {8..10}".to_owned().try_into().unwrap();
        assert_eq!(answer.to(&[1, 2, 3, 4]), [&[0xff, 2, 3][..], b"ok"].concat());
        assert_eq!(answer.to(&[]), [&[0xff][..], b"ok"].concat());
    }

    #[test]
    fn a_length_counts_what_it_does_not_count() {
        let length = MessageLength { at: 1, bytes: 4, more: 5 };
        assert_eq!(length.of(&[2, 0, 0, 1, 0]), Some(261));
        assert_eq!(length.of(&[2, 0, 0, 1]), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for text in ["0", "zz", "'open", "{1}", "{1..x}", "é"] {
            assert!(BytePattern::try_from(text.to_owned()).unwrap_err().contains("two hex digits"), "{text}");
        }
        assert!(BytePattern::try_from("{0..4}".to_owned()).is_err());
        assert!(ByteAnswer::try_from("01 ..".to_owned()).is_err());
    }
}
