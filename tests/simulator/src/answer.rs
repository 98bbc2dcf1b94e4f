//! What the simulator answers to one request.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

/// Status, headers and body of one answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// How many devices (or topics) this answer says the message goes to.
    pub delivered: u32,
}

impl Answer {
    pub fn empty(status: StatusCode) -> Answer {
        Answer { status, headers: Vec::new(), body: Bytes::new(), delivered: 0 }
    }

    pub fn json(status: StatusCode, body: &Value) -> Answer {
        Answer::typed(status, "application/json; charset=UTF-8", body.to_string())
    }

    pub fn text(status: StatusCode, body: impl Into<String>) -> Answer {
        Answer::typed(status, "text/plain; charset=UTF-8", body.into())
    }

    /// The page that Google's front end answers where no JSON service does.
    pub fn html(status: StatusCode, title: &str) -> Answer {
        let code = status.as_u16();
        let page = format!(
            "<!DOCTYPE html>\n<html lang=en>\n<title>Error {code} ({title})!!1</title>\n<p><b>{code}.</b> {title}.\n"
        );
        Answer::typed(status, "text/html; charset=UTF-8", page)
    }

    pub fn delivered(mut self, devices: u32) -> Answer {
        self.delivered = devices;
        self
    }

    /// Adds a header; a value that HTTP does not allow is left out.
    pub fn header(mut self, name: &'static str, value: &str) -> Answer {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    fn typed(status: StatusCode, content_type: &'static str, body: String) -> Answer {
        Answer { body: Bytes::from(body), ..Answer::empty(status) }.header("content-type", content_type)
    }

    /// The head of the HTTP response.
    pub fn head(&self) -> http::Response<()> {
        let mut response = http::Response::new(());
        *response.status_mut() = self.status;
        for (name, value) in &self.headers {
            response.headers_mut().append(name, value.clone());
        }
        response
    }
}
