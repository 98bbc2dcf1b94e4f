#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::*;
use crate::body::BodyLimits;
use crate::tests::*;
use pushlet_model::contract::{ConnectionHint, CredentialFault, Disposition, Outcome, Recipient, Throttle};

/// The body of a form, read.
async fn form(text: &str) -> Form {
    let request = Request::post("/").header("content-type", "application/x-www-form-urlencoded");
    Form::read(request.body(Body::from(text.to_owned())).unwrap(), BodyLimits::from(&limits())).await.unwrap()
}

/// The answer to a send that ended with `report`.
async fn answer_to(text: &str, report: Result<SendReport, Error>) -> Got {
    let send = send_from(form(text).await, |_| None).unwrap();
    let response = response_to(report, send.provider.as_deref() == Some(GCM));
    got(response.unwrap_or_else(response::error)).await
}

/// What the gateway is asked for: `application:ID` or the inline secrets, the type, the token, the fields.
async fn asked(text: &str) -> (String, Option<String>, String, Vec<(String, String)>) {
    let send = send_from(form(text).await, |_| None).unwrap();
    assert!(send.native && send.deadline.is_none());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let via = match send.via {
        Via::Application(id) => format!("application:{id}"),
        Via::Inline(secrets) => {
            secrets.into_iter().map(|(name, secret)| format!("{name}={}", text(secret))).collect()
        }
    };
    let [Recipient { target: Target::Device(token), .. }] = &send.targets[..] else {
        panic!("not one device")
    };
    let Fields::Classic(fields, _) = send.notification else { panic!("not classic") };
    let fields = fields.into_iter().map(|(name, value)| (name, text(value))).collect();
    (via, send.provider, token.clone(), fields)
}

fn report_of(provider: &str, disposition: Disposition) -> SendReport {
    let outcome =
        Outcome { disposition, id: None, code: None, message: None, connection: ConnectionHint::Keep };
    SendReport {
        provider: provider.into(),
        targets: Vec::new().into(),
        results: vec![IndexedResult {
            index: 0,
            result: DeliveryResult::Settled(outcome),
            attempts: 1,
            captured: None,
        }],
        captured: None,
        native: None,
    }
}

const APNS: &str = "application_id=app&device_token=t";
const GCM_SEND: &str = "gcm_api_key=k&device_token=t";

#[tokio::test]
async fn the_first_missing_thing_is_told_in_the_readmes_words() {
    let router = open_router().0;
    let no_identifier = json!({"error": "missing_identifier", "message": "an application_id or gcm_api_key are required for this call"});
    let no_token = json!({"error": "device_token_required", "message": "device_token is required, which is registed with the application on your phone"});
    for form in [
        "",
        "data=%7B",
        "application_id=&gcm_api_key=",
        "type=apns&gcm_api_key=k&device_token=t",
        "type=gcm&device_token=t",
        "type=fcm&gcm_api_key=k",
        "type=odd&device_token=t",
    ] {
        let got = post_form(&router, "/send_notification", form).await;
        assert_eq!((got.status, &got.body), (400, &no_identifier), "{form}");
    }
    for form in ["application_id=app", "gcm_api_key=k&device_token=&data=%7B", "application_id=app&data=%7B"]
    {
        let got = post_form(&router, "/send_notification", form).await;
        assert_eq!((got.status, &got.body), (400, &no_token), "{form}");
    }
}

#[tokio::test]
async fn the_type_the_application_or_the_key_decides() {
    let via = async |form| {
        let (via, provider, ..) = asked(form).await;
        (via, provider)
    };
    let app = || "application:app".to_owned();
    let key = || "gcm_api_key=k".to_owned();
    assert_eq!(via(APNS).await, (app(), None));
    assert_eq!(via(GCM_SEND).await, (key(), None));
    assert_eq!(via("application_id=app&gcm_api_key=k&device_token=t").await, (app(), None));
    assert_eq!(
        via("type=gcm&application_id=app&gcm_api_key=k&device_token=t").await,
        (key(), Some("gcm".into()))
    );
    assert_eq!(via("type=gcm&application_id=app&device_token=t").await, (app(), Some("gcm".into())));
    assert_eq!(
        via("type=apns&application_id=app&gcm_api_key=k&device_token=t").await,
        (app(), Some("apns".into()))
    );
    assert_eq!(via("type=&application_id=app&device_token=t").await, (app(), None));
}

