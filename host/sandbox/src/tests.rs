#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use super::*;
use pushlet_model::contract::codec::{Answer, Response};
use pushlet_model::contract::{Alert, Application, Context, Disposition, Environment, Notification, Target};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{AccountSettings, Accounts};

fn load(sandbox: &Arc<Sandbox>, bytes: &[u8]) -> Result<Arc<Provider>, LoadError> {
    Provider::load(sandbox, bytes, ComponentTrust::BuiltIn, &Arc::default())
}

fn apns(limits: SandboxLimits) -> Arc<Provider> {
    let sandbox = Sandbox::new(limits, Accounts::new(AccountSettings::default()).unwrap()).unwrap();
    let (_, bytes) = BUILT_IN.iter().find(|(name, _)| *name == "apns").unwrap();
    load(&sandbox, bytes).unwrap()
}

fn application() -> Application {
    Application {
        id: "app".into(),
        environment: Environment::Production,
        settings: vec![("apns_topic".into(), "com.example.app".into())],
        credential: Some("certificate".into()),
    }
}

fn context() -> Context {
    Context { now: 1_700_000_000_000, entropy: vec![7; 32] }
}

fn hello() -> Notification {
    let alert = Alert { body: Some("hello".into()), ..Alert::default() };
    Notification { alert: Some(alert), ..Notification::default() }
}

fn encode(instances: &Instances) -> PreparedRequests {
    let targets = ["aa", "bb"].map(|token| Target::Device(token.repeat(32)).into());
    instances.encode(&context(), &application(), &hello(), &targets).unwrap()
}

#[test]
fn the_built_in_apns_component_encodes_and_decodes() {
    let provider = apns(SandboxLimits::default());
    assert_eq!(provider.manifest().name, "apns");
    let instances = provider.instances(&TenantId::default_tenant());
    let prepared = encode(&instances);
    assert_eq!(prepared.messages.len(), 1, "one body for both devices");
    assert_eq!(&prepared.messages[0].body[..], br#"{"aps":{"alert":"hello"}}"#);
    assert_eq!(prepared.exchanges[1].path, format!("/3/device/{}", "bb".repeat(32)));

    let response = Response {
        status: 410,
        headers: vec![],
        body: br#"{"reason":"Unregistered","timestamp":1600000000000}"#.to_vec(),
    };
    let answer = Answer { targets: vec![Target::Device("aa".repeat(32))], response };
    let replies = instances.decode(&context(), &application(), &[answer], false).unwrap();
    assert_eq!(replies[0].outcomes[0].disposition, Disposition::Unregistered(Some(1_600_000_000_000)));
}

#[test]
fn the_same_call_gives_the_same_bytes_warm_or_fresh() {
    let warm = apns(SandboxLimits::default()).instances(&TenantId::default_tenant());
    let limits = SandboxLimits { isolation: InstanceIsolation::PerCall, ..SandboxLimits::default() };
    let fresh = apns(limits).instances(&TenantId::default_tenant());
    let expected = format!("{:?}", encode(&warm));
    for _ in 0..3 {
        assert_eq!(format!("{:?}", encode(&warm)), expected);
        assert_eq!(format!("{:?}", encode(&fresh)), expected);
    }
}

#[test]
fn a_file_that_is_no_component_is_refused_with_a_reason() {
    let limits = SandboxLimits { component: 100, ..SandboxLimits::default() };
    let sandbox = Sandbox::new(limits, Accounts::new(AccountSettings::default()).unwrap()).unwrap();
    assert!(matches!(load(&sandbox, &[0; 101]), Err(LoadError::TooLarge { size: 101, limit: 100 })));
    assert!(matches!(load(&sandbox, b"\0asm\x01\0\0\0"), Err(LoadError::Invalid(_))), "a core module");
    assert!(matches!(load(&sandbox, b"text"), Err(LoadError::Invalid(_))));
    // An empty component: valid, but of no world.
    let empty = b"\0asm\x0d\0\x01\0";
    assert!(matches!(load(&sandbox, empty), Err(LoadError::WrongWorld(_))));
}

#[test]
fn idle_instances_go_after_some_sweeps_and_the_last_used_stay() {
    let provider = apns(SandboxLimits::default());
    let (a, b) = (provider.instances(&TenantId::new("a")), provider.instances(&TenantId::new("b")));
    let sandbox = &provider.loaded.sandbox;
    encode(&a);
    for _ in 0..3 {
        assert_eq!(a.idle(), 1);
        encode(&b);
        sandbox.idle.sweep(2);
    }
    assert_eq!((a.idle(), b.idle()), (0, 1));
    encode(&a);
    assert_eq!(sandbox.idle.evict(1), 1);
    assert_eq!(sandbox.idle.evict(usize::MAX), 1);
    assert_eq!((a.idle(), b.idle()), (0, 0));
}
