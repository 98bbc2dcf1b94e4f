#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn every_kind_of_error_has_its_status() {
    for (kind, expected) in [
        (Kind::Invalid, 400),
        (Kind::AccessDenied, 401),
        (Kind::CredentialRejected, 403),
        (Kind::NotFound, 404),
        (Kind::Conflict, 409),
        (Kind::Gone, 410),
        (Kind::TooLarge, 413),
        (Kind::UnsupportedMediaType, 415),
        (Kind::Throttled, 429),
        (Kind::Internal, 500),
        (Kind::Provider, 502),
        (Kind::Unreachable, 502),
        (Kind::Overloaded, 503),
        (Kind::Unavailable, 503),
        (Kind::TimedOut, 504),
        (Kind::ProviderTimedOut, 504),
    ] {
        assert_eq!(error(Error::new(kind, "c", "m")).status().as_u16(), expected, "{kind:?}");
    }
}

#[test]
fn a_caller_that_must_wait_is_told_for_how_many_seconds() {
    let wait = |kind, wait: Option<u64>| {
        let response = error(Error::new(kind, "c", "m").after(wait.map(Duration::from_millis)));
        response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(wait(Kind::Throttled, Some(1001)).as_deref(), Some("2"));
    assert_eq!(wait(Kind::Throttled, Some(0)).as_deref(), Some("1"));
    assert_eq!(wait(Kind::Throttled, None).as_deref(), Some("1"));
    assert_eq!(wait(Kind::Overloaded, None).as_deref(), Some("1"));
    assert_eq!(wait(Kind::Unavailable, Some(60_000)).as_deref(), Some("60"));
    assert_eq!(wait(Kind::Unavailable, None), None);
    assert_eq!(wait(Kind::TimedOut, None), None);
}
