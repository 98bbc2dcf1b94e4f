#![allow(clippy::unwrap_used)]

use std::time::Duration;

use axum::extract::DefaultBodyLimit;

use super::*;
use crate::tests::limits;
use pushlet_settings::LimitsConfig;

/// Reads bodies of 1,000 bytes, with 10 fields and names of 20 bytes.
fn body_limits() -> BodyLimits {
    let limits = LimitsConfig {
        request_body: 1000,
        fields: 10,
        field_name: 20,
        body_timeout: Duration::from_secs(5),
        ..limits()
    };
    BodyLimits::from(&limits)
}

async fn read(
    uri: &str,
    content_type: Option<&str>,
    body: impl Into<Body>,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut request = Request::builder().method("POST").uri(uri);
    if let Some(content_type) = content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    let mut request = request.body(body.into()).unwrap();
    DefaultBodyLimit::disable().apply(&mut request);
    Form::read(request, body_limits()).await.map(Form::into_fields)
}

async fn fields(uri: &str, content_type: Option<&str>, body: &'static [u8]) -> Vec<(String, String)> {
    let fields = read(uri, content_type, body).await.unwrap();
    fields.into_iter().map(|(name, value)| (name, String::from_utf8(value).unwrap())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
const JSON: Option<&str> = Some("application/json; charset=utf-8");
const MULTIPART: Option<&str> = Some("multipart/form-data; boundary=XX");

#[tokio::test]
async fn a_form_is_decoded() {
    let got = fields("/", FORM, b"alert=a+b%20%C3%A9%2B&empty=&bare&=x&odd=%zz&data=%7B%22a%22%3A1%7D").await;
    let expected =
        [("", "x"), ("alert", "a b é+"), ("bare", ""), ("data", "{\"a\":1}"), ("empty", ""), ("odd", "%zz")];
    assert_eq!(got, pairs(&expected));
}

#[tokio::test]
async fn json_that_is_sent_as_a_form_is_named_and_a_byte_order_mark_ignored() {
    for content_type in [FORM, None] {
        for body in ["{\"a\":\"b&c=d\"}", " \n{} ", "\u{feff}{\"a\":1}"] {
            let error = read("/", content_type, body).await.unwrap_err();
            assert_eq!((error.kind, &*error.code), (Kind::UnsupportedMediaType, "unsupported_media_type"));
            assert!(error.message.contains("content-type: application/json"), "{}", error.message);
        }
    }
    assert_eq!(fields("/", JSON, b"\xef\xbb\xbf{\"a\":1}").await, pairs(&[("a", "1")]));
    assert_eq!(fields("/", FORM, b"a={}").await, pairs(&[("a", "{}")]));
}

#[tokio::test]
async fn the_body_wins_over_the_query_and_the_last_over_the_first() {
    let expected = pairs(&[("a", "4"), ("b", "5"), ("q", "1")]);
    assert_eq!(fields("/?q=0&q=1&a=2", FORM, b"a=3&b=5&a=4").await, expected);
    assert_eq!(fields("/?q=1&a=2", None, b"a=4&b=5").await, expected);
    assert_eq!(fields("/?q=1&a=2", JSON, b"{\"a\":\"4\",\"b\":5}").await, expected);
    let body = b"--XX\r\ncontent-disposition: form-data; name=a\r\n\r\n4\r\n--XX\r\ncontent-disposition: form-data; name=\"b\"\r\n\r\n5\r\n--XX--\r\n";
    assert_eq!(fields("/?q=1&a=2", MULTIPART, body).await, expected);
}

#[tokio::test]
async fn json_values_keep_their_text() {
    let body = br#"{"s":"x","n":1.5,"big":18446744073709551615,"t":true,"none":null,"o":{"b":1,"a":[2,"c"]},"l":[]}"#;
    let expected = [
        ("big", "18446744073709551615"),
        ("l", "[]"),
        ("n", "1.5"),
        ("o", r#"{"b":1,"a":[2,"c"]}"#),
        ("s", "x"),
        ("t", "true"),
    ];
    assert_eq!(fields("/", JSON, body).await, pairs(&expected));
}

#[tokio::test]
async fn files_are_bytes() {
    let body = [
        &b"--XX\r\ncontent-disposition: form-data; name=\"apns_p12\"; filename=\"a.p12\"\r\n\r\n"[..],
        b"\x30\x82\xff\x00\r\n--XX\r\ncontent-disposition: form-data; name=\"key\"\r\ncontent-type: application/x-pkcs12\r\n\r\n",
        b"\xfe\r\n--XX--\r\n",
    ]
    .concat();
    let fields = read("/", MULTIPART, body).await.unwrap();
    assert_eq!(fields["apns_p12"], b"\x30\x82\xff\x00");
    assert_eq!(fields["key"], b"\xfe");
}

#[tokio::test]
async fn text_that_is_not_utf8_names_its_field() {
    for (content_type, body) in [
        (FORM, &b"type=%ff"[..]),
        (FORM, b"type=\xff"),
        (MULTIPART, b"--XX\r\ncontent-disposition: form-data; name=type\r\n\r\n\xff\r\n--XX--\r\n"),
    ] {
        let mut form = Form { fields: read("/", content_type, body).await.unwrap(), ..Form::default() };
        let error = form.take_text("type").unwrap_err();
        assert_eq!((error.code.as_ref(), error.field.as_deref()), ("invalid_encoding", Some("type")));
    }
    assert_eq!(read("/", FORM, "%ff=1").await.unwrap_err().code, "invalid_encoding");
}

#[tokio::test]
async fn other_content_types_are_refused() {
    for content_type in
        ["text/plain", "application/xml", "application/jsonp", "", "multipart/mixed; boundary=XX"]
    {
        let error = read("/?a=1", Some(content_type), "").await.unwrap_err();
        assert_eq!(error.kind, Kind::UnsupportedMediaType, "{content_type}");
    }
    for content_type in
        ["APPLICATION/JSON", "application/json;charset=ISO-8859-1", "application/json ; charset=utf-8"]
    {
        assert!(read("/", Some(content_type), "{}").await.is_ok(), "{content_type}");
    }
    let request = Request::builder().header(CONTENT_ENCODING, "gzip").body(Body::from("a=1")).unwrap();
    assert_eq!(Form::read(request, body_limits()).await.err().unwrap().kind, Kind::UnsupportedMediaType);
}

#[tokio::test]
async fn broken_bodies_are_told() {
    for body in ["", "[]", "{", "{\"a\":1} x", "nul"] {
        assert_eq!(read("/", JSON, body).await.unwrap_err().code, "invalid_json", "{body}");
    }
    for body in ["--XX\r\n", "--XX\r\ncontent-disposition: form-data\r\n\r\nx\r\n--XX--\r\n", "--YY--"] {
        assert_eq!(read("/", MULTIPART, body).await.unwrap_err().code, "invalid_multipart", "{body}");
    }
    assert_eq!(read("/", Some("multipart/form-data"), "").await.unwrap_err().code, "invalid_multipart");
    let deep = format!("{{\"a\":{}", "[".repeat(500));
    assert_eq!(read("/", JSON, deep).await.unwrap_err().code, "invalid_json");
}

#[tokio::test]
async fn bounds_hold() {
    assert!(read("/", FORM, format!("a={}", "x".repeat(998))).await.is_ok());
    assert_eq!(read("/", FORM, format!("a={}", "x".repeat(999))).await.unwrap_err().kind, Kind::TooLarge);
    let chunks = futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>("x".repeat(60))));
    assert_eq!(read("/", FORM, Body::from_stream(chunks)).await.unwrap_err().kind, Kind::TooLarge);

    let many = |count| (0..count).map(|n| format!("f{n}=1&")).collect::<String>();
    assert_eq!(read("/", FORM, many(10)).await.unwrap().len(), 10);
    assert_eq!(read("/", FORM, many(11)).await.unwrap_err().code, "too_many_fields");
    assert_eq!(read("/", FORM, "a=1&".repeat(11)).await.unwrap_err().code, "too_many_fields");
    assert_eq!(read("/?q=1", FORM, many(10)).await.unwrap_err().code, "too_many_fields");
    let part = "--XX\r\ncontent-disposition: form-data; name=a\r\n\r\n\r\n";
    assert_eq!(
        read("/", MULTIPART, format!("{}--XX--\r\n", part.repeat(11))).await.unwrap_err().code,
        "too_many_fields"
    );

    assert!(read("/", FORM, format!("{}=1", "n".repeat(20))).await.is_ok());
    assert_eq!(
        read("/", FORM, format!("{}=1", "n".repeat(21))).await.unwrap_err().code,
        "field_name_too_long"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(read("/", FORM, never).await.unwrap_err().code, "request_timeout");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_told() {
    let broken = futures_util::stream::iter([Ok("a=1"), Err(std::io::Error::other("reset"))]);
    let error = read("/", FORM, Body::from_stream(broken)).await.unwrap_err();
    assert_eq!(error.code, "incomplete_body");
    assert!(error.inner.unwrap().contains("reset"));
}
