//! JSON bodies of requests. The memory that a body takes when it is parsed is reserved before, large bodies are parsed
//! on the low-priority threads, and errors of typed bodies name the wrong field.

use std::time::{Duration, SystemTime};

use axum::body::{Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use crate::body::{BodyLimits, ensure_media_type, read_body};
use crate::caller::permit_of;
use crate::in_flight::InFlightPermit;
use crate::verbatim::Exact;
use pushlet_model::error::{Error, Kind};
use pushlet_model::text::{did_you_mean, nearest};
use pushlet_quota::account::{MemoryUse, Work};

/// Bytes of a body that is parsed where it was read: that takes less time than a handover to another thread.
const LARGE: usize = 64 << 10;
/// Bytes of a body whose parsed form is not reserved.
const SMALL: usize = 1 << 10;
/// How much more than its text, at its longest, a body may take when it is parsed. Texts take about as much as
/// their JSON does; `{"":0},` takes a hundred times as much.
const EXPANSION: usize = 16;
const ANOTHER_KIND: &str = "it is another kind of value";

/// The text of a body that is to hold a JSON object.
pub struct JsonBody {
    text: Bytes,
    /// The request's; None: no account is charged.
    permit: Option<InFlightPermit>,
    /// The longest text that is allowed.
    max: usize,
}

impl JsonBody {
    pub fn new(text: Bytes, permit: Option<InFlightPermit>, max: usize) -> Self {
        Self { text, permit, max }
    }

    /// Reads the body of a request.
    pub async fn receive(request: Request, limits: BodyLimits) -> Result<Self, Error> {
        // An empty body needs no type. All others must be declared as JSON, which no page of another site can do
        // without asking first.
        if !request.body().is_end_stream() || request.headers().contains_key(CONTENT_TYPE) {
            ensure_media_type(request.headers(), &["application/json"])?;
        }
        let (parts, body) = request.into_parts();
        let text = read_body(&parts, body, limits).await?;
        Ok(Self::new(text, permit_of(&parts.extensions).cloned(), limits.size))
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns the fields of the object.
    pub async fn fields(self) -> Result<Map<String, Value>, Error> {
        self.parse(|text| object(text, "the body")).await
    }

    /// Parses the object, and calls `then` with it on the same thread.
    pub async fn read<T: DeserializeOwned, U: Send + 'static>(
        self,
        then: impl FnOnce(T) -> Result<U, Error> + Send + 'static,
    ) -> Result<U, Error> {
        self.parse(|text| then(typed(text, "the body")?)).await
    }

    async fn parse<T: Send + 'static>(
        self,
        parse: impl FnOnce(&[u8]) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let account = self.permit.as_ref().and_then(InFlightPermit::account);
        let account = account.filter(|_| self.text.len() > LARGE).cloned();
        let parse = move || {
            if self.text.len() > SMALL {
                self.reserve()?;
            }
            parse(&self.text)
        };
        match account {
            Some(account) => account.run_heavy(Work::Parsing, parse).await?,
            None => parse(),
        }
    }

    fn reserve(&self) -> Result<(), Error> {
        let size = parsed_size(&self.text);
        let max = self.max.saturating_mul(EXPANSION);
        if size > max {
            let message =
                format!("the JSON has so many parts that it takes {size} bytes when parsed, more than {max}");
            return Err(Error::new(Kind::TooLarge, "json_too_complex", message));
        }
        // The requests that are made of it take as much again as its texts do.
        let all = size.saturating_add(self.text.len());
        self.permit.as_ref().map_or(Ok(()), |permit| permit.reserve(MemoryUse::ParsedInput, all))
    }
}

