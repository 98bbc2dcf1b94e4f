//! Building what `encode` and `decode` return.

use crate::{ConnectionHint, Disposition, Encoded, Outcome, Refusal, Rejection, Reply};

/// Longest excerpt of a body that is not understood, in characters.
const EXCERPT: usize = 200;

/// An encoding that covers no target yet.
pub fn empty() -> Encoded {
    Encoded { messages: Vec::new(), exchanges: Vec::new(), refusals: Vec::new() }
}

/// Refuses every target of a call for the same reason.
pub fn refuse_all(targets: usize, rejection: Rejection) -> Encoded {
    Encoded { refusals: vec![Refusal { covers: (0..targets).map(index).collect(), rejection }], ..empty() }
}

/// A target's place as the contract writes it. A call never has 2^32 targets.
pub fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// The service accepted it under this id.
pub fn delivered(id: Option<String>) -> Outcome {
    Outcome { id, ..failed(Disposition::Delivered, None, None) }
}

/// It did not go well; `code` is the service's own reason.
pub fn failed(disposition: Disposition, code: Option<&str>, message: Option<String>) -> Outcome {
    Outcome { disposition, id: None, code: code.map(Into::into), message, connection: ConnectionHint::Keep }
}

/// The same outcome for each of `targets`.
pub fn same_for_all(targets: usize, outcome: Outcome) -> Reply {
    Reply { outcomes: vec![outcome; targets], native: None }
}

/// The beginning of a body that is not in the service's own form, as one line of text; None if it is empty.
pub fn excerpt(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let line: String = text
        .split_whitespace()
        .flat_map(|word| [" ", word])
        .skip(1)
        .flat_map(str::chars)
        .filter(|letter| !letter.is_control())
        .take(EXCERPT)
        .collect();
    Some(line).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_one_short_line() {
        assert_eq!(excerpt(b"<html>\n  gone\x07 </html>").as_deref(), Some("<html> gone </html>"));
        assert_eq!(excerpt(b" \n"), None);
        assert_eq!(excerpt(&[0xff; 900]).map(|text| text.chars().count()), Some(EXCERPT));
    }
}
