//! What tenants have of the machine: turns, CPU time, idle instances; and the end of a tenant's patience.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::WorkLimits;
use pushlet_sandbox::{
    BreakerPolicy, ComponentTrust, Instances, Provider, ProviderError, Sandbox, SandboxLimits,
};

use super::fixture::{
    Call, accounts, apns, application, call, component, limits, panicked, shared_sandbox, work,
};

fn uploaded(sandbox: &Arc<Sandbox>, name: &str) -> Arc<Provider> {
    Provider::load(sandbox, component(name), ComponentTrust::Uploaded, &Arc::default()).unwrap()
}

fn tenant(number: usize) -> TenantId {
    TenantId::new(&format!("tenant {number}"))
}

fn encode(instances: &Instances, task: &str) -> Result<(), ProviderError> {
    call(instances, Call::Encode, &application(&[("do", task)])).map(|_| ())
}

#[test]
fn a_component_that_keeps_failing_is_quarantined_for_its_tenant() {
    let policy = BreakerPolicy { failures: 3, pause: Duration::from_secs(3600), ..BreakerPolicy::default() };
    let sandbox = Sandbox::new(SandboxLimits { breaker: policy, ..limits() }, accounts(work())).unwrap();
    let provider = uploaded(&sandbox, "trap");
    let (failing, other) = (provider.instances(&tenant(1)), provider.instances(&tenant(2)));
    for _ in 0..3 {
        assert_eq!(failing.quarantined(), None);
        let trap = panicked("wasm trap: wasm `unreachable` instruction executed");
        assert_eq!(encode(&failing, "unreachable"), Err(trap));
    }
    let Err(ProviderError::Quarantined { retry_after }) = encode(&failing, "") else { panic!("quarantined") };
    assert!(retry_after <= policy.pause && retry_after > policy.pause / 2, "{retry_after:?}");
    assert!(failing.quarantined().is_some());
    assert_eq!(encode(&other, ""), Ok(()), "another tenant of the same component");
    assert_eq!(failing.failures(), 3);
}

#[test]
fn after_the_pause_one_good_call_ends_the_quarantine() {
    let policy = BreakerPolicy { failures: 2, pause: Duration::from_millis(50), ..BreakerPolicy::default() };
    let sandbox = Sandbox::new(SandboxLimits { breaker: policy, ..limits() }, accounts(work())).unwrap();
    let instances = uploaded(&sandbox, "trap").instances(&tenant(1));
    (0..2).for_each(|_| _ = encode(&instances, "unreachable").unwrap_err());
    assert!(matches!(encode(&instances, ""), Err(ProviderError::Quarantined { .. })));
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(encode(&instances, ""), Ok(()));
    encode(&instances, "unreachable").unwrap_err();
    assert_eq!(encode(&instances, ""), Ok(()), "the count starts anew");
}

#[test]
fn answers_that_break_the_contract_open_no_breaker() {
    let policy = BreakerPolicy { failures: 1, ..BreakerPolicy::default() };
    let sandbox = Sandbox::new(SandboxLimits { breaker: policy, ..limits() }, accounts(work())).unwrap();
    let instances = uploaded(&sandbox, "paths").instances(&tenant(1));
    // They may come from what a caller sent.
    (0..3).for_each(|_| assert!(matches!(encode(&instances, "no path"), Err(ProviderError::BadOutput(_)))));
    assert_eq!(encode(&instances, "/path"), Ok(()));
    assert_eq!(instances.failures(), 3);
}

#[test]
fn a_tenant_that_uses_up_its_cpu_time_waits_and_nobody_else_does() {
    let work = WorkLimits {
        cpu_per_second: Duration::from_micros(1),
        cpu_burst: Duration::from_millis(20),
        ..work()
    };
    let sandbox = Sandbox::new(limits(), accounts(work)).unwrap();
    let (busy, second) = (uploaded(&sandbox, "busy"), uploaded(&sandbox, "paths"));
    let (greedy, other) = (busy.instances(&tenant(1)), busy.instances(&tenant(2)));
    let mut calls = 0;
    let error = loop {
        match encode(&greedy, "3000000") {
            Ok(()) => calls += 1,
            Err(error) => break error,
        }
        assert!(calls < 1_000_000, "never stopped");
    };
    let ProviderError::CpuLimit { retry_after } = error else { panic!("{error:?}") };
    assert!(retry_after > Duration::ZERO && calls > 0);
    assert!(
        matches!(encode(&second.instances(&tenant(1)), "/"), Err(ProviderError::CpuLimit { .. })),
        "all its components together"
    );
    assert_eq!(encode(&other, "1"), Ok(()));
    let built_in = apns(&sandbox).instances(&tenant(1));
    call(&built_in, Call::Encode, &application(&[("apns_topic", "com.example")])).unwrap();
}

