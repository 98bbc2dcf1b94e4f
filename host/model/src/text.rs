//! Names and untrusted text: which names are valid, which known name was meant by a wrong one, and text made
//! harmless to a reader at a terminal.

use std::fmt::{self, Display, Write};

/// Declares an enum of which each variant has a name: for labels, answers or files.
#[macro_export]
macro_rules! named_enum {
    ($(#[$attribute:meta])* pub enum $enum:ident { $($(#[$docs:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$attribute])*
        pub enum $enum {
            $($(#[$docs])* $variant,)+
        }

        impl $enum {
            /// All of them, in the order of their declaration.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

/// Returns the known name that is most similar to a wrong one, if any is similar.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let similar = known.into_iter().map(|known| (strsim::jaro_winkler(name, known), known));
    let similar = similar.filter(|(similarity, _)| *similarity > 0.8);
    similar.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

/// Returns the end of an error message: `; did you mean {known}?`, or nothing.
pub fn did_you_mean(known: Option<&str>) -> String {
    known.map(|known| format!("; did you mean {known}?")).unwrap_or_default()
}

/// Returns true if the text is 1 to `longest` of a-z, 0-9, - and _. Names become form fields, error codes, settings,
/// labels of metrics and URL segments.
pub fn is_name(text: &str, longest: usize) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    (1..=longest).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Shows a value with its control characters, line breaks, and marks that reorder text escaped: `\n`, `\u{1b}`.
pub struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(EscapingWriter(f), "{}", self.0)
    }
}

impl<T: fmt::Debug> fmt::Debug for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(EscapingWriter(f), "{:?}", self.0)
    }
}

/// Escapes the same characters in JSON, as JSON does. A serializer escapes only those below U+0020; outside
/// of texts, JSON holds none of the others.
pub fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        // Line breaks and spaces between values are the serializer's own.
        if is_harmful(letter) && letter != '\n' {
            escaped.extend(letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// Returns true for control characters (C0, DEL, C1), line and paragraph separators, and marks of direction,
/// with which a text can look like another one.
pub fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes harmless characters as they are, and escapes the rest.
struct EscapingWriter<'a, W>(&'a mut W);

impl<W: Write> Write for EscapingWriter<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Nearly all texts, and several times faster than to look at each as a character.
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.0.write_str(text);
        }
        let mut rest = text;
        while let Some(at) = rest.find(is_harmful) {
            let (harmless, harmful) = rest.split_at(at);
            self.0.write_str(harmless)?;
            let mut letters = harmful.chars();
            letters.next().map_or(Ok(()), |letter| write!(self.0, "{}", letter.escape_default()))?;
            rest = letters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\r\nb\u{1b}[2J\u{7f}\u{9b}31m\u{202e}c\u{2028}\u{7}";

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        let escaped = "a\\r\\nb\\u{1b}[2J\\u{7f}\\u{9b}31m\\u{202e}c\\u{2028}\\u{7}";
        assert_eq!(Escaped(HOSTILE).to_string(), escaped);
        assert_eq!(format!("{:?}", Escaped(format_args!("{HOSTILE}"))), escaped);
        assert_eq!(Escaped("Grüße, 🦀 👩‍👧").to_string(), "Grüße, 🦀 👩‍👧");
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = serde_json::json!({ HOSTILE: HOSTILE, "n": 1 });
        let escaped = escape_json(&format!("{value:#}"));
        assert!(escaped.chars().all(|letter| letter == '\n' || !is_harmful(letter)), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).ok(), Some(value));
    }
}
