#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::contract::manifest::Field;
use crate::contract::{Environment, Priority, Sound, Target};

fn manifest(options: &[(&str, ValueKind, &[&str])]) -> ProviderManifest {
    let field = |(name, kind, choices): &(&str, ValueKind, &[&str])| Field {
        name: (*name).into(),
        kind: *kind,
        required: false,
        choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
        default: None,
        minimum: None,
        maximum: None,
        max_length: None,
        unit: None,
        description: String::new(),
    };
    ProviderManifest {
        name: "apns".into(),
        title: String::new(),
        vendor: "apple".into(),
        version: String::new(),
        description: String::new(),
        also_answers: vec![],
        settings: vec![],
        credentials: vec![],
        options: options.iter().map(field).collect(),
        targets: vec![],
        endpoints: vec![],
        targets_per_exchange: 1,
        targets_per_call: 500,
        target_options: Vec::new(),
        environments: vec![Environment::Production, Environment::Development],
        response_headers: Vec::new(),
        entropy: 0,
        examples: vec![],
    }
}

fn form(fields: &[(&str, &str)]) -> Result<Notification, Error> {
    let options = [
        ("content_available", ValueKind::Boolean, &[][..]),
        ("push_type", ValueKind::Text, &["alert", "voip"]),
    ];
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    from_form(fields, Map::new(), &manifest(&options), |name| name == "fcm")
}

fn strict(fields: Value) -> Result<Notification, Error> {
    let options =
        [("push_type", ValueKind::Text, &["alert", "voip"][..]), ("relevance_score", ValueKind::Number, &[])];
    let Value::Object(fields) = fields else { panic!("an object") };
    from_json(fields, &manifest(&options), &["fcm"])
}

