use super::*;

fn coded(text: &str) -> String {
    let mut block = Vec::new();
    string(text.as_bytes(), &mut block);
    hex::encode(block)
}

fn head(path: &'static str, headers: &[(&'static str, &'static str)]) -> RequestHead {
    let header = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    RequestHead {
        method: Method::POST,
        path: PathAndQuery::from_static(path),
        headers: headers.iter().map(header).collect(),
    }
}

fn encode(encoder: &mut HeadEncoder, head: &RequestHead) -> Vec<u8> {
    let mut block = Vec::new();
    encoder.encode(head, &mut block);
    block
}

#[test]
fn strings_are_coded_as_in_the_rfc() {
    // RFC 7541, appendix C.4 and C.6.
    assert_eq!(coded("www.example.com"), "8cf1e3c2e5f23a6ba0ab90f4ff");
    assert_eq!(coded("no-cache"), "86a8eb10649cbf");
    assert_eq!(coded("custom-value"), "8925a849e95bb8e8b4bf");
    assert_eq!(coded("Mon, 21 Oct 2013 20:13:21 GMT"), "96d07abe941054d444a8200595040b8166e082a62d1bff");
    assert_eq!(
        coded("foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
        "ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
    );
    // It is not longer as it is.
    assert_eq!(coded("{}"), "027b7d");
    assert_eq!(coded(""), "00");
}

#[test]
fn integers_are_coded_as_in_the_rfc() {
    let coded = |form, value| {
        let mut block = Vec::new();
        number(form, value, &mut block);
        block
    };
    // RFC 7541, appendix C.1.
    assert_eq!(coded((0, 5), 10), [0x0a]);
    assert_eq!(coded((0, 5), 1337), [0x1f, 0x9a, 0x0a]);
    assert_eq!(coded((0x80, 7), 127), [0xff, 0x00]);
    for size in [0, 30, 31, 32, 4096, 1 << 20] {
        assert_eq!(size_update(&coded(SIZE_UPDATE, size)), Some(size));
    }
    let both = [coded(SIZE_UPDATE, 0), coded(SIZE_UPDATE, 100), vec![0x83]].concat();
    assert_eq!(size_update(&both), Some(100));
    assert_eq!(size_update(&[0x83]), None);
}

#[test]
fn what_repeats_takes_a_byte() {
    let mut encoder = HeadEncoder::new("localhost:2197".to_owned());
    let first =
        encode(&mut encoder, &head("/1", &[("apns-topic", "org.example.app"), ("apns-priority", "10")]));
    let second =
        encode(&mut encoder, &head("/2", &[("apns-topic", "org.example.app"), ("apns-priority", "10")]));
    assert!(first.len() > 40, "{first:x?}");
    // POST, https, the authority, the path, and both headers.
    assert_eq!(hex::encode(second), "8387c004022f32bfbe");
}

#[test]
fn values_that_never_repeat_do_not_fill_the_table() {
    let mut encoder = HeadEncoder::new("localhost".to_owned());
    for number in 0..1000 {
        let value = HeaderValue::try_from(format!("id-{number}")).unwrap();
        let mut head = head("/", &[]);
        head.headers.push((HeaderName::from_static("apns-id"), value));
        encode(&mut encoder, &head);
    }
    assert_eq!(encoder.table.len(), 1 + MOST_VALUES);
    // Of names there is no end either, but of the table.
    for number in 0..1000 {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        let mut head = head("/", &[]);
        head.headers.push((name, HeaderValue::from_static("1")));
        encode(&mut encoder, &head);
    }
    assert!(encoder.size <= TABLE_SIZE, "{}", encoder.size);
    assert!(encoder.size > TABLE_SIZE - 64, "{}", encoder.size);
}

#[test]
fn credentials_are_in_no_table_and_coded_once() {
    let mut encoder = HeadEncoder::new("localhost".to_owned());
    let mut secret = HeaderValue::from_static("key of a service");
    secret.set_sensitive(true);
    for token in ["bearer abc", "bearer abc", "bearer def"] {
        let mut head = head("/", &[("authorization", token)]);
        head.headers.push((HeaderName::from_static("x-key"), secret.clone()));
        let block = encode(&mut encoder, &head);
        // Authorization by its number in the static table, the other by its name.
        let [token, name, key] = [token, "x-key", "key of a service"].map(coded);
        let expected = format!("1f08{token}10{name}{key}");
        assert!(hex::encode(&block).ends_with(&expected), "{expected} {block:x?}");
    }
    assert_eq!(encoder.table.len(), 1, "more than the authority");
}