/// Returns about how many bytes of memory a JSON text takes as a [`Value`], rather too many. The text need not be
/// valid: what is not is parsed up to its first error.
///
/// A `Value` takes 72 bytes; one in a list at most twice that, since lists grow by doubling. An entry of an object
/// takes 104 bytes with its name, and an object has room for four from its first one on.
pub fn parsed_size(text: &[u8]) -> usize {
    let (mut size, mut in_string) = (text.len(), false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                in_string = !in_string;
                // The smallest allocation, once for each text.
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

/// Returns the text without the byte order mark that some programs write before UTF-8; RFC 8259, section 8.1, allows
/// parsers to ignore it.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Parses an object, as one line of a stream or as a body. `what`: names the text in errors.
pub fn typed<T: DeserializeOwned>(text: &[u8], what: &str) -> Result<T, Error> {
    let fields = object(text, what)?;
    // The path to the wrong field is sought only after an error, since following it allocates for each field.
    T::deserialize(Exact(Value::Object(fields))).or_else(|_| {
        let fields = object(text, what)?;
        serde_path_to_error::deserialize(Exact(Value::Object(fields))).map_err(|error| field_error(&error))
    })
}

fn object(text: &[u8], what: &str) -> Result<Map<String, Value>, Error> {
    let invalid =
        |why: &str| Error::new(Kind::Invalid, "invalid_json", format!("{what} is not a JSON object: {why}"));
    match pushlet_json::from_slice(without_mark(text)) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(invalid(ANOTHER_KIND)),
        // Its text could quote the value.
        Err(error) if error.is_data() => Err(invalid(ANOTHER_KIND)),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

/// Returns the error of a field. Of serde's text only what was expected is used: the rest quotes the caller's value,
/// which may be a secret in the wrong field.
fn field_error(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let text = error.inner().to_string();
    let place = error.path().to_string();
    let last = error.path().iter().next_back();
    if let Some(missed) = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        return match last {
            Some(Segment::Map { key }) if missed.is_empty() => missing(key, place.clone()),
            Some(_) => missing(missed, format!("{place}.{missed}")),
            None => missing(missed, missed.to_owned()),
        };
    }
    let expected = text.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    // An item of a list has no name that a code could be made of.
    let Some(Segment::Map { key: name }) = last else {
        let message = format!("{place} must be {}", in_json_words(expected));
        return Error::field("invalid_json", place, message);
    };
    if text.starts_with("unknown field") {
        let hint = did_you_mean(nearest(name, expected.split('`').skip(1).step_by(2)));
        return Error::field("unknown_field", place, format!("{name} is not a field of this request{hint}"));
    }
    let message = format!("{name} must be {}", in_json_words(expected));
    Error::field(format!("invalid_{name}"), place, message)
}

fn missing(name: &str, place: String) -> Error {
    Error::field(format!("missing_{name}"), place, format!("{name} is required for this call"))
}

/// Returns what serde expected in the words of JSON.
fn in_json_words(expected: &str) -> &str {
    match expected {
        "a map" => "an object",
        "a sequence" => "a list",
        "a string" => "a text",
        "a boolean" => "true or false",
        "a nonzero u64" => "a whole number above 0",
        // With `arbitrary_precision`, serde_json says only "invalid number" of one that does not fit.
        "u64" | "" => "a whole number",
        other => other,
    }
}

/// An object, and never a list: serde reads a struct from either.
#[derive(Debug)]
pub struct JsonObject<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = JsonObject<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(JsonObject)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(std::marker::PhantomData))
    }
}

/// Reads a text that must be there; null and the empty text count as missing. For `deserialize_with`.
pub fn required_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.filter(|text| !text.is_empty()).ok_or_else(|| D::Error::missing_field(""))
}

/// Reads a number of seconds above 0. For `deserialize_with`.
pub fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    optional(deserializer, "a number of seconds above 0", |value| {
        Duration::try_from_secs_f64(value.as_f64()?).ok().filter(|wait| !wait.is_zero())
    })
}

/// Reads a time as `2026-11-28T09:00:00Z`. For `deserialize_with`.
pub fn utc_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    optional(deserializer, "a time as 2026-11-28T09:00:00Z", |value| {
        humantime::parse_rfc3339(value.as_str()?).ok()
    })
}

/// Reads a value that `read` understands; null counts as missing. `expected`: completes "… must be".
pub fn optional<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    let Some(value) = Option::<Value>::deserialize(deserializer)? else { return Ok(None) };
    let wrong = || D::Error::invalid_value(Unexpected::Other("value"), &expected);
    read(&value).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
