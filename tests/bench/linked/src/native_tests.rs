use std::sync::Arc;

use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_sandbox::{
    BUILT_IN, ComponentTrust, Instances, Provider, Sandbox, SandboxLimits, check_encoded, check_replies,
};

use super::*;

const TOKENS: [&str; 2] = ["00fe15a27d5df3c34778defb1f4f3880", "a:b"];

/// A notification in which everything is set that can be.
fn full() -> contract::Notification {
    let text = |text: &str| Some(text.to_owned());
    let localized =
        |key: &str| Some(contract::Localized { key: key.into(), arguments: vec!["Ada".into(), "7".into()] });
    contract::Notification {
        alert: Some(contract::Alert {
            title: text("Order 7"),
            subtitle: text("Today"),
            body: text("On its way"),
            image: text("https://pictures.example/7.png"),
            title_localized: localized("TITLE"),
            subtitle_localized: localized("SUBTITLE"),
            body_localized: localized("BODY"),
        }),
        badge: Some(3),
        sound: Some(contract::Sound::Critical(contract::CriticalSound {
            name: "bell.aiff".into(),
            volume: 0.5,
        })),
        category: text("ORDER"),
        thread: text("order-7"),
        data: text(r#"{"order":"7"}"#),
        collapse_key: text("order"),
        time_to_live: Some(3600),
        priority: Some(contract::Priority::High),
        identifier: text("ec1bf194-b3b2-424a-89a9-5a918a6e6b5d"),
        options: Vec::new(),
        native: None,
    }
}

fn application(settings: &[(&str, &str)], credential: &str) -> contract::Application {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    contract::Application {
        id: "app".into(),
        environment: contract::Environment::Development,
        settings: settings.collect(),
        credential: Some(credential.into()),
    }
}

fn answer(status: u16, body: &str) -> codec::Answer {
    let headers = vec![("apns-id".to_owned(), "EC1BF194-B3B2-424A-89A9-5A918A6E6B5D".to_owned())];
    let response = codec::Response { status, headers, body: body.as_bytes().to_vec() };
    codec::Answer { targets: vec![contract::Target::Device(TOKENS[0].into())], response }
}

fn component(sandbox: &Arc<Sandbox>, name: &str) -> Arc<Provider> {
    let (_, bytes) = BUILT_IN.iter().find(|(other, _)| *other == name).unwrap();
    Provider::load(sandbox, bytes, ComponentTrust::BuiltIn, &Arc::default()).unwrap()
}

/// Both give the same, in all that the host makes of it.
fn same(
    native: &dyn NativeCodec,
    provider: &Provider,
    instances: &Instances,
    application: &contract::Application,
    answers: &[codec::Answer],
) {
    let targets = TOKENS.map(|token| contract::Target::Device(token.into()).into());
    let context = contract::Context { now: 1_700_000_000_000, entropy: (0..32).collect() };
    for notification in [full(), contract::Notification { sound: Some(contract::Sound::Default), ..full() }] {
        let encoded = native.encode(&context, application, &notification, &targets);
        let encoded = check_encoded(provider.manifest(), application.environment, targets.len(), encoded);
        let sandboxed = instances.encode(&context, application, &notification, &targets);
        assert_eq!(format!("{encoded:?}"), format!("{sandboxed:?}"));
        assert!(encoded.is_ok());
    }
    for answer in answers {
        let answers = std::slice::from_ref(answer);
        let replies = check_replies(answers, native.decode(&context, application, answers, true));
        let sandboxed = instances.decode(&context, application, answers, true);
        assert_eq!(replies, sandboxed);
        assert!(replies.is_ok());
    }
}

#[test]
fn natively_the_codecs_give_what_their_components_give() {
    let sandbox = Sandbox::new(
        SandboxLimits { instances: 4, ..SandboxLimits::default() },
        Accounts::new(AccountSettings::default()).unwrap(),
    )
    .unwrap();
    let apns = [(200, ""), (410, r#"{"reason":"Unregistered","timestamp":1700000000000}"#)];
    let apns = apns.into_iter().chain([
        (400, r#"{"reason":"BadDeviceToken"}"#),
        (403, r#"{"reason":"ExpiredProviderToken"}"#),
        (403, r#"{"reason":"InvalidProviderToken"}"#),
        (429, r#"{"reason":"TooManyRequests"}"#),
        (503, r#"{"reason":"ServiceUnavailable"}"#),
        (200, "unexpected"),
    ]);
    let google = [
        (200, r#"{"name":"projects/p/messages/1"}"#),
        (
            200,
            r#"{"multicast_id":1,"success":1,"failure":0,"canonical_ids":1,"results":[{"message_id":"1","registration_id":"new"}]}"#,
        ),
        (
            404,
            r#"{"error":{"code":404,"status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}"#,
        ),
        (401, ""),
        (500, "oops"),
    ];
    let all: [(&str, contract::Application, Vec<codec::Answer>); 3] = [
        (
            "apns",
            application(&[("apns_topic", "com.example.app")], "token"),
            apns.map(|(status, body)| answer(status, body)).collect(),
        ),
        (
            "fcm",
            application(&[("fcm_project_id", "p")], "service-account"),
            google.iter().map(|(status, body)| answer(*status, body)).collect(),
        ),
        (
            "gcm",
            application(&[], "api-key"),
            google.iter().map(|(status, body)| answer(*status, body)).collect(),
        ),
    ];
    for (name, application, answers) in all {
        let provider = component(&sandbox, name);
        let instances = provider.instances(&TenantId::default_tenant());
        let (_, native) = LINKED.iter().find(|(other, _)| *other == name).unwrap();
        same(*native, &provider, &instances, &application, &answers);
    }
}
