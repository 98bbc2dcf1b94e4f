//! The fields of a request: from its query, and from a body that is a form, multipart or JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, request::Parts};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};

use super::admission::Place;
use super::auth;
use super::json_body::JsonBody;
use pushlet_model::error::{Error, Kind};
use pushlet_quota::account::MemoryUse;
use pushlet_settings::LimitsConfig;

/// The largest request that is read.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Bytes.
    body: usize,
    fields: usize,
    /// Bytes.
    name: usize,
    /// For the whole body.
    timeout: Duration,
}

/// A caller that is still writing does not see the answer if the connection closes under it, so some of
/// a body that is too large is read and dropped. Bytes.
const SKIPPED_AT_MOST: usize = 8 << 20;
const SKIPPED_WITHIN: Duration = Duration::from_secs(2);
/// An announced length is a claim: memory for more comes as the bytes do. Bytes.
const FIRST_BUFFER: usize = 64 << 10;

/// The fields by name. Where one is given more than once the last counts, and the body's before the query's.
#[derive(Default)]
pub struct Form {
    fields: BTreeMap<String, Vec<u8>>,
    /// From a JSON body, whose values have types; never null.
    typed: Map<String, Value>,
    /// Fields read, those that were replaced among them.
    read: usize,
}

enum Format {
    UrlEncoded,
    Multipart,
    Json,
}

impl Bounds {
    /// The same for larger or smaller bodies, in bytes.
    pub fn with_body(self, body: usize) -> Self {
        Self { body, ..self }
    }
}

impl From<&LimitsConfig> for Bounds {
    fn from(limits: &LimitsConfig) -> Self {
        Self {
            body: limits.request_body,
            fields: limits.fields,
            name: limits.field_name,
            timeout: limits.body_timeout,
        }
    }
}

impl Form {
    /// Reads the whole request.
    pub async fn read(request: Request, bounds: Bounds) -> Result<Self, Error> {
        let format = format_of(request.headers())?;
        let (parts, body) = request.into_parts();
        let body = read_body(&parts, body, bounds).await?;
        if matches!(format, Format::UrlEncoded) && looks_like_json(&body) {
            return Err(json_as_form(&parts.headers));
        }
        let mut form = Self::default();
        form.url_encoded(parts.uri.query().unwrap_or_default().as_bytes(), bounds)?;
        match format {
            Format::UrlEncoded => form.url_encoded(&body, bounds)?,
            Format::Multipart => form.multipart(parts, body, bounds).await?,
            Format::Json => {
                let place = auth::place_of(&parts.extensions).cloned();
                let fields = JsonBody::new(body, place, bounds.body).read(Ok).await?;
                form.json(fields, bounds)?;
            }
        }
        Ok(form)
    }

    /// Takes a text out; an empty one counts as none.
    pub fn take_text(&mut self, name: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.take_bytes(name) else { return Ok(None) };
        let wrong = |_| Error::field("invalid_encoding", name, format!("{name} is not valid UTF-8"));
        String::from_utf8(value).map(Some).map_err(wrong)
    }

    /// Takes bytes out; no bytes count as none.
    pub fn take_bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let typed = self.typed.remove(name).map(into_bytes);
        typed.or_else(|| self.fields.remove(name)).filter(|value| !value.is_empty())
    }

    /// All that is left, as bytes.
    pub fn into_fields(self) -> BTreeMap<String, Vec<u8>> {
        let mut fields = self.fields;
        fields.extend(self.typed.into_iter().map(|(name, value)| (name, into_bytes(value))));
        fields
    }

    /// All that is left: what came as text, and what came as JSON.
    pub fn into_parts(self) -> (BTreeMap<String, Vec<u8>>, Map<String, Value>) {
        (self.fields, self.typed)
    }

    fn insert(&mut self, name: &str, value: Vec<u8>, bounds: Bounds) -> Result<(), Error> {
        self.count(name, bounds)?;
        self.fields.insert(name.to_owned(), value);
        Ok(())
    }

    fn count(&mut self, name: &str, bounds: Bounds) -> Result<(), Error> {
        self.read += 1;
        if self.read > bounds.fields {
            let most = bounds.fields;
            return Err(Error::new(Kind::Invalid, "too_many_fields", format!("more than {most} fields")));
        }
        if name.len() > bounds.name {
            let most = bounds.name;
            let message = format!("the name of a field is longer than {most} bytes");
            return Err(Error::new(Kind::Invalid, "field_name_too_long", message));
        }
        Ok(())
    }

    /// WHATWG URL standard, section 5.1; values stay bytes, for some fields are files.
    fn url_encoded(&mut self, text: &[u8], bounds: Bounds) -> Result<(), Error> {
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = name_from(decoded(halves.next().unwrap_or_default()))?;
            let value = decoded(halves.next().unwrap_or_default());
            self.insert(&name, value, bounds)?;
        }
        Ok(())
    }

    async fn multipart(&mut self, parts: Parts, body: Bytes, bounds: Bounds) -> Result<(), Error> {
        let request = Request::from_parts(parts, Body::from(body));
        let mut multipart = Multipart::from_request(request, &())
            .await
            .map_err(|error| invalid_multipart(error.body_text()))?;
        while let Some(part) =
            multipart.next_field().await.map_err(|error| invalid_multipart(error.body_text()))?
        {
            let name =
                part.name().map(str::to_owned).ok_or_else(|| invalid_multipart("a part has no name"))?;
            let value = part.bytes().await.map_err(|error| invalid_multipart(error.body_text()))?.to_vec();
            self.insert(&name, value, bounds)?;
        }
        Ok(())
    }

    fn json(&mut self, fields: Map<String, Value>, bounds: Bounds) -> Result<(), Error> {
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
            self.count(&name, bounds)?;
            self.fields.remove(&name);
            self.typed.insert(name, value);
        }
        Ok(())
    }
}

