//! `Retry-After`.

use crate::Response;
use std::time::UNIX_EPOCH;

/// The wait that a response asks for, in milliseconds: delta-seconds or an HTTP date (RFC 9110 section 10.2.3).
/// A date that is past, seen from `now` (milliseconds since the epoch), is no wait; nonsense is none given.
pub fn retry_after(response: &Response, now: u64) -> Option<u64> {
    let value = header(response, "retry-after")?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000));
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(date.as_secs().saturating_mul(1000).saturating_sub(now))
}

/// A header of the response; names compare without case.
pub fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(value: &str) -> Option<u64> {
        let headers = vec![("Retry-After".to_string(), value.to_string())];
        retry_after(&Response { status: 503, headers, body: Vec::new() }, 784_111_777_000)
    }

    #[test]
    fn seconds_and_dates_are_read() {
        assert_eq!(after("120"), Some(120_000));
        assert_eq!(after(" 0 "), Some(0));
        assert_eq!(after("99999999999999999999999"), Some(u64::MAX));
        // The three forms of RFC 9110 section 5.6.7, 10 s after `now`, which is their example.
        assert_eq!(after("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10_000));
        assert_eq!(after("Sunday, 06-Nov-94 08:49:47 GMT"), Some(10_000));
        assert_eq!(after("Sun Nov  6 08:49:47 1994"), Some(10_000));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:27 GMT"), Some(0));
    }

    #[test]
    fn nonsense_is_no_wait_given() {
        for value in ["", "-1", "1.5", "soon", "Sun, 99 Nov 1994 08:49:47 GMT"] {
            assert_eq!(after(value), None, "{value}");
        }
    }
}
