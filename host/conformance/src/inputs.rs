//! What a component may be given some day, and most are not written for: texts, bodies, headers, notifications.

use serde_json::{Map, Value, json};

use pushlet_model::contract::manifest::{Field, ProviderManifest, ValueKind};
use pushlet_model::notification::COMMON;

/// Texts that break what is put together from pieces: JSON, paths, headers, forms, XML.
pub const TEXTS: [(&str, &str); 24] = [
    ("an empty text", ""),
    ("a space", " "),
    ("a quote", "a\"b"),
    ("a backslash", "a\\b"),
    ("a line break", "a\r\nb: c"),
    ("a tabulator", "a\tb"),
    ("a zero byte", "a\0b"),
    ("control characters", "\u{1}\u{1b}[2J\u{7f}\u{9b}"),
    ("a slash", "a/b"),
    ("two slashes", "//a.example/b"),
    ("a path that climbs", "../../etc/passwd"),
    ("an encoded path that climbs", "%2e%2e/%2E%2e"),
    ("a question mark", "a?b=c&d=e"),
    ("a number sign", "a#b"),
    ("a percent sign", "100%"),
    ("a plus sign", "a+b c"),
    ("a colon", "a:b@c"),
    ("markup", "<a href='x'>&amp;</a>]]>"),
    ("a template", "{{a}} ${b} %s {0}"),
    ("a URL", "https://user:pass@[::1]:8443/a?b#c"),
    ("other scripts", "Zürich Ελλάδα Москва 東京 हिन्दी العربية עברית"),
    ("emoji", "👩‍👩‍👧‍👦🏳️‍🌈🇨🇭e\u{301}"),
    ("separators and marks of direction", "\u{2028}\u{2029}\u{202e}\u{200f}\u{feff}"),
    ("the ends of Unicode", "\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}"),
];

/// Bytes of a long text: longer than any service takes.
pub const LONG: usize = 8 << 10;

/// Returns hostile texts with their names, none longer than `longest` bytes.
pub fn texts(longest: usize) -> Vec<(String, String)> {
    let mut texts: Vec<_> =
        TEXTS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let long = longest.min(LONG);
    texts.push((format!("{long} characters"), "x".repeat(long)));
    texts.push((format!("{} characters of 4 bytes", long / 4), "😀".repeat(long / 4)));
    texts
}

/// Returns every character of Unicode once, in texts of `size` characters.
pub fn all_of_unicode(size: usize) -> Vec<String> {
    let letters: Vec<char> = ('\0'..=char::MAX).collect();
    letters.chunks(size).map(|letters| letters.iter().collect()).collect()
}

