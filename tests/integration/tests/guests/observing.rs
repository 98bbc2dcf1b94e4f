//! What a guest can find out beside its arguments: nothing of the machine, the time or other tenants.

use std::sync::Arc;

use pushlet_model::contract::Context;
use pushlet_model::tenant::TenantId;
use pushlet_sandbox::{ComponentTrust, InstanceIsolation, Instances, Provider, Sandbox, SandboxLimits};

use super::fixture::{
    accounts, application, component, context, devices, hello, limits, shared_sandbox, work,
};

fn body(instances: &Instances, context: &Context, id: &str) -> String {
    let application = pushlet_model::contract::Application { id: id.into(), ..application(&[]) };
    let prepared = instances.encode(context, &application, &hello(), &devices(2)).unwrap();
    String::from_utf8(prepared.messages[0].body.to_vec()).unwrap()
}

fn uploaded(sandbox: &Arc<Sandbox>, name: &str) -> Arc<Provider> {
    Provider::load(sandbox, component(name), ComponentTrust::Uploaded, &Arc::default()).unwrap()
}

#[test]
fn the_same_arguments_give_the_same_bytes_everywhere() {
    let observer = uploaded(&shared_sandbox().sandbox, "observer");
    let first = body(&observer.instances(&TenantId::new("observer")), &context(), "app");
    let facts =
        ["elapsed 0ns", "since the epoch 1700000000s", "environment []", "arguments []", "input Ok(0) \"\""];
    for fact in facts {
        assert!(first.lines().any(|line| line == fact), "{fact} in {first}");
    }
    let elsewhere = uploaded(
        &Sandbox::new(SandboxLimits { instances: 10, ..limits() }, accounts(work())).unwrap(),
        "observer",
    );
    for tenant in ["a", "b", "c"] {
        assert_eq!(body(&elsewhere.instances(&TenantId::new(tenant)), &context(), "app"), first);
    }
}

#[test]
fn time_and_randomness_are_the_contexts() {
    let dice = uploaded(&shared_sandbox().sandbox, "dice").instances(&TenantId::new("dice"));
    let roll = |entropy: &[u8]| {
        let context = Context { entropy: entropy.to_vec(), ..context() };
        let application = application(&[("do", "16")]);
        let prepared = dice.encode(&context, &application, &hello(), &devices(1)).unwrap();
        prepared.messages[0].body.clone()
    };
    assert_eq!(roll(b"one"), roll(b"one"), "warm or fresh");
    assert_ne!(roll(b"one"), roll(b"two"));
    let observer = uploaded(&shared_sandbox().sandbox, "observer").instances(&TenantId::new("late observer"));
    let later = Context { now: 1_800_000_000_123, ..context() };
    assert!(body(&observer, &later, "app").contains("since the epoch 1800000000.123s"));
}

/// The interfaces are linked, because every runtime imports them; nothing is behind them.
#[test]
fn files_and_sockets_answer_an_error() {
    let guest = uploaded(&shared_sandbox().sandbox, "filesystem").instances(&TenantId::new("files"));
    let body = body(&guest, &context(), "app");
    assert_eq!(body.lines().count(), 9, "{body}");
    for line in body.lines() {
        assert!(!line.ends_with(": done"), "{body}");
    }
    for line in ["connect: PermissionDenied", "datagram: PermissionDenied"] {
        assert!(body.lines().any(|found| found == line), "{line} in {body}");
    }
}

#[test]
fn what_one_call_saw_no_other_tenant_learns() {
    let provider = uploaded(&shared_sandbox().sandbox, "memory_of_calls");
    let (a, b) = (provider.instances(&TenantId::new("a")), provider.instances(&TenantId::new("b")));
    assert_eq!(body(&a, &context(), "first"), "first");
    assert_eq!(body(&a, &context(), "second"), "first second", "an instance is warm for its own tenant");
    assert_eq!(body(&b, &context(), "third"), "third");
}

#[test]
fn what_one_call_saw_no_other_call_learns_where_each_has_its_own_instance() {
    let sandbox =
        Sandbox::new(SandboxLimits { isolation: InstanceIsolation::PerCall, ..limits() }, accounts(work()))
            .unwrap();
    let instances = uploaded(&sandbox, "memory_of_calls").instances(&TenantId::new("a"));
    for id in ["first", "second", "third"] {
        assert_eq!(body(&instances, &context(), id), id);
    }
}
