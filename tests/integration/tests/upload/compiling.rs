//! The process that compiles: its bounds hold, and nobody else notices.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_sandbox::{
    CompileLimits, ComponentCompiler, ComponentTrust, LoadError, ProviderLoader, Sandbox, SandboxLimits,
};
use serde_json::json;

use super::{PROGRAM, UploadFixture, result};
use crate::guests::crafted::provider;
use crate::guests::fixture::component;
use crate::harness::expect;

const MINUTE: Duration = Duration::from_secs(60);

fn load(bytes: &[u8], limits: CompileLimits) -> Result<(), LoadError> {
    let compiler = ComponentCompiler { program: PROGRAM.into(), limits };
    let loader = ProviderLoader::new(
        Sandbox::new(SandboxLimits::default(), Accounts::new(AccountSettings::default()).unwrap()).unwrap(),
        compiler,
    );
    loader.load(bytes, ComponentTrust::Uploaded, &Arc::default()).map(|_| ())
}

fn limits() -> CompileLimits {
    CompileLimits { memory: 2 << 30, cpu: MINUTE, time: MINUTE }
}

/// Within all bounds of size, and far more work than its size says.
pub fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let branch = "(if (result i32) (local.get 0) (then (local.get 1)) (else (i32.load (local.get 0)))) (local.set 0) ";
        let function = format!("(func (param i32 i32) (result i32) {} (local.get 0))", branch.repeat(30_000));
        provider(&function.repeat(4))
    })
}

#[test]
fn a_bomb_ends_with_its_cpu_time() {
    // So much memory that the time is up first.
    let limits = CompileLimits { cpu: Duration::from_secs(1), memory: 64 << 30, ..limits() };
    let error = load(bomb(), limits).unwrap_err();
    assert_eq!(error, LoadError::TooCostly("more than 1 s of CPU time".into()));
    assert_eq!(error.code(), "component_too_complex");
}

#[test]
fn a_bomb_ends_with_its_wall_clock_time() {
    let limits = CompileLimits { time: Duration::from_millis(300), ..limits() };
    assert_eq!(load(bomb(), limits), Err(LoadError::TooCostly("longer than 0.3 s".into())));
}

#[test]
fn a_bomb_ends_with_its_memory() {
    // Enough for the program itself and for sound components.
    let limits = CompileLimits { memory: 400 << 20, ..limits() };
    assert_eq!(load(component("webhook"), limits.clone()), Ok(()));
    let error = load(bomb(), limits).unwrap_err();
    assert_eq!(error, LoadError::TooCostly(format!("more than {} bytes of memory", 400 << 20)));
}

#[test]
fn a_program_that_is_no_compiler_is_our_fault() {
    let loader = |program: &str| {
        let compiler = ComponentCompiler { program: program.into(), limits: limits() };
        ProviderLoader::new(
            Sandbox::new(SandboxLimits::default(), Accounts::new(AccountSettings::default()).unwrap())
                .unwrap(),
            compiler,
        )
    };
    for program in ["/no/such/program", "/bin/false"] {
        let error = loader(program).load(component("webhook"), ComponentTrust::Uploaded, &Arc::default());
        assert!(matches!(error, Err(LoadError::NoCompiler(_))), "{program}");
    }
}

#[tokio::test]
async fn the_others_go_on_while_a_bomb_is_compiled() {
    let fixture = UploadFixture::with("providers.compile_cpu = \"2s\"").await;
    expect(fixture.upload("webhook", component("webhook")), 200).await;
    fixture.register("app").await;
    let bomb = tokio::spawn(fixture.upload("guest", bomb()).send());
    let (start, mut sent) = (Instant::now(), 0);
    while !bomb.is_finished() {
        assert_eq!(result(fixture.send(&json!({"body": "x"}))).await.0, "delivered");
        sent += 1;
        assert!(start.elapsed() < MINUTE, "the bomb is still compiled");
    }
    let response = bomb.await.unwrap().unwrap();
    assert_eq!(response.status(), 400);
    assert!(response.text().await.unwrap().contains("component_too_complex"));
    assert!(sent > 1, "{sent} pushes meanwhile");
}
