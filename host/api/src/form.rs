//! The fields of a request: from its query, and from a body that is a form, multipart or JSON.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, request::Parts};
use serde_json::{Map, Value};

use crate::body::{BodyLimits, media_type, read_body, unsupported_media_type};
use crate::caller::permit_of;
use crate::json::{JsonBody, without_mark};
use pushlet_model::error::{Error, Kind};

/// The fields by name. The last value of a name wins, and a value in the body wins over one in the query.
#[derive(Default)]
pub struct Form {
    fields: BTreeMap<String, Vec<u8>>,
    /// The fields of a JSON body, whose values have types. None is null.
    typed: Map<String, Value>,
    /// The number of fields read, including replaced ones.
    count: usize,
}

enum BodyFormat {
    UrlEncoded,
    Multipart,
    Json,
}

impl Form {
    /// Reads the whole request.
    pub async fn read(request: Request, limits: BodyLimits) -> Result<Self, Error> {
        let format = format_of(request.headers())?;
        let (parts, body) = request.into_parts();
        let body = read_body(&parts, body, limits).await?;
        // As a form, the JSON would be the name of an unknown field, an error that hides the wrong content type.
        if matches!(format, BodyFormat::UrlEncoded) && looks_like_json(&body) {
            return Err(json_as_form(&parts.headers));
        }
        let mut form = Self::default();
        // Before the body, so that its values replace those of the query.
        form.url_encoded(parts.uri.query().unwrap_or_default().as_bytes(), limits)?;
        match format {
            BodyFormat::UrlEncoded => form.url_encoded(&body, limits)?,
            // These two are large and rare: in a box, they take no room in what waits for every form.
            BodyFormat::Multipart => Box::pin(form.multipart(parts, body, limits)).await?,
            BodyFormat::Json => {
                let permit = permit_of(&parts.extensions).cloned();
                let fields = Box::pin(JsonBody::new(body, permit, limits.size).fields()).await?;
                form.json(fields, limits)?;
            }
        }
        Ok(form)
    }

    /// Takes a text; an empty one counts as missing.
    pub fn take_text(&mut self, name: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.take_bytes(name) else { return Ok(None) };
        let wrong = |_| Error::field("invalid_encoding", name, format!("{name} is not valid UTF-8"));
        String::from_utf8(value).map(Some).map_err(wrong)
    }

    /// Takes a value as bytes; an empty one counts as missing.
    pub fn take_bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let typed = self.typed.remove(name).map(into_bytes);
        typed.or_else(|| self.fields.remove(name)).filter(|value| !value.is_empty())
    }

    /// Returns the remaining fields as bytes.
    pub fn into_fields(self) -> BTreeMap<String, Vec<u8>> {
        let mut fields = self.fields;
        fields.extend(self.typed.into_iter().map(|(name, value)| (name, into_bytes(value))));
        fields
    }

    /// Returns the remaining fields: those that came as text, and those that came as JSON.
    pub fn into_parts(self) -> (BTreeMap<String, Vec<u8>>, Map<String, Value>) {
        (self.fields, self.typed)
    }

    fn insert(&mut self, name: String, value: Vec<u8>, limits: BodyLimits) -> Result<(), Error> {
        self.check(&name, limits)?;
        self.fields.insert(name, value);
        Ok(())
    }

    fn check(&mut self, name: &str, limits: BodyLimits) -> Result<(), Error> {
        self.count += 1;
        if self.count > limits.fields {
            let message = format!("more than {} fields", limits.fields);
            return Err(Error::new(Kind::Invalid, "too_many_fields", message));
        }
        if name.len() > limits.field_name {
            let message = format!("the name of a field is longer than {} bytes", limits.field_name);
            return Err(Error::new(Kind::Invalid, "field_name_too_long", message));
        }
        Ok(())
    }

    /// Parses as the WHATWG URL standard says (section 5.1), but keeps values as bytes, since some fields are files.
    fn url_encoded(&mut self, text: &[u8], limits: BodyLimits) -> Result<(), Error> {
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = name_from(decoded(halves.next().unwrap_or_default()))?;
            let value = decoded(halves.next().unwrap_or_default());
            self.insert(name, value, limits)?;
        }
        Ok(())
    }

    async fn multipart(&mut self, parts: Parts, body: Bytes, limits: BodyLimits) -> Result<(), Error> {
        let mut request = Request::from_parts(parts, Body::from(body));
        // The body was read within our own limit.
        DefaultBodyLimit::disable().apply(&mut request);
        let mut multipart = Multipart::from_request(request, &())
            .await
            .map_err(|error| invalid_multipart(error.body_text()))?;
        while let Some(part) =
            multipart.next_field().await.map_err(|error| invalid_multipart(error.body_text()))?
        {
            let name =
                part.name().map(str::to_owned).ok_or_else(|| invalid_multipart("a part has no name"))?;
            let value = part.bytes().await.map_err(|error| invalid_multipart(error.body_text()))?.to_vec();
            self.insert(name, value, limits)?;
        }
        Ok(())
    }

    fn json(&mut self, fields: Map<String, Value>, limits: BodyLimits) -> Result<(), Error> {
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
            self.check(&name, limits)?;
            // A text of the query must not come back once the typed value is taken.
            self.fields.remove(&name);
            self.typed.insert(name, value);
        }
        Ok(())
    }
}

fn format_of(headers: &HeaderMap) -> Result<BodyFormat, Error> {
    let encoding = headers.get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported_media_type("a body with a content-encoding is not accepted".to_owned()));
    }
    let Some(media_type) = media_type(headers) else { return Ok(BodyFormat::UrlEncoded) };
    match media_type.to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => Ok(BodyFormat::UrlEncoded),
        "multipart/form-data" => Ok(BodyFormat::Multipart),
        "application/json" => Ok(BodyFormat::Json),
        _ => {
            let message = "the content type must be application/x-www-form-urlencoded, multipart/form-data or \
                           application/json";
            Err(unsupported_media_type(message.to_owned()))
        }
    }
}

fn decoded(text: &[u8]) -> Vec<u8> {
    // Without an early end many bytes are looked at together.
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    if spaced.contains(&b'%') { percent_encoding::percent_decode(&spaced).collect() } else { spaced }
}

/// Returns a text as it is, and any other value as JSON.
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

/// Returns whether the body is a JSON object; no field of a form has such a name.
fn looks_like_json(body: &[u8]) -> bool {
    let text = without_mark(body).trim_ascii();
    text.starts_with(b"{") && text.ends_with(b"}")
}

/// `curl -d` declares its data as a form by default.
fn json_as_form(headers: &HeaderMap) -> Error {
    let said = match headers.get(CONTENT_TYPE) {
        Some(_) => "has the content type of a form (application/x-www-form-urlencoded)",
        None => "has no content type",
    };
    unsupported_media_type(format!(
        "the body is JSON but {said}; send it with content-type: application/json"
    ))
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
