//! Bodies of requests: read whole, within limits of size and time, or line by line.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, request::Parts};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::caller::permit_of;
use crate::in_flight::InFlightPermit;
use pushlet_model::error::{Error, Kind};
use pushlet_quota::account::MemoryUse;
use pushlet_settings::LimitsConfig;

/// After a body that is too large, so much of its rest is read and dropped: a caller that is still writing would not
/// see the response if the connection was closed. Bytes.
const SKIPPED_AT_MOST: usize = 8 << 20;
const SKIPPED_WITHIN: Duration = Duration::from_secs(2);
/// The `Content-Length` is only a claim, so no more than this is allocated before the bytes arrive. Bytes.
const FIRST_BUFFER: usize = 64 << 10;

/// The largest body that is read.
#[derive(Clone, Copy)]
pub struct BodyLimits {
    /// Bytes.
    pub size: usize,
    /// Fields of a form.
    pub fields: usize,
    /// Bytes of a field's name.
    pub field_name: usize,
    /// For the whole body.
    timeout: Duration,
}

impl BodyLimits {
    pub fn with_size(self, size: usize) -> Self {
        Self { size, ..self }
    }
}

impl From<&LimitsConfig> for BodyLimits {
    fn from(limits: &LimitsConfig) -> Self {
        Self {
            size: limits.request_body,
            fields: limits.fields,
            field_name: limits.field_name,
            timeout: limits.body_timeout,
        }
    }
}

/// Returns the content type without its parameters; None: there is no such header.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim())
}

/// Fails unless the content type is one of these.
pub fn ensure_media_type(headers: &HeaderMap, allowed: &[&str]) -> Result<(), Error> {
    let media_type = media_type(headers).unwrap_or_default();
    if allowed.iter().any(|allowed| media_type.eq_ignore_ascii_case(allowed)) {
        return Ok(());
    }
    Err(unsupported_media_type(format!("the content type must be {}", allowed.join(" or "))))
}

pub fn unsupported_media_type(message: String) -> Error {
    Error::new(Kind::UnsupportedMediaType, "unsupported_media_type", message)
}

/// Reads the whole body. It is counted on the tenant's account until the request has its response.
pub async fn read_body(parts: &Parts, body: Body, limits: BodyLimits) -> Result<Bytes, Error> {
    let headers = &parts.headers;
    let permit = permit_of(&parts.extensions);
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut chunks = body.into_data_stream();
    let collecting = collect(&mut chunks, announced.unwrap_or(0), limits.size, permit);
    let Ok(collected) = tokio::time::timeout(limits.timeout, collecting).await else {
        return Err(Error::new(Kind::Invalid, "request_timeout", "the body took too long to arrive"));
    };
    if let Some(body) = collected? {
        return Ok(body);
    }
    // A caller that asked first (`100-continue`) has not begun to send.
    if !headers.contains_key(EXPECT) {
        let _ = tokio::time::timeout(SKIPPED_WITHIN, skip(&mut chunks)).await;
    }
    let message = format!("the body is larger than {} bytes", limits.size);
    Err(Error::new(Kind::TooLarge, "request_too_large", message))
}

/// Returns None if the body is too large.
async fn collect(
    chunks: &mut BodyDataStream,
    announced: usize,
    max: usize,
    permit: Option<&InFlightPermit>,
) -> Result<Option<Bytes>, Error> {
    if announced > max {
        return Ok(None);
    }
    let mut read = Vec::with_capacity(announced.min(FIRST_BUFFER));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Error::new(Kind::Invalid, "incomplete_body", "the body ended early").caused_by(error)
        })?;
        if read.len() + chunk.len() > max {
            return Ok(None);
        }
        if let Some(permit) = permit {
            // The capacity, which grows by doubling, is what is allocated.
            permit.reserve(MemoryUse::RequestBodies, (read.len() + chunk.len()).max(read.capacity()))?;
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

/// The lines of a body. It reads no more of the body than the next line needs.
pub struct BodyLines {
    body: BodyDataStream,
    read: BytesMut,
    /// How many bytes of `read` are known to hold no line break.
    searched: usize,
    /// The current line is too long: its rest is dropped.
    skipping: bool,
    ended: bool,
    /// Bytes of the longest line that is allowed.
    max: usize,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyLine {
    Text(Bytes),
    /// It was longer than allowed, and was dropped.
    TooLong,
}

/// The body ended before it was complete.
#[derive(Debug, PartialEq, Eq)]
pub struct CutOff;

impl BodyLines {
    /// `max`: bytes of one line.
    pub fn new(body: Body, max: usize) -> Self {
        let body = body.into_data_stream();
        Self { body, read: BytesMut::new(), searched: 0, skipping: false, ended: false, max }
    }

    /// Returns the next line; None: the body has ended. It is cancel safe.
    pub async fn next(&mut self) -> Result<Option<BodyLine>, CutOff> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(self.rest());
            }
            self.read_more().await?;
        }
    }

    /// Waits until some bytes of the next line have arrived, or the body has ended.
    pub async fn begun(&mut self) -> Result<(), CutOff> {
        while self.read.is_empty() && !self.skipping && !self.ended {
            self.read_more().await?;
        }
        Ok(())
    }

    /// Reads what is left of the body and drops it.
    pub async fn discard(mut self) {
        while !self.ended && self.read_more().await.is_ok() {
            self.read.clear();
        }
    }

    async fn read_more(&mut self) -> Result<(), CutOff> {
        match self.body.next().await {
            None => self.ended = true,
            Some(Ok(chunk)) => self.read.extend_from_slice(&chunk),
            Some(Err(_)) => return Err(CutOff),
        }
        Ok(())
    }

    /// Returns the next line if it has arrived whole.
    pub fn take(&mut self) -> Option<BodyLine> {
        let found = self.read.get(self.searched..).unwrap_or_default().iter().position(|byte| *byte == b'\n');
        let Some(found) = found else {
            self.searched = self.read.len();
            // What has arrived of a line that is too long is dropped now, so that no line takes more memory than `max`.
            if self.searched > self.max || self.skipping {
                self.skipping = true;
                self.read.clear();
                self.searched = 0;
            }
            return None;
        };
        let mut line = self.read.split_to(self.searched + found);
        self.read.advance(1);
        self.searched = 0;
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        let is_too_long = std::mem::take(&mut self.skipping) || line.len() > self.max;
        Some(if is_too_long { BodyLine::TooLong } else { BodyLine::Text(line.freeze()) })
    }

    /// Returns what follows the last line break.
    fn rest(&mut self) -> Option<BodyLine> {
        if std::mem::take(&mut self.skipping) {
            return Some(BodyLine::TooLong);
        }
        self.searched = 0;
        let rest = self.read.split().freeze();
        (!rest.is_empty()).then_some(BodyLine::Text(rest))
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
