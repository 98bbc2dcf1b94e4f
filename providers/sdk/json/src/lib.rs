//! Parsing JSON so that every number stays as it is written.
//!
//! With its feature `arbitrary_precision`, `serde_json` keeps the digits of a number, but writes its exponent in a
//! way of its own: `1E5` becomes `1e+5`. A push gateway hands on what it was given, in FCM even as text. So where a
//! value has a number with an exponent, which is rare, its numbers are read from the text once more.

use serde_json::{Error, Number, Value};

/// Parses a text; host and components parse what callers give them here.
///
/// # Errors
/// The text is not JSON.
pub fn from_slice(text: &[u8]) -> Result<Value, Error> {
    let mut value = serde_json::from_slice(text)?;
    if has_exponent(&value) {
        Speller { text, at: 0 }.value(Some(&mut value));
    }
    Ok(value)
}

fn has_exponent(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_str().contains('e'),
        Value::Array(list) => list.iter().any(has_exponent),
        Value::Object(object) => object.values().any(has_exponent),
        _ => false,
    }
}

/// Walks through a text that is known to be JSON, and through its value, side by side. Of a name that comes twice
/// the last one counts, here as in the value, whatever stood there before. It goes no deeper than `serde_json` did.
struct Speller<'a> {
    text: &'a [u8],
    at: usize,
}

impl Speller<'_> {
    fn value(&mut self, value: Option<&mut Value>) {
        match self.peek() {
            b'{' => self.object(value),
            b'[' => self.list(value),
            b'"' => drop(self.string()),
            _ => self.plain(value),
        }
    }

    fn object(&mut self, mut value: Option<&mut Value>) {
        self.at += 1;
        while self.peek() == b'"' {
            let name = self.string();
            self.skip(b':');
            let object = value.as_deref_mut().and_then(Value::as_object_mut);
            let inner = object.zip(name).and_then(|(object, name)| object.get_mut(&name));
            self.value(inner);
            self.skip(b',');
        }
        self.skip(b'}');
    }

    fn list(&mut self, mut value: Option<&mut Value>) {
        self.at += 1;
        let mut place = 0;
        while !matches!(self.peek(), b']' | 0) {
            let inner =
                value.as_deref_mut().and_then(Value::as_array_mut).and_then(|list| list.get_mut(place));
            self.value(inner);
            self.skip(b',');
            place += 1;
        }
        self.skip(b']');
    }

    /// A number or a word.
    fn plain(&mut self, value: Option<&mut Value>) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length =
            rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
        let (word, _) = rest.split_at(length);
        // At least one, so that the end is reached whatever stands there.
        self.at += length.max(1);
        if let (Some(Value::Number(number)), Ok(text)) = (value, std::str::from_utf8(word)) {
            // It is one, or the whole would not have been parsed.
            *number = Number::from_string_unchecked(text.to_owned());
        }
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => break,
                _ => {}
            }
        }
        serde_json::from_slice(self.text.get(start..self.at)?).ok()
    }

    /// The next byte that is not space; 0 at the end.
    fn peek(&mut self) -> u8 {
        while let Some(byte) = self.text.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return *byte;
            }
            self.at += 1;
        }
        0
    }

    fn skip(&mut self, byte: u8) {
        if self.peek() == byte {
            self.at += 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn respelled(text: &str) -> String {
        from_slice(text.as_bytes()).unwrap().to_string()
    }

    #[test]
    fn numbers_stay_as_they_are_written() {
        for text in [
            "1E5",
            "-1.50e-07",
            r#"{"a":1E5,"b":[1e+5,10.50,{"c":12345678901234567890123}],"d":-0,"e":"1E5","f":1e5,"g":null}"#,
            r#"{"q\"\\":"a\\\"1E5,","n":2E3,"u\u00e9":[[],{},[1E0]],"t":true}"#,
            r#"[[[1E1],2E2],{"x":{"y":3E3}},4E4]"#,
        ] {
            let plain: Value = serde_json::from_str(text).unwrap();
            assert_eq!(respelled(text), text.replace("\\u00e9", "é"), "and not {plain}");
        }
        assert_eq!(respelled(" { \"a\" : [ 1E5 ,\n2 ] , \"b\":1e1 } "), r#"{"a":[1E5,2],"b":1e1}"#);
    }

    #[test]
    fn of_a_name_that_comes_twice_the_last_counts() {
        assert_eq!(respelled(r#"{"a":1E5,"a":2,"b":3E3}"#), r#"{"a":2,"b":3E3}"#);
        assert_eq!(respelled(r#"{"a":{"b":1E5},"a":{"b":1},"c":1e1}"#), r#"{"a":{"b":1},"c":1e1}"#);
        assert_eq!(respelled(r#"{"a":[1E5],"a":"x","c":1e1}"#), r#"{"a":"x","c":1e1}"#);
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", "1E", "[1E5,]", "{\"a\":1E5} x"] {
            assert!(from_slice(text.as_bytes()).is_err(), "{text}");
        }
    }
}