#[tokio::test]
async fn only_the_notification_is_handed_on() {
    let form =
        "type=apns&application_id=app&gcm_api_key=k&device_token=a+b&callback=f&alert=hi+there&badge=&x=1";
    let (_, _, token, fields) = asked(form).await;
    assert_eq!(token, "a b");
    let expected = [("alert", "hi there"), ("badge", ""), ("x", "1")];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn apns_says_ok() {
    let got = answer_to(APNS, Ok(report_of("apns", Disposition::Delivered))).await;
    assert_eq!((got.status, got.body), (200, json!({"response": "ok"})));
}

#[tokio::test]
async fn the_services_own_answer_is_for_gcm_callers_only() {
    let native = || Some(r#"{"multicast_id":108,"success":1,"x":1.50}"#.to_owned());
    let report =
        |provider| Ok(SendReport { native: native(), ..report_of(provider, Disposition::Delivered) });
    for (form, provider) in
        [(GCM_SEND, "gcm"), (APNS, "gcm"), ("type=gcm&application_id=app&device_token=t", "fcm")]
    {
        let got = answer_to(form, report(provider)).await;
        assert_eq!(
            (got.status, &got.body),
            (200, &serde_json::from_str(&native().unwrap()).unwrap()),
            "{form}"
        );
        assert_eq!(got.header("content-type"), Some("application/json"));
    }
    let got = answer_to(APNS, report("fcm")).await;
    assert_eq!((got.status, got.body), (200, json!({"response": "ok"})));
    let dead = SendReport { native: native(), ..report_of("gcm", Disposition::Unregistered(None)) };
    assert_eq!(answer_to(GCM_SEND, Ok(dead)).await.body["multicast_id"], 108);
}

#[tokio::test]
async fn rejected_credentials_are_told_in_the_readmes_words_to_gcm_callers() {
    let refused = || Disposition::CredentialRejected(CredentialFault::Refused);
    let words = json!({"error": "invalid_gcm_credentials", "message": "the provided credentials were rejected by google servers"});
    let got = answer_to(GCM_SEND, Ok(report_of("gcm", refused()))).await;
    assert_eq!((got.status, &got.body), (403, &words));
    let got = answer_to("type=gcm&application_id=app&device_token=t", Ok(report_of("fcm", refused()))).await;
    assert_eq!((got.status, &got.body), (403, &words));
    let no_token = Error::new(Kind::CredentialRejected, "invalid_fcm_credentials", "invalid_grant");
    let got = answer_to("type=gcm&application_id=app&device_token=t", Err(no_token)).await;
    assert_eq!((got.status, &got.body), (403, &words));
    let got = answer_to(APNS, Ok(report_of("apns", refused()))).await;
    assert_eq!(got.error(), (403, "invalid_apns_credentials"));
}

#[tokio::test]
async fn failures_keep_their_status_whoever_asks() {
    let lost = || Error::new(Kind::TimedOut, "unknown", "no answer in time");
    let failed = SendReport {
        results: vec![IndexedResult {
            index: 0,
            result: DeliveryResult::Failed(lost()),
            attempts: 1,
            captured: None,
        }],
        native: Some("{}".into()),
        ..report_of("gcm", Disposition::Delivered)
    };
    assert_eq!(answer_to(GCM_SEND, Ok(failed)).await.error(), (504, "unknown"));
    let busy = Disposition::Throttled(Throttle {
        scope: pushlet_model::contract::Scope::Application,
        retry_after: Some(2500),
    });
    let got = answer_to(GCM_SEND, Ok(report_of("gcm", busy))).await;
    assert_eq!((got.error(), got.header("retry-after")), ((429, "throttled"), Some("3")));
    let unknown = Error::field("application_not_found", "application_id", "no");
    let got = answer_to(APNS, Err(Error { kind: Kind::NotFound, ..unknown })).await;
    assert_eq!((got.status, got.body), (404, json!({"error": "application_not_found", "message": "no"})));
    let none = SendReport { results: Vec::new(), ..report_of("apns", Disposition::Delivered) };
    assert_eq!(answer_to(APNS, Ok(none)).await.error(), (500, "unexpected_error"));
}

#[tokio::test]
async fn register_hands_on_all_fields() {
    let body = "--XX\r\ncontent-disposition: form-data; name=\"apns_p12\"; filename=\"a.p12\"\r\n\r\nBYTES\r\n--XX\r\ncontent-disposition: form-data; name=\"application_id\"\r\n\r\nmine\r\n--XX--\r\n";
    let request = Request::post("/register_application?apns_mode=development&type=apns&callback=f")
        .header("content-type", "multipart/form-data; boundary=XX");
    let form =
        Form::read(request.body(Body::from(body)).unwrap(), BodyLimits::from(&limits())).await.unwrap();
    let registration = registration_from(form).unwrap();
    assert_eq!(registration.application_id.as_deref(), Some("mine"));
    assert_eq!(registration.provider.as_deref(), Some("apns"));
    let fields: Vec<(&str, &[u8])> =
        registration.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    assert_eq!(fields, [("apns_mode", &b"development"[..]), ("apns_p12", b"BYTES")]);
}

#[tokio::test]
async fn register_without_id_leaves_it_to_the_gateway() {
    let registration = registration_from(form("application_id=&type=").await).unwrap();
    assert!(registration.application_id.is_none() && registration.provider.is_none());
}

#[tokio::test]
async fn feedback() {
    let router = open_router().0;
    let told =
        json!({"error": "missing_application_id", "message": "an application_id is required for this call"});
    for form in ["", "application_id="] {
        let got = post_form(&router, "/application_feedback", form).await;
        assert_eq!((got.status, &got.body), (400, &told));
    }
    let got = post_form(&router, "/application_feedback?application_id=other", "").await;
    assert_eq!(got.error(), (404, "application_not_found"));
    let since = UNIX_EPOCH + Duration::from_millis(1_354_055_047_999);
    let dead = DeadTokenView::of(&DeadToken { device_token: "abcd".into(), since });
    let written = json!({"device_token": "abcd", "timestamp": "2012-11-27T22:24:07Z"});
    assert_eq!(serde_json::to_value(dead).unwrap(), written);
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_its_permit() {
    let (router, in_flight) = open_router();
    let request = Request::post("/send_notification").body(endless_body()).unwrap();
    let asking = tokio::spawn(async move { ask(&router, request).await });
    while in_flight.count() == 0 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    tokio::time::timeout(Duration::from_secs(10), in_flight.ended()).await.unwrap();
}
