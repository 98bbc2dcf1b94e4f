#![allow(clippy::unwrap_used)]
use std::num::NonZeroU64;

use serde_json::json;

use super::*;
use crate::verbatim::{Verbatim, verbatim, verbatim_rest};

async fn read(text: &str, max: usize) -> Result<usize, Error> {
    let body = JsonBody::new(Bytes::copy_from_slice(text.as_bytes()), None, max);
    body.fields().await.map(|fields| fields.len())
}

#[test]
fn the_size_of_what_is_parsed_is_told_by_the_text() {
    assert_eq!(parsed_size(b""), 0);
    assert_eq!(parsed_size(br#"{"a\"{[,":1}"#), 12 + 512 + 32, "what stands in a text does not count");
    let (texts, objects) = ("\"0123456789abcdef\",".repeat(1000), "{\"\":0},".repeat(1000));
    let each = |text: &str| parsed_size(text.as_bytes()) / 1000;
    assert!(each(&texts) < 300 && each(&objects) > 700, "{} {}", each(&texts), each(&objects));
}

#[tokio::test]
async fn a_text_of_too_many_parts_is_refused_before_it_is_parsed() {
    let list = |part: &str| format!("{{\"a\":[{}0]}}", part.repeat((10 << 10) / part.len()));
    assert_eq!(read(&list("\"0123456789abcdef0123456789abcdef\","), 16 << 10).await, Ok(1));
    let error = read(&list("{\"\":0},"), 16 << 10).await.unwrap_err();
    assert_eq!((error.kind, &*error.code), (Kind::TooLarge, "json_too_complex"));
    assert_eq!(read("[1]", 16).await.unwrap_err().code, "invalid_json");
}

/// Fields of all kinds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "their errors are looked at, not their values")]
struct Example {
    #[serde(default, deserialize_with = "required_text")]
    application_id: String,
    targets: Option<Vec<Value>>,
    #[serde(default, deserialize_with = "seconds")]
    deadline: Option<Duration>,
    validate_only: Option<bool>,
    notification: Option<Map<String, Value>>,
    count: Option<u64>,
    most: Option<NonZeroU64>,
    items: Option<Vec<JsonObject<Item>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "its errors are looked at, not its values")]
struct Item {
    #[serde(deserialize_with = "required_text")]
    target: String,
}

/// Code, field and message of the error.
fn refused(text: &str) -> (String, Option<String>, String) {
    let error = typed::<Example>(text.as_bytes(), "it").unwrap_err();
    (error.code.into_owned(), error.field, error.message.into_owned())
}

#[test]
fn an_unknown_name_is_told_with_the_nearest_known_one() {
    let (code, field, message) = refused(r#"{"aplication_id": 1}"#);
    assert_eq!((code.as_str(), field.as_deref()), ("unknown_field", Some("aplication_id")));
    assert!(message.ends_with("did you mean application_id?"), "{message}");
    assert_eq!(refused(r#"{"x": 1}"#).2, "x is not a field of this request");
    let (code, field, message) = refused(r#"{"items": [{"target": "a"}, {"token": "b"}]}"#);
    assert_eq!((code.as_str(), field.as_deref()), ("unknown_field", Some("items[1].token")));
    assert!(message.starts_with("token is not a field"), "{message}");
}

#[test]
fn a_wrong_value_names_its_place_and_what_is_expected() {
    for (text, code, field, says) in [
        (r#"{"targets": 1}"#, "invalid_targets", "targets", "targets must be a list"),
        (
            r#"{"notification": "x"}"#,
            "invalid_notification",
            "notification",
            "notification must be an object",
        ),
        (
            r#"{"validate_only": "yes"}"#,
            "invalid_validate_only",
            "validate_only",
            "validate_only must be true or false",
        ),
        (
            r#"{"application_id": 1}"#,
            "invalid_application_id",
            "application_id",
            "application_id must be a text",
        ),
        (r#"{"count": -1}"#, "invalid_count", "count", "count must be a whole number"),
        (r#"{"count": "1"}"#, "invalid_count", "count", "count must be a whole number"),
        (r#"{"most": 0}"#, "invalid_most", "most", "most must be a whole number above 0"),
        (r#"{"items": [{"target": "a"}, 7]}"#, "invalid_json", "items[1]", "items[1] must be an object"),
        (r#"{"items": [["a"]]}"#, "invalid_json", "items[0]", "items[0] must be an object"),
        (r#"{"items": [{}]}"#, "missing_target", "items[0].target", "target is required for this call"),
        (
            r#"{"items": [{"target": ""}]}"#,
            "missing_target",
            "items[0].target",
            "target is required for this call",
        ),
        (
            r#"{"application_id": null}"#,
            "missing_application_id",
            "application_id",
            "application_id is required for this call",
        ),
    ] {
        let expected = (code.to_owned(), Some(field.to_owned()), says.to_owned());
        assert_eq!(refused(text), expected, "{text}");
    }
    for text in ["[]", "[\"a\"]", "1", "{\"a\":", "{\"$serde_json::private::Number\": []}"] {
        assert_eq!(refused(text).0, "invalid_json", "{text}");
    }
}

#[test]
fn no_error_quotes_a_value() {
    const SECRET: &str = "PLANTED`, expected `PLANTED";
    for name in ["targets", "deadline", "validate_only", "notification", "count", "most", "items"] {
        for value in [Value::from(SECRET), serde_json::json!({ SECRET: SECRET }), serde_json::json!([SECRET])]
        {
            let error = typed::<Example>(serde_json::json!({ name: value }).to_string().as_bytes(), "it");
            if let Err(error) = error {
                assert!(!error.message.contains("PLANTED"), "{name}: {}", error.message);
            }
        }
    }
}

#[test]
fn waits_are_seconds_above_0() {
    let deadline = |text: &str| typed::<Example>(format!("{{\"deadline\": {text}}}").as_bytes(), "it");
    for (text, wait) in [("1.5", 1500), ("1e-3", 1)] {
        assert_eq!(deadline(text).unwrap().deadline, Some(Duration::from_millis(wait)));
    }
    for text in ["-1", "0", "1e300", "\"1\"", "[]", "1e-30"] {
        assert_eq!(
            deadline(text).unwrap_err().message,
            "deadline must be a number of seconds above 0",
            "{text}"
        );
    }
}

#[test]
fn a_byte_order_mark_is_ignored_and_null_counts_as_missing() {
    let example: Example = typed(b"\xef\xbb\xbf{\"application_id\": \"a\"}", "it").unwrap();
    assert_eq!(example.application_id, "a");
    let example: Example =
        typed(br#"{"targets": null, "validate_only": null, "deadline": null}"#, "it").unwrap();
    assert_eq!((example.targets, example.validate_only, example.deadline), (None, None, None));
}

#[test]
fn values_that_are_handed_on_stay_as_they_are_written() {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default, deserialize_with = "verbatim")]
        own: Option<Map<String, Value>>,
        #[serde(flatten, deserialize_with = "verbatim_rest")]
        rest: Map<String, Value>,
    }

    let own = r#"{"z":1E5,"a":[-0.0,-0,0,7,-7,1.5,10.50,12345678901234567890123,1e400,{"deep":2.50e-7}],"n":null,"t":true,"s":"1E5"}"#;
    let fields: Fields = typed(format!(r#"{{"own":{own},"x":3E+3,"y":{own}}}"#).as_bytes(), "it").unwrap();
    assert_eq!(Value::Object(fields.own.unwrap()).to_string(), own);
    assert_eq!(Value::Object(fields.rest).to_string(), format!(r#"{{"x":3E+3,"y":{own}}}"#));
    assert!(typed::<Fields>(br#"{"own":null}"#, "it").unwrap().own.is_none());
    let error = typed::<Fields>(br#"{"own":1E5}"#, "it").err().unwrap();
    let digits = |text: &str| Exact(json!({"$serde_json::private::Number": text}));
    assert_eq!(Verbatim::deserialize(digits("1E5")).unwrap().0.to_string(), "1E5");
    assert!(Verbatim::deserialize(digits("1,\"injected\":1")).is_err());
    assert_eq!((&*error.code, &*error.message), ("invalid_own", "own must be an object"));
}
