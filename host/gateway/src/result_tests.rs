#![allow(clippy::unwrap_used)]

use super::*;
use pushlet_model::contract::{CredentialFault, Throttle};

fn settled(disposition: Disposition, code: Option<&str>, message: Option<&str>) -> Result<(), Error> {
    let outcome = Outcome {
        disposition,
        id: None,
        code: code.map(str::to_owned),
        message: message.map(str::to_owned),
        connection: ConnectionHint::Keep,
    };
    DeliveryResult::Settled(outcome).into_error("apns")
}

/// Kind, code and seconds to wait of the error for a target that was not reached.
fn told(disposition: Disposition, code: Option<&str>) -> (Kind, String, Option<Duration>) {
    let error = settled(disposition, code, None).unwrap_err();
    (error.kind, error.code.into_owned(), error.retry_after)
}

fn plain(kind: Kind, code: &str) -> (Kind, String, Option<Duration>) {
    (kind, code.to_owned(), None)
}

fn waiting(kind: Kind, code: &str, milliseconds: u64) -> (Kind, String, Option<Duration>) {
    (kind, code.to_owned(), Some(Duration::from_millis(milliseconds)))
}

#[test]
fn accepted_is_ok() {
    assert_eq!(settled(Disposition::Delivered, None, None), Ok(()));
    assert_eq!(settled(Disposition::Replaced("next".into()), None, None), Ok(()));
}

#[test]
fn every_disposition_has_its_kind_and_code() {
    use Disposition::*;
    let refused = || CredentialRejected(CredentialFault::Refused);
    let throttled = |retry_after| Throttled(Throttle { scope: Scope::Target, retry_after });
    assert_eq!(told(Unregistered(None), None), plain(Kind::Gone, "unregistered"));
    assert_eq!(told(Unregistered(None), Some("ExpiredToken")), plain(Kind::Gone, "expired_token"));
    assert_eq!(told(Rejected, Some("BadDeviceToken")), plain(Kind::Invalid, "bad_device_token"));
    assert_eq!(told(Rejected, Some("PayloadTooLarge")), plain(Kind::TooLarge, "payload_too_large"));
    assert_eq!(told(Rejected, Some("MessageTooBig")), plain(Kind::TooLarge, "message_too_big"));
    assert_eq!(told(Rejected, None), plain(Kind::Invalid, "rejected"));
    assert_eq!(
        told(refused(), Some("InvalidProviderToken")),
        plain(Kind::CredentialRejected, "invalid_provider_token")
    );
    assert_eq!(told(refused(), None), plain(Kind::CredentialRejected, "invalid_apns_credentials"));
    assert_eq!(
        told(throttled(Some(1001)), Some("TooManyRequests")),
        waiting(Kind::Throttled, "too_many_requests", 1001)
    );
    assert_eq!(told(throttled(Some(0)), None), waiting(Kind::Throttled, "throttled", 0));
    assert_eq!(told(throttled(None), None), plain(Kind::Throttled, "throttled"));
    assert_eq!(
        told(Unavailable(Some(60_000)), Some("Shutdown")),
        waiting(Kind::Unavailable, "shutdown", 60_000)
    );
    assert_eq!(told(Unavailable(None), None), plain(Kind::Unavailable, "unavailable"));
    assert_eq!(told(Unknown, Some("Odd")), plain(Kind::TimedOut, "delivery_unknown"));
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

#[test]
fn all_are_there_in_order_and_named_as_they_are_serialized() {
    for (number, status) in Status::ALL.into_iter().enumerate() {
        assert_eq!(status as usize, number);
        assert_eq!(serde_json::to_value(status).unwrap(), status.name());
    }
}

#[test]
fn a_tally_counts_statuses_tries_and_the_most_frequent_reasons() {
    let failed = |code: String| DeliveryResult::Failed(Error::new(Kind::Invalid, code, "no"));
    let mut tally = SendTally::default();
    tally.count(&IndexedResult { index: 0, result: DeliveryResult::Valid, attempts: 1, captured: None });
    for (code, count) in [("one", 1), ("three", 3), ("two", 2)] {
        (0..count).for_each(|_| tally.count(&IndexedResult::untried(0, failed(code.to_owned()))));
    }
    let mut other = SendTally::default();
    (0..20).for_each(|at| {
        other.count(&IndexedResult::untried(0, failed(format!("{}{at:02}", "ü".repeat(100)))))
    });
    tally.add(&other);
    assert_eq!((tally.total(), tally.tries()), (27, 1));
    assert_eq!((tally.with(Status::Valid), tally.with(Status::Rejected)), (1, 26));
    let top = tally.top_codes().unwrap();
    assert_eq!(top, format!("{}=20,three=3,two=2", "ü".repeat(64)));
}