/// Returns bodies with their names.
pub fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let deep = [b"[".repeat(5_000), b"]".repeat(5_000)].concat();
    let wide: Map<String, Value> = (0..2_000).map(|number| (format!("key{number}"), json!(number))).collect();
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("nothing", Vec::new()),
        ("an empty object", text("{}")),
        ("a truncated object", text(r#"{"error":{"code":4"#)),
        ("null", text("null")),
        ("an array", text("[]")),
        ("a number", text("1e400")),
        ("a text", text(r#""NotFound""#)),
        ("a page of HTML", text("<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>")),
        ("plain text", text("no healthy upstream\r\n")),
        ("bytes that are no text", b"\xff\xfe\0\xc3\x28\xed\xa0\x80".to_vec()),
        ("a byte order mark", "\u{feff}{}".into()),
        (
            "null in every place",
            text(
                r#"{"error":null,"errors":null,"results":null,"reason":null,"name":null,"id":null,"message":null,"code":null,"status":null,"data":null}"#,
            ),
        ),
        (
            "numbers in every place",
            text(
                r#"{"error":1,"errors":[1],"results":[1],"reason":-1,"name":1.5,"id":18446744073709551616,"message":0,"code":1e308,"status":-0.0,"data":1}"#,
            ),
        ),
        (
            "objects in every place",
            text(
                r#"{"error":{"a":{}},"errors":{"a":[]},"results":{},"reason":{},"name":{},"id":{},"message":[],"code":{},"status":{},"data":{}}"#,
            ),
        ),
        (
            "empty lists in every place",
            text(
                r#"{"error":[],"errors":[],"results":[],"reason":[],"name":[],"id":[],"details":[],"data":[]}"#,
            ),
        ),
        (
            "one result too many",
            text(r#"{"results":[{},{},{},{},{},{},{},{},{},{},{},{}],"success":12,"failure":-1}"#),
        ),
        ("a deep body", deep),
        ("a wide body", Value::Object(wide).to_string().into_bytes()),
        ("60,000 bytes", vec![b'x'; 60_000]),
    ]
}

/// Returns headers with their names.
pub fn headers() -> Vec<(&'static str, Vec<(String, String)>)> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let many = (0..100).map(|number| header(&format!("x-{number}"), "a")).collect();
    vec![
        ("no header", Vec::new()),
        ("a header twice", vec![header("retry-after", "1"), header("retry-after", "2")]),
        ("an empty header", vec![header("retry-after", ""), header("content-type", "")]),
        (
            "a header with other letters",
            vec![header("location", "Zürich\u{fffd}"), header("retry-after", "½")],
        ),
        ("a long header", vec![header("retry-after", &"9".repeat(8_000))]),
        ("a hundred headers", many),
        ("another content type", vec![header("content-type", "text/html; charset=\"latin1\"")]),
        ("a content type that is none", vec![header("content-type", ";;;=")]),
    ]
}

/// Values of the common fields of a notification that are no texts.
fn common(name: &str) -> Vec<(String, Value)> {
    let values: Vec<Value> = match name {
        "badge" | "ttl" => vec![json!(0), json!(1), json!(u32::MAX)],
        "priority" => vec![json!("low"), json!("normal"), json!("high")],
        "sound" => vec![
            json!("default"),
            json!("x.caf"),
            json!({"name": "x.caf", "volume": 0}),
            json!({"name": "", "volume": 1}),
        ],
        "data" => data(),
        "title_loc_args" | "subtitle_loc_args" | "body_loc_args" => {
            let texts: Vec<&str> = TEXTS.iter().map(|(_, text)| *text).collect();
            vec![json!([]), json!(texts)]
        }
        _ => return texts(LONG).into_iter().map(|(name, text)| (name, json!(text))).collect(),
    };
    values.into_iter().map(named).collect()
}

fn data() -> Vec<Value> {
    let deep = (0..100).fold(json!({}), |inner, _| json!({ "a": inner }));
    let wide: Map<String, Value> = (0..300).map(|number| (format!("key{number}"), json!(number))).collect();
    let texts: Map<String, Value> =
        TEXTS.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    let keys: Map<String, Value> =
        TEXTS.iter().map(|(name, text)| ((*text).to_owned(), json!(name))).collect();
    let numbers = json!({"a": i64::MIN, "b": u64::MAX, "c": 1e308, "d": -0.0, "e": 5e-324, "f": 0.1, "g": true, "h": null});
    let lists = json!({"a": [[], [[]], {}, null, 1, "x"]});
    // Words that belong to some services.
    let taken =
        json!({"aps": {}, "from": "x", "google": "y", "gcm": 1, "notification": null, "message_type": "z"});
    vec![
        json!({}),
        deep,
        Value::Object(wide),
        Value::Object(texts),
        Value::Object(keys),
        numbers,
        lists,
        taken,
    ]
}

/// Names a value by its beginning.
fn named(value: Value) -> (String, Value) {
    (value.to_string().chars().take(60).collect(), value)
}

fn of_option(option: &Field) -> Vec<(String, Value)> {
    if !option.choices.is_empty() {
        let parsed = |choice: &String| match option.kind {
            ValueKind::Text => json!(choice),
            _ => serde_json::from_str(choice).unwrap_or_else(|_| json!(choice)),
        };
        return option.choices.iter().map(|choice| named(parsed(choice))).collect();
    }
    let values = match option.kind {
        ValueKind::Text => {
            return texts(LONG).into_iter().map(|(name, text)| (name, json!(text))).collect();
        }
        ValueKind::Integer => vec![json!(0), json!(1), json!(-1), json!(i64::MIN), json!(u64::MAX)],
        ValueKind::Number => vec![json!(0), json!(-1.5), json!(1e308), json!(5e-324)],
        ValueKind::Boolean => vec![json!(true), json!(false)],
        ValueKind::Json => {
            let mut values = data();
            values.extend([json!([]), json!(""), json!("text"), json!(0), json!(true), json!([1, "a", {}])]);
            values
        }
    };
    values.into_iter().map(named).collect()
}

/// Returns every field of a notification for this provider, with values at its limits: field, name of the value, value.
pub fn fields(manifest: &ProviderManifest) -> Vec<(String, String, Value)> {
    let common =
        COMMON.iter().filter(|name| **name != "alert").map(|name| ((*name).to_owned(), common(name)));
    let options = manifest.options.iter().map(|option| (option.name.clone(), of_option(option)));
    let native: Vec<_> = data().into_iter().map(named).collect();
    let all = common.chain(options).chain([(manifest.name.clone(), native)]);
    all.flat_map(|(field, values)| {
        values.into_iter().map(move |(name, value)| (field.clone(), name, value)).collect::<Vec<_>>()
    })
    .collect()
}
