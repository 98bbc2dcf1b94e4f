//! The process that compiles: its bounds hold, and nobody else notices.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use pushlet::provider::{CompileLimits, Compiler, Limits, LoadError, Loader, Sandbox, Trust};
use serde_json::json;

use super::{PROGRAM, Scene, result, variant};
use crate::guests::crafted::provider;
use crate::guests::stage::component;
use crate::world::expect_error;

const MINUTE: Duration = Duration::from_secs(60);

fn load(bytes: &[u8], limits: CompileLimits) -> Result<(), LoadError> {
    let compiler = Compiler { program: PROGRAM.into(), limits };
    let loader = Loader::new(Sandbox::new(Limits::default()).unwrap(), compiler);
    loader.load(bytes, Trust::Uploaded, &Arc::default()).map(|_| ())
}

fn limits() -> CompileLimits {
    CompileLimits { memory: 2 << 30, cpu: MINUTE, time: MINUTE }
}

/// Within all bounds of size, and far more work than its size says.
fn bomb() -> Vec<u8> {
    let mut functions = String::new();
    for number in 0..400 {
        write!(functions, "(func (param i32) (result i32) (local i64 i64 f64)").unwrap();
        for depth in 0..600 {
            write!(functions, "(if (result i32) (i32.and (local.get 0) (i32.const {depth})) (then (i32.const {number})) (else (i32.load offset={depth} (local.get 0)))) (local.set 0)").unwrap();
        }
        functions.push_str("(local.get 0))");
    }
    provider(&functions)
}

#[test]
fn a_bomb_ends_with_its_cpu_time() {
    let limits = CompileLimits { cpu: Duration::from_secs(1), ..limits() };
    let error = load(&bomb(), limits).unwrap_err();
    assert_eq!(error, LoadError::TooCostly("more than 1 s of CPU time".into()));
    assert_eq!(error.code(), "component_too_complex");
}

#[test]
fn a_bomb_ends_with_its_wall_clock_time() {
    let limits = CompileLimits { time: Duration::from_millis(300), ..limits() };
    assert_eq!(load(&bomb(), limits), Err(LoadError::TooCostly("longer than 0.3 s".into())));
}

#[test]
fn a_bomb_ends_with_its_memory() {
    // Enough for the program itself and for sound components.
    let limits = CompileLimits { memory: 400 << 20, ..limits() };
    assert_eq!(load(component("webhook"), limits.clone()), Ok(()));
    let error = load(&bomb(), limits).unwrap_err();
    assert_eq!(error, LoadError::TooCostly(format!("more than {} bytes of memory", 400 << 20)));
}

#[test]
fn a_program_that_is_no_compiler_is_our_fault() {
    let loader = |program: &str| {
        let compiler = Compiler { program: program.into(), limits: limits() };
        Loader::new(Sandbox::new(Limits::default()).unwrap(), compiler)
    };
    for program in ["/no/such/program", "/bin/false"] {
        let error = loader(program).load(component("webhook"), Trust::Uploaded, &Arc::default());
        assert!(matches!(error, Err(LoadError::NoCompiler(_))), "{program}");
    }
}

#[tokio::test]
async fn the_others_go_on_while_a_bomb_is_compiled() {
    let scene = Scene::with("providers.compile_cpu = \"2s\"").await;
    crate::world::expect(scene.upload("webhook", component("webhook")), 200).await;
    scene.register("app").await;
    let bomb = tokio::spawn(scene.upload("guest", &bomb()).send());
    let mut sent = 0;
    while !bomb.is_finished() {
        assert_eq!(result(scene.send(&json!({"body": "x"}))).await.0, "delivered");
        sent += 1;
        if sent == 1 {
            let request = scene.upload("webhook", &variant("webhook", 9));
            expect_error(request, 409, "change_under_way").await;
        }
    }
    let response = bomb.await.unwrap().unwrap();
    assert_eq!(response.status(), 400);
    assert!(response.text().await.unwrap().contains("component_too_complex"));
    assert!(sent > 10, "{sent} pushes meanwhile");
}