fn format_of(headers: &HeaderMap) -> Result<Format, Error> {
    let unsupported = |message: &'static str| {
        Err(Error::new(Kind::UnsupportedMediaType, "unsupported_media_type", message))
    };
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return unsupported("a body with a content-encoding is not accepted");
    }
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Ok(Format::UrlEncoded) };
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => Ok(Format::UrlEncoded),
        "multipart/form-data" => Ok(Format::Multipart),
        "application/json" => Ok(Format::Json),
        _ => unsupported(
            "the content type must be application/x-www-form-urlencoded, multipart/form-data or application/json",
        ),
    }
}

/// The whole body, within its bounds. It is counted on the tenant's account until the request has its answer.
pub(super) async fn read_body(parts: &Parts, body: Body, bounds: Bounds) -> Result<Bytes, Error> {
    let headers = &parts.headers;
    let place = auth::place_of(&parts.extensions);
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut chunks = body.into_data_stream();
    let collecting = collect(&mut chunks, announced.unwrap_or(0), bounds.body, place);
    let Ok(collected) = tokio::time::timeout(bounds.timeout, collecting).await else {
        return Err(Error::new(Kind::Invalid, "request_timeout", "the body took too long to arrive"));
    };
    if let Some(body) = collected? {
        return Ok(body);
    }
    // A caller that asked first (`100-continue`) is not sending yet.
    if !headers.contains_key(EXPECT) {
        let _ = tokio::time::timeout(SKIPPED_WITHIN, skip(&mut chunks)).await;
    }
    let most = bounds.body;
    Err(Error::new(Kind::TooLarge, "request_too_large", format!("the body is larger than {most} bytes")))
}

/// None: it is too large.
async fn collect(
    chunks: &mut BodyDataStream,
    announced: usize,
    most: usize,
    place: Option<&Place>,
) -> Result<Option<Bytes>, Error> {
    if announced > most {
        return Ok(None);
    }
    let mut read = Vec::with_capacity(announced.min(FIRST_BUFFER));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Error::new(Kind::Invalid, "incomplete_body", "the body ended early").caused_by(error)
        })?;
        if read.len() + chunk.len() > most {
            return Ok(None);
        }
        if let Some(place) = place {
            place.reserve(MemoryUse::RequestBodies, (read.len() + chunk.len()).max(read.capacity()))?;
        }
        read.extend_from_slice(&chunk);
    }
    Ok(Some(Bytes::from(read)))
}

async fn skip(chunks: &mut BodyDataStream) {
    let mut skipped = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        skipped += chunk.len();
        if skipped > SKIPPED_AT_MOST {
            return;
        }
    }
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let Some(first) = text.iter().position(|byte| matches!(byte, b'+' | b'%')) else { return text.to_vec() };
    let (plain, rest) = text.split_at(first);
    let spaced: Vec<u8> = rest.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(plain);
    decoded.extend(percent_encoding::percent_decode(&spaced));
    decoded
}

/// A text as it is, anything else as JSON.
fn into_bytes(value: Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

fn name_from(name: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(name)
        .map_err(|_| Error::new(Kind::Invalid, "invalid_encoding", "the name of a field is not valid UTF-8"))
}

fn invalid_multipart(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Invalid, "invalid_multipart", format!("the multipart body cannot be read: {why}"))
}

/// What is wrong with JSON that is not what was asked for.
pub const ANOTHER_KIND: &str = "it is another kind of value";

/// A text without the byte order mark that some programs begin UTF-8 with. RFC 8259 section 8.1 lets readers ignore
/// it.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// A whole JSON object: no field of a form is named like that.
fn looks_like_json(body: &[u8]) -> bool {
    let text = without_mark(body).trim_ascii();
    text.starts_with(b"{") && text.ends_with(b"}")
}

/// `curl -d` says that its data is a form unless it is told otherwise.
fn json_as_form(headers: &HeaderMap) -> Error {
    let said = match headers.get(CONTENT_TYPE) {
        Some(_) => "has the content type of a form (application/x-www-form-urlencoded)",
        None => "has no content type",
    };
    let message = format!("the body is JSON but {said}; send it with content-type: application/json");
    Error::new(Kind::UnsupportedMediaType, "unsupported_media_type", message)
}

/// What is wrong with a JSON text, without any of it: a secret may stand in a wrong place.
pub fn json_fault(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => ANOTHER_KIND.to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
