#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::contract::manifest::Field;
use crate::contract::{Priority, Sound};

fn manifest(options: &[(&str, ValueKind, &[&str])]) -> ProviderManifest {
    let field = |(name, kind, choices): &(&str, ValueKind, &[&str])| Field {
        name: (*name).into(),
        kind: *kind,
        choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
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
    from_form(fields, &manifest(&options))
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
fn a_form_knows_the_options_and_passes_over_the_rest() {
    let notification =
        form(&[("content_available", "1"), ("push_type", "voip"), ("utm", "x"), ("badge", "")]).unwrap();
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
}

#[test]
fn an_alert_object_without_an_option_of_that_name() {
    let notification = strict(json!({"alert": {"title": "t", "body": "b"}})).unwrap();
    assert_eq!(notification.alert.unwrap().title.as_deref(), Some("t"));
    assert_eq!(strict(json!({"alert": {"nonsense": 1}})).expect_err("unknown part").code, "invalid_alert");
}