/// One worker thread, and a guest that spins on it: the other tasks go on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_spinning_guest_does_not_hold_up_the_runtime() {
    let endless = uploaded(&shared_sandbox().sandbox, "endless").instances(&tenant(1));
    let spinning = tokio::spawn(async move { endless.run(|endless| encode(endless, "encode")).await });
    let mut turns = 0;
    while !spinning.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        turns += 1;
        assert!(turns < 6000, "the guest still runs after a minute");
    }
    assert_eq!(spinning.await.unwrap(), Err(ProviderError::TimedOut));
    assert!(turns > 5, "the other task had {turns} turns in a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_are_limited_per_tenant_and_in_all() {
    let work = WorkLimits { calls: 2, calls_per_tenant: 1, wait: Duration::from_millis(50), ..work() };
    let sandbox = Sandbox::new(limits(), accounts(work)).unwrap();
    let provider = uploaded(&sandbox, "endless");
    let spin = |number| {
        let instances = provider.instances(&tenant(number));
        tokio::spawn(async move { instances.run(|instances| encode(instances, "encode")).await })
    };
    let good = |number| {
        let instances = provider.instances(&tenant(number));
        async move { instances.run(|instances| encode(instances, "")).await }
    };
    let first = spin(1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(good(1).await, Err(ProviderError::Exhausted), "its own turn is taken");
    assert_eq!(good(2).await, Ok(()), "another tenant's is not");
    let second = spin(2);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(good(3).await, Err(ProviderError::Exhausted), "both places are taken");
    let built_in = apns(&sandbox).instances(&tenant(1));
    let apns = |apns: &Instances| call(apns, Call::Encode, &application(&[("apns_topic", "com.example")]));
    built_in.run(apns).await.unwrap();
    assert_eq!(first.await.unwrap(), Err(ProviderError::TimedOut));
    assert_eq!(second.await.unwrap(), Err(ProviderError::TimedOut));
    assert_eq!(good(3).await, Ok(()));
}

#[test]
fn idle_instances_make_room_for_others() {
    let sandbox = Sandbox::new(SandboxLimits { instances: 8, ..limits() }, accounts(work())).unwrap();
    let provider = apns(&sandbox);
    let tenants: Vec<_> = (0..30).map(|number| provider.instances(&tenant(number))).collect();
    for instances in &tenants {
        call(instances, Call::Encode, &application(&[("apns_topic", "com.example")])).unwrap();
    }
    let idle =
        |from: usize, to: usize| tenants[from..to].iter().map(|instances| instances.idle()).sum::<usize>();
    assert!(idle(0, 30) <= 8 && idle(29, 30) == 1, "{}", idle(0, 30));
}

#[test]
fn idle_instances_have_bounded_memory() {
    let limits = SandboxLimits { idle_memory_in_all: 80 << 20, idle_memory: 70 << 20, ..limits() };
    let sandbox = Sandbox::new(limits, accounts(work())).unwrap();
    let provider = uploaded(&sandbox, "hog");
    let tenants: Vec<_> = (0..4).map(|number| provider.instances(&tenant(number))).collect();
    for instances in &tenants {
        encode(instances, "grow").unwrap();
    }
    let idle: Vec<_> = tenants.iter().map(|instances| instances.idle()).collect();
    assert_eq!(idle.iter().sum::<usize>(), 1, "64 MiB each, 80 MiB in all: {idle:?}");
    assert_eq!(idle[3], 1, "the last one used: {idle:?}");
}

#[test]
fn a_forgotten_tenant_holds_nothing() {
    let provider = uploaded(&shared_sandbox().sandbox, "memory_of_calls");
    encode(&provider.instances(&tenant(77)), "").unwrap();
    assert_eq!(provider.instances(&tenant(77)).idle(), 1);
    provider.forget(&tenant(77));
    assert_eq!(provider.instances(&tenant(77)).idle(), 0);
}

/// What 1,000 tenants with a warm instance each take, measured in a process of its own.
#[test]
fn a_thousand_idle_tenants_are_small() {
    const ALONE: &str = "PUSHLET_IT_ALONE";
    let name = "guests::tenants::a_thousand_idle_tenants_are_small";
    if std::env::var_os(ALONE).is_none() {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    // The machine may be busy: no call is to end because it had to wait.
    let limits =
        SandboxLimits { instances: 1100, call_timeout: Duration::from_secs(60), ..SandboxLimits::default() };
    let sandbox = Sandbox::new(limits, accounts(work())).unwrap();
    let provider = apns(&sandbox);
    let application = application(&[("apns_topic", "com.example")]);
    let warm = |tenants: std::ops::Range<usize>| {
        for number in tenants {
            let instances = provider.instances(&tenant(number));
            call(&instances, Call::Encode, &application).unwrap();
            call(&instances, Call::Decode, &application).unwrap();
            assert_eq!(instances.idle(), 1);
        }
    };
    warm(0..1);
    let (memory, threads) = (status("VmRSS"), status("Threads"));
    warm(1..1001);
    let each = (status("VmRSS") - memory) / 1000;
    println!("{each} KiB for each idle tenant");
    assert!(each < 150, "{each} KiB for each idle tenant");
    assert_eq!(status("Threads"), threads);
}

/// A number of /proc/self/status.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A caller that stops to take its results must not keep the turn that it was given.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_go_on_holds_no_turn() {
    let work = WorkLimits { calls: 1, calls_per_tenant: 1, wait: Duration::from_secs(30), ..work() };
    let sandbox = Sandbox::new(limits(), accounts(work)).unwrap();
    let provider = uploaded(&sandbox, "endless");
    let (a, b) = (provider.instances(&tenant(1)), provider.instances(&tenant(2)));
    let mut stuck = Box::pin(a.run(|instances| encode(instances, "encode")));
    let mut queued = Box::pin(a.run(|instances| encode(instances, "")));
    // Both are begun, and polled no more.
    assert!((&mut stuck).now_or_never().is_none() && (&mut queued).now_or_never().is_none());
    assert_eq!(b.run(|instances| encode(instances, "")).await, Ok(()));
    assert_eq!((stuck.await, queued.await), (Err(ProviderError::TimedOut), Ok(())));
}