#[test]
fn the_classic_fields() {
    let fields = [
        ("alert", "hi"),
        ("badge", "3"),
        ("sound", "a.aiff"),
        ("identifier", "1234"),
        ("data", r#"{"a":1}"#),
    ];
    let notification = form(&fields).unwrap();
    assert_eq!(notification.alert.unwrap().body.as_deref(), Some("hi"));
    assert_eq!(notification.badge, Some(3));
    assert_eq!(notification.sound, Some(Sound::Named("a.aiff".into())));
    assert_eq!(notification.identifier.as_deref(), Some("1234"));
    assert_eq!(notification.data.as_deref(), Some(r#"{"a":1}"#));
}

#[test]
fn a_form_knows_the_options_and_what_other_providers_take() {
    let notification =
        form(&[("content_available", "1"), ("push_type", "voip"), ("fcm", "{}"), ("badge", "")]).unwrap();
    let options = notification.options;
    assert_eq!(
        options,
        [("content_available".into(), "true".into()), ("push_type".into(), "\"voip\"".into())]
    );
    assert_eq!(notification.badge, None);
}

#[test]
fn wrong_values_name_their_field() {
    let code = |result: Result<Notification, Error>| {
        let error = result.expect_err("it is wrong");
        (error.code.into_owned(), error.field.unwrap())
    };
    assert_eq!(code(form(&[("badge", "many")])), ("invalid_badge".into(), "badge".into()));
    assert_eq!(code(form(&[("badge", "-1")])), ("invalid_badge".into(), "badge".into()));
    assert_eq!(code(form(&[("push_type", "smoke")])), ("invalid_push_type".into(), "push_type".into()));
    assert_eq!(code(form(&[("content_available", "maybe")])).0, "invalid_content_available");
    assert_eq!(code(form(&[("data", "{")])), ("invalid_data_json".into(), "data".into()));
    assert_eq!(code(form(&[("data", "[1]")])).0, "invalid_data_json");
    assert_eq!(code(strict(json!({"title": 7}))).0, "invalid_title");
    assert_eq!(code(strict(json!({"relevance_score": "high"}))).0, "invalid_relevance_score");
    assert_eq!(code(strict(json!({"sound": {"name": "x", "volume": 2, "critical": 1}}))).0, "invalid_sound");
    assert_eq!(code(strict(json!({"priority": "urgent"}))).0, "invalid_priority");
    let message = form(&[("data", "{")]).expect_err("it is wrong").message;
    assert!(message.starts_with("data could not be converted to json: "), "{message}");
}

#[test]
fn an_unknown_field_is_named_with_its_nearest_neighbour() {
    let error = strict(json!({"titel": "x"})).expect_err("unknown");
    assert_eq!(error.code, "unknown_field");
    assert_eq!(error.message, "titel is not a field of a notification for apns; did you mean title?");
    assert!(strict(json!({"title": "x", "fcm": {"android": {}}})).is_ok(), "another provider's raw payload");
}

#[test]
fn a_form_refuses_what_nobody_knows() {
    for (name, told) in
        [("message", "did you mean alert?"), ("bage", "did you mean badge?"), ("utm", "for apns")]
    {
        let error = form(&[("alert", "x"), (name, "y")]).expect_err("unknown");
        assert_eq!((&*error.code, error.field.as_deref()), ("unknown_field", Some(name)));
        assert!(error.message.ends_with(told), "{}", error.message);
    }
}

#[test]
fn a_text_is_a_text_whatever_it_looks_like() {
    for text in [r#"{"a":1}"#, "{}", "[1]", "7", "null", r#""x""#] {
        let typed = |value: Value| {
            let Value::Object(fields) = json!({"alert": value}) else { panic!("an object") };
            from_form(BTreeMap::new(), fields, &manifest(&[]), |_| false).unwrap()
        };
        for notification in [form(&[("alert", text)]).unwrap(), typed(text.into())] {
            assert_eq!(notification.alert.unwrap().body.as_deref(), Some(text));
        }
    }
    let code = |result: Result<Notification, Error>| result.expect_err("it is wrong").code;
    assert_eq!(code(form(&[("sound", r#" {"critical":1}"#)])), "invalid_sound");
}

#[test]
fn a_json_body_has_types() {
    let classic = |fields: Value| {
        let Value::Object(fields) = fields else { panic!("an object") };
        let options = [("payload", ValueKind::Json, &[][..]), ("silent", ValueKind::Boolean, &[])];
        from_form(BTreeMap::new(), fields, &manifest(&options), |_| false)
    };
    let fields = json!({"badge": "3", "silent": "1", "identifier": 7, "data": "{\"a\":1}", "payload": "{}"});
    let notification = classic(fields).unwrap();
    assert_eq!((notification.badge, notification.identifier.as_deref()), (Some(3), Some("7")));
    assert_eq!(notification.data.as_deref(), Some(r#"{"a":1}"#), "as a form writes it");
    let options = [("silent", "true"), ("payload", r#""{}""#)];
    for (name, value) in options {
        assert!(notification.options.contains(&(name.into(), value.into())), "{:?}", notification.options);
    }
    let notification =
        classic(json!({"alert": {"title": "t", "body": "b"}, "data": {"b": 1, "a": 2}})).unwrap();
    assert_eq!(notification.alert.unwrap().title.as_deref(), Some("t"));
    assert_eq!(notification.data.as_deref(), Some(r#"{"b":1,"a":2}"#));
}

#[test]
fn one_field_by_two_names() {
    let code = |fields: &[(&str, &str)]| form(fields).expect_err("it is wrong").code;
    assert_eq!(code(&[("alert", "a"), ("body", "b")]), "invalid_body");
    assert_eq!(code(&[("ttl", "1"), ("time_to_live", "2")]), "invalid_ttl");
    assert!(form(&[("alert", "a"), ("body", "a"), ("time_to_live", "2")]).is_ok());
}

#[test]
fn critical_is_a_flag() {
    let sound = |critical: &str| {
        let text = format!(r#"{{"sound":{{"name":"s","volume":0.5,"critical":{critical}}}}}"#);
        strict(serde_json::from_str(&text).unwrap())
    };
    for yes in ["1", "1.0", "true", "1e0"] {
        let sound = sound(yes).unwrap().sound;
        assert!(matches!(sound, Some(Sound::Critical(_))), "{yes}: {sound:?}");
    }
    for no in ["0", "0.0", "false", "null"] {
        assert_eq!(sound(no).unwrap().sound, Some(Sound::Named("s".into())), "{no}");
    }
    for neither in ["\"1\"", "\"true\"", "2", "[]", "0.5"] {
        let error = sound(neither).expect_err(neither);
        assert_eq!(
            (&*error.code, &*error.message),
            ("invalid_sound", "critical in sound must be true, false, 1 or 0")
        );
    }
}

#[test]
fn numbers_stay_as_they_are_written() {
    let text = r#"{"data":{"z":12345678901234567890123,"a":10.50},"relevance_score":0.50}"#;
    let notification = strict(serde_json::from_str(text).unwrap()).unwrap();
    assert_eq!(notification.data.as_deref(), Some(r#"{"z":12345678901234567890123,"a":10.50}"#));
    assert_eq!(notification.options, [("relevance_score".into(), "0.50".into())]);
    let form = form(&[("data", r#"{"z":1.0,"m":1E5}"#)]).unwrap();
    assert_eq!(form.data.as_deref(), Some(r#"{"z":1.0,"m":1E5}"#));
}

#[test]
fn texts_to_look_up_and_raw_payloads() {
    let fields = json!({
        "title_loc_key": "T", "title_loc_args": ["a", "b"], "priority": 10, "ttl": 0, "sound": "default",
        "apns": {"aps": {"badge": 1}},
    });
    let notification = strict(fields).unwrap();
    let title = notification.alert.unwrap().title_localized.unwrap();
    assert_eq!((title.key.as_str(), title.arguments), ("T", vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(notification.priority, Some(Priority::High));
    assert_eq!(notification.time_to_live, Some(0));
    assert_eq!(notification.sound, Some(Sound::Default));
    assert_eq!(notification.native.as_deref(), Some(r#"{"aps":{"badge":1}}"#));
    assert!(strict(json!({"apns": "text"})).is_err());
    let error = strict(json!({"body_loc_key": "K", "body_loc_args": ["a", 2]})).expect_err("a number");
    assert_eq!(error.message, "each argument in body_loc_args must be a text");
}

#[test]
fn an_alert_object_without_an_option_of_that_name() {
    let notification = strict(json!({"alert": {"title": "t", "body": "b"}})).unwrap();
    assert_eq!(notification.alert.unwrap().title.as_deref(), Some("t"));
    assert_eq!(strict(json!({"alert": {"nonsense": 1}})).expect_err("unknown part").code, "invalid_alert");
}

/// A number from 1 to 9 and a text of at most three bytes, which is required.
fn bounded() -> [Field; 2] {
    let [number, text] = [("level", ValueKind::Integer, &[][..]), ("auth", ValueKind::Text, &[])]
        .map(|field| manifest(&[field]).options.remove(0));
    let number = Field { minimum: Some(1.0), maximum: Some(9.0), unit: Some("steps".into()), ..number };
    [number, Field { max_length: Some(3), required: true, ..text }]
}

#[test]
fn ranges_and_lengths_and_what_is_required() {
    let manifest = ProviderManifest { options: bounded().to_vec(), ..manifest(&[]) };
    let check = |fields: Value| {
        let Value::Object(fields) = fields else { panic!("an object") };
        from_json(fields, &manifest, &[])
    };
    assert!(check(json!({"level": 9, "auth": "abc"})).is_ok());
    let error = check(json!({"level": 10, "auth": "abcd", "badge": "x"})).unwrap_err();
    assert_eq!((&*error.code, &*error.message), ("invalid_level", "level must be from 1 to 9 steps"));
    let more: Vec<_> = error.more.unwrap().into_iter().map(|error| error.message).collect();
    assert_eq!(more[..2], ["auth must be at most 3 bytes", "badge must be an integer from 0 to 4294967295"]);
    let error = check(json!({})).unwrap_err();
    assert_eq!((&*error.code, error.more), ("missing_auth", None));
}

#[test]
fn options_of_a_target() {
    let manifest = ProviderManifest { target_options: bounded().to_vec(), ..manifest(&[]) };
    let check = |options: &[(&str, &str)]| {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        check_recipient(
            &Recipient { target: Target::Url("https://push.example/".into()), options },
            &manifest,
        )
    };
    assert_eq!(check(&[("auth", "\"abc\""), ("level", "1")]), Ok(()));
    assert_eq!(check(&[("level", "1")]).unwrap_err().message, "auth is required for the target");
    let error = check(&[("auth", "\"abcd\""), ("aut", "1")]).unwrap_err();
    assert_eq!(error.code, "invalid_auth");
    let more = error.more.unwrap();
    assert_eq!(more[0].message, "aut is not an option of a target for apns; did you mean auth?");
    let mut fields =
        BTreeMap::from([("auth".to_owned(), b"abc".to_vec()), ("alert".to_owned(), b"hi".to_vec())]);
    let mut typed = json!({"level": 2}).as_object().unwrap().clone();
    let options = take_target_options(&mut fields, &mut typed, &manifest).unwrap();
    assert_eq!(options, [("level".into(), "2".into()), ("auth".into(), "\"abc\"".into())]);
    assert!(fields.contains_key("alert") && fields.len() == 1 && typed.is_empty());
}

#[test]
fn what_is_written_is_read_as_the_same_notification() {
    let all = json!({
        "title": "t", "subtitle": "s", "body": "b", "image": "https://example.com/i.png",
        "title_loc_key": "T", "title_loc_args": ["1", "2"], "body_loc_key": "B",
        "badge": 0, "sound": {"name": "siren", "volume": 0.25, "critical": 1}, "category": "c", "thread": "th",
        "data": {"n": 1.50, "deep": {"a": [null]}}, "collapse_key": "k", "ttl": 60, "priority": "low",
        "identifier": "i", "push_type": "voip", "relevance_score": 0.10, "apns": {"aps": {"x": 1}},
    });
    for fields in [all, json!({}), json!({"sound": "default", "priority": "high"}), json!({"sound": "a.caf"})]
    {
        let notification = strict(fields.clone()).unwrap();
        let written = to_json(&notification, "apns");
        assert_eq!(strict(Value::Object(written)).unwrap(), notification, "{fields}");
    }
}
