#![allow(clippy::unwrap_used)]

use super::*;
use pushlet_model::contract::{ConnectionHint, CredentialFault, Throttle};

fn settled(disposition: Disposition, code: Option<&str>, message: Option<&str>) -> Result<(), Error> {
    let outcome = Outcome {
        disposition,
        id: None,
        code: code.map(str::to_owned),
        message: message.map(str::to_owned),
        connection: ConnectionHint::Keep,
    };
    verdict(Fate::Settled(outcome), "apns")
}

/// Status, code and Retry-After of the answer to a target that was not reached.
fn told(disposition: Disposition, code: Option<&str>) -> (u16, String, Option<String>) {
    let response = error(settled(disposition, code, None).unwrap_err());
    let retry_after = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
    let logged = response.extensions().get::<Logged>().unwrap();
    (response.status().as_u16(), logged.code.to_string(), retry_after)
}

fn plain(status: u16, code: &str) -> (u16, String, Option<String>) {
    (status, code.to_owned(), None)
}

#[test]
fn accepted_is_ok() {
    assert_eq!(settled(Disposition::Delivered, None, None), Ok(()));
    assert_eq!(settled(Disposition::Replaced("next".into()), None, None), Ok(()));
}

#[test]
fn every_disposition_has_its_status_and_code() {
    use Disposition::*;
    let refused = || CredentialRejected(CredentialFault::Refused);
    let throttled = |retry_after| Throttled(Throttle { scope: Scope::Target, retry_after });
    assert_eq!(told(Unregistered(None), None), plain(410, "unregistered"));
    assert_eq!(told(Unregistered(None), Some("ExpiredToken")), plain(410, "expired_token"));
    assert_eq!(told(Rejected, Some("BadDeviceToken")), plain(400, "bad_device_token"));
    assert_eq!(told(Rejected, Some("PayloadTooLarge")), plain(413, "payload_too_large"));
    assert_eq!(told(Rejected, Some("MessageTooBig")), plain(413, "message_too_big"));
    assert_eq!(told(Rejected, None), plain(400, "rejected"));
    assert_eq!(told(refused(), Some("InvalidProviderToken")), plain(403, "invalid_provider_token"));
    assert_eq!(told(refused(), None), plain(403, "invalid_apns_credentials"));
    assert_eq!(
        told(throttled(Some(1001)), Some("TooManyRequests")),
        (429, "too_many_requests".into(), Some("2".into()))
    );
    assert_eq!(told(throttled(Some(0)), None), (429, "throttled".into(), Some("1".into())));
    assert_eq!(told(throttled(None), None), (429, "throttled".into(), Some("1".into())));
    assert_eq!(
        told(Unavailable(Some(60_000)), Some("Shutdown")),
        (503, "shutdown".into(), Some("60".into()))
    );
    assert_eq!(told(Unavailable(None), None), plain(503, "unavailable"));
    assert_eq!(told(Unknown, Some("Odd")), plain(504, "delivery_unknown"));
}

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
    ] {
        assert_eq!(error(Error::new(kind, "c", "m")).status().as_u16(), expected, "{kind:?}");
    }
}

#[test]
fn the_services_own_words_are_the_message() {
    let message = |code, message| settled(Disposition::Rejected, code, message).unwrap_err().message;
    assert_eq!(message(Some("BadTopic"), Some("The topic is wrong.")), "The topic is wrong.");
    assert_eq!(message(Some("BadTopic"), Some("")), "apns: the push was rejected: BadTopic");
    assert_eq!(message(None, None), "apns: the push was rejected");
    let since = settled(Disposition::Unregistered(Some(1_354_055_047_000)), Some("Unregistered"), None);
    assert_eq!(
        since.unwrap_err().message,
        "apns: the device token is dead since 2012-11-27T22:24:07Z: Unregistered"
    );
}

#[test]
fn a_time_beyond_all_calendars_is_harmless() {
    assert_eq!(utc(UNIX_EPOCH + Duration::from_millis(u64::MAX)).to_string(), "9999-12-31T23:59:59Z");
    assert_eq!(utc(UNIX_EPOCH - Duration::from_secs(1)).to_string(), "1970-01-01T00:00:00Z");
    let far = settled(Disposition::Unregistered(Some(u64::MAX)), None, None).unwrap_err();
    assert_eq!(far.message, "apns: the device token is dead since 9999-12-31T23:59:59Z");
}

#[test]
fn vendors_codes_become_snake_case() {
    for (vendors, ours) in [
        ("BadDeviceToken", "bad_device_token"),
        ("UNREGISTERED", "unregistered"),
        ("SENDER_ID_MISMATCH", "sender_id_mismatch"),
        ("InvalidTtl", "invalid_ttl"),
        ("APNSAuthError", "apns_auth_error"),
        ("InvalidPushType2Go", "invalid_push_type2_go"),
        ("80300007", "80300007"),
        ("  odd -- name\r\n", "odd_name"),
        ("Ünïcode", "n_code"),
        ("", ""),
    ] {
        assert_eq!(snake_case(vendors), ours, "{vendors:?}");
    }
    assert!(snake_case(&"Ab".repeat(100)).len() <= 64);
}
