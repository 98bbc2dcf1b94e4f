//! JSON bodies of requests. What a body will take when it is parsed is counted before it is parsed, and a large one
//! is parsed on the low-priority threads.

use axum::body::Bytes;
use serde_json::{Map, Value};

use super::admission::Place;
use super::form::{ANOTHER_KIND, json_fault, without_mark};
use pushlet_model::error::{Error, Kind};
use pushlet_quota::account::{MemoryUse, Work};

/// Bytes of a body that is parsed where it was read: it takes less than a handover to another thread would.
const LARGE: usize = 64 << 10;
/// Bytes of a body that is not counted again when it is parsed.
const SMALL: usize = 1 << 10;
/// How much more than its text, at its longest, a body may take when it is parsed. Texts take about as much as
/// their JSON does; `{"":0},` takes a hundred times as much.
const EXPANSION: usize = 16;

/// The text of a body that is to hold a JSON object.
pub(super) struct JsonBody {
    text: Bytes,
    /// Of the request; None: nobody pays for it.
    place: Option<Place>,
    /// The longest text that is allowed.
    most: usize,
}

impl JsonBody {
    pub fn new(text: Bytes, place: Option<Place>, most: usize) -> Self {
        Self { text, place, most }
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Parses the object, and has `read` make something of its fields, on the same thread.
    pub async fn read<T: Send + 'static>(
        self,
        read: impl FnOnce(Map<String, Value>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let account = self.place.as_ref().and_then(Place::account);
        let account = account.filter(|_| self.text.len() > LARGE).cloned();
        let parse = move || read(self.parse()?);
        match account {
            Some(account) => account.run_heavy(Work::Parsing, parse).await?,
            None => parse(),
        }
    }

    fn parse(self) -> Result<Map<String, Value>, Error> {
        if self.text.len() > SMALL {
            self.count()?;
        }
        let invalid = |why: &str| {
            Error::new(Kind::Invalid, "invalid_json", format!("the body is not a JSON object: {why}"))
        };
        match pushlet_json::from_slice(without_mark(&self.text)) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(invalid(ANOTHER_KIND)),
            Err(error) => Err(invalid(&json_fault(&error))),
        }
    }

    fn count(&self) -> Result<(), Error> {
        let size = parsed_size(&self.text);
        let most = self.most.saturating_mul(EXPANSION);
        if size > most {
            let message = format!(
                "the JSON has so many parts that it takes {size} bytes when parsed, more than {most}"
            );
            return Err(Error::new(Kind::TooLarge, "json_too_complex", message));
        }
        // What it becomes on its way takes as much again as its texts do.
        let all = size.saturating_add(self.text.len());
        self.place.as_ref().map_or(Ok(()), |place| place.reserve(MemoryUse::ParsedInput, all))
    }
}

/// Bytes of memory that a JSON text takes as a [`Value`], about and rather too many. Whether it is JSON does not
/// matter: what is none is parsed as far as it is.
///
/// A `Value` takes 72 bytes; one in a list at most twice that, since lists grow by doubling. An entry of an object
/// takes 104 bytes with its name, and an object has room for four from its first one on.
pub(super) fn parsed_size(text: &[u8]) -> usize {
    let (mut size, mut in_string) = (text.len(), false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                in_string = !in_string;
                // The least that an allocation takes, for the opening one.
                size += if in_string { 32 } else { 0 };
            }
            b'\\' if in_string => drop(bytes.next()),
            _ if in_string => {}
            b'{' => size += 512,
            b'[' => size += 4 * 72,
            b',' => size += 2 * 104,
            _ => {}
        }
    }
    size
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str, most: usize) -> Result<usize, Error> {
        JsonBody::new(Bytes::copy_from_slice(text.as_bytes()), None, most).parse().map(|fields| fields.len())
    }

    #[test]
    fn the_size_of_what_is_parsed_is_told_by_the_text() {
        assert_eq!(parsed_size(b""), 0);
        assert_eq!(parsed_size(br#"{"a\"{[,":1}"#), 12 + 512 + 32, "what stands in a text does not count");
        let (texts, objects) = ("\"0123456789abcdef\",".repeat(1000), "{\"\":0},".repeat(1000));
        let each = |text: &str| parsed_size(text.as_bytes()) / 1000;
        assert!(each(&texts) < 300 && each(&objects) > 700, "{} {}", each(&texts), each(&objects));
    }

    #[test]
    fn a_text_of_too_many_parts_is_refused_before_it_is_parsed() {
        let list = |part: &str| format!("{{\"a\":[{}0]}}", part.repeat((10 << 10) / part.len()));
        assert_eq!(read(&list("\"0123456789abcdef0123456789abcdef\","), 16 << 10), Ok(1));
        let error = read(&list("{\"\":0},"), 16 << 10).unwrap_err();
        assert_eq!((error.kind, &*error.code), (Kind::TooLarge, "json_too_complex"));
        assert_eq!(read("[1]", 16).unwrap_err().code, "invalid_json");
    }
}
