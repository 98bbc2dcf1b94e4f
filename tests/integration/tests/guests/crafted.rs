//! Binaries that no compiler makes: bombs, lying sections, parts without end.

use std::fmt::Write;

use proptest::prelude::*;
use pushlet_sandbox::{LoadError, ProviderError};
use wasm_encoder::{Component, InstanceSection, ModuleArg, RawSection};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

use super::fixture::{panicked, shared_sandbox};

const CONTRACT: &str = include_str!("../../../../wit/provider.wit");

/// A core module with the exports of the contract: a manifest that is all zeros, and what `more` says.
fn module(more: &str) -> Vec<u8> {
    module_for("1.0.0", more)
}

fn module_for(version: &str, more: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "pushlet:provider/manifest@{version}#describe") (result i32) i32.const 0)
            (func (export "pushlet:provider/codec@{version}#check-application")
                (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 0)
            (func (export "pushlet:provider/codec@{version}#encode") (param i32) (result i32) i32.const 0)
            (func (export "pushlet:provider/codec@{version}#decode")
                (param i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 0)
            {more}
        )"#
    );
    wat::parse_str(text).unwrap()
}

/// A component of the world in `contract` around a core module.
fn component(contract: &str, mut module: Vec<u8>) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("provider.wit", contract).unwrap();
    let world = resolve.select_world(&[package], Some("http-provider")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

/// A component of the world `http-provider` in another contract, none of whose functions does anything.
pub fn idle_component(contract: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("provider.wit", contract).unwrap();
    let world = resolve.select_world(&[package], Some("http-provider")).unwrap();
    component(contract, dummy_module(&resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync)))
}

pub fn provider(more: &str) -> Vec<u8> {
    component(CONTRACT, module(more))
}

/// The component, and `count` more instances of one more core module in it.
fn with_instances(mut component: Vec<u8>, extra: &str, count: usize) -> Vec<u8> {
    let mut section = |id: u8, data: &[u8]| {
        let mut more = Component::new();
        more.section(&RawSection { id, data });
        component.extend_from_slice(&more.finish()[8..]);
    };
    let core_module = 1;
    section(core_module, &wat::parse_str(extra).unwrap());
    let mut instances = InstanceSection::new();
    // The encoder made one module, so that the next one has index 1.
    (0..count).for_each(|_| _ = instances.instantiate::<[(&str, ModuleArg); 0], &str>(1, []));
    let mut more = Component::new();
    more.section(&instances);
    component.extend_from_slice(&more.finish()[8..]);
    component
}

/// One of each kind, with the code that its upload gets.
pub fn bombs() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let (broken, complex, invalid) = ("broken_component", "component_too_complex", "invalid_component");
    let post = "cabi_post_pushlet:provider/manifest@1.0.0#describe";
    let imports: String = (0..2_001).map(|count| format!(r#"(import "i{count}" (instance))"#)).collect();
    let newer = CONTRACT.replace("pushlet:provider@1.0.0", "pushlet:provider@1.1.0");
    let instances = |module: &str, count| with_instances(provider(""), module, count);
    vec![
        ("endless start", provider("(func $start (loop $l (br $l))) (start $start)"), broken),
        ("start that recurses", provider("(func $start (call $start)) (start $start)"), broken),
        (
            "endless afterwards",
            provider(&format!(r#"(func (export "{post}") (param i32) (loop $l (br $l)))"#)),
            broken,
        ),
        ("huge function", provider(&format!("(func {})", "i32.const 1 drop ".repeat(200_000))), complex),
        ("many locals", provider(&format!("(func (local {}))", "i64 ".repeat(10_001))), complex),
        ("many functions", provider(&"(func)".repeat(100_001)), complex),
        ("many imports", wat::parse_str(format!("(component {imports})")).unwrap(), complex),
        ("many instances", instances("(module)", 300), complex),
        ("large memories", instances("(module (memory 352))", 3), broken),
        ("many memories", instances("(module (memory 1))", 5), invalid),
        ("large table", instances("(module (table 60000 funcref))", 2), broken),
        ("another version", component(&newer, module_for("1.1.0", "")), "wrong_contract_version"),
        ("another world", wat::parse_str("(component)").unwrap(), "wrong_world"),
        ("cut off", provider("")[..200].to_vec(), invalid),
    ]
}

fn load(bytes: &[u8]) -> LoadError {
    let shared = shared_sandbox();
    shared.with_victim_running(|| shared.load(bytes).map(|_| ()).unwrap_err())
}

fn too_complex(what: &'static str, limit: usize) -> LoadError {
    LoadError::TooComplex { what, limit }
}

fn invalid(bytes: &[u8], expected: &str) {
    match load(bytes) {
        LoadError::Invalid(reason) => assert!(reason.contains(expected), "{expected:?} in {reason:?}"),
        other => panic!("{other:?}"),
    }
}

/// What is said of a component of another contract, in which a text of ours is replaced.
fn of_contract(from: &str, to: &str) -> String {
    assert!(CONTRACT.contains(from), "{from}");
    let error = load(&component(&CONTRACT.replace(from, to), module("")));
    assert_eq!(error.code(), "wrong_types", "{error}");
    error.to_string().split_once("the contract: ").unwrap().1.to_owned()
}

#[test]
fn another_type_than_the_contracts_is_named_with_its_functions() {
    let codec = "of pushlet:provider/codec, used by";
    assert_eq!(
        of_contract(
            "record throttle { scope: scope, retry-after: option<duration> }",
            "record throttle { scope: scope, retry-after: option<duration>, why: u8 }",
        ),
        format!("the record throttle {codec} decode, has why: u8, which the contract's has not")
    );
    assert_eq!(
        of_contract("{ key: string, arguments: list<string> }", "{ key: string }"),
        format!(
            "the record localized {codec} encode, has no arguments: list<string>, which the contract's has"
        )
    );
    assert_eq!(
        of_contract("enum connection-hint { keep, close }", "enum connection-hint { keep, drop }"),
        format!("the enum connection-hint {codec} decode, has drop in place of close")
    );
    assert_eq!(
        of_contract("{ name: string, volume: f64 }", "{ volume: f64, name: string }"),
        format!(
            "the record critical-sound {codec} encode, has its parts in another order than the contract's"
        )
    );
    let endpoint =
        "record endpoint { name: string, environment: environment, transport: transport, origin: origin }";
    assert_eq!(
        of_contract(endpoint, &endpoint.replace("name: string", "name: list<string>")),
        "the record endpoint of pushlet:provider/manifest, used by describe, has name: list<string> in place of \
         name: string"
    );
}

/// Without a bomb it gets as far as its manifest, which is empty. So the others fail for what they add.
#[test]
fn the_crafted_component_is_sound_but_for_its_manifest() {
    let name = "the name must be 1 to 32 of a-z, 0-9, - and _, and begin with a letter";
    assert_eq!(load(&provider("")), LoadError::BadManifest(name.into()));
}

#[test]
fn start_functions_are_bounded_like_calls() {
    let start = |body: &str| load(&provider(&format!("(func $start {body}) (start $start)")));
    assert_eq!(start("(loop $l (br $l))"), LoadError::Broken(ProviderError::TimedOut));
    assert_eq!(
        start("unreachable"),
        LoadError::Broken(panicked("wasm trap: wasm `unreachable` instruction executed"))
    );
    assert_eq!(start("(call $start)"), LoadError::Broken(panicked("wasm trap: call stack exhausted")));
    let grow = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    assert_eq!(start(grow), LoadError::Broken(ProviderError::OutOfMemory));
}

#[test]
fn what_runs_after_the_answer_is_bounded_too() {
    let post = |body: &str| {
        let name = "cabi_post_pushlet:provider/manifest@1.0.0#describe";
        load(&provider(&format!(r#"(func (export "{name}") (param i32) {body})"#)))
    };
    assert_eq!(post("(loop $l (br $l))"), LoadError::Broken(ProviderError::TimedOut));
    assert_eq!(
        post("unreachable"),
        LoadError::Broken(panicked("wasm trap: wasm `unreachable` instruction executed"))
    );
}

#[test]
fn memories_count_together() {
    let memory = |megabytes: usize| format!("(module (memory {}))", megabytes * 16);
    invalid(&with_instances(provider(""), &memory(65), 1), "memory");
    assert_eq!(
        load(&with_instances(provider(""), &memory(22), 3)),
        LoadError::Broken(ProviderError::OutOfMemory)
    );
    invalid(&with_instances(provider(""), &memory(1), 5), "memories");
    let many: String = "(memory 1)".repeat(17);
    assert_eq!(
        load(&with_instances(provider(""), &format!("(module {many})"), 1)),
        too_complex("memories", 16)
    );
}

#[test]
fn tables_count_together() {
    let table = |elements: usize| format!("(module (table {elements} funcref))");
    invalid(&with_instances(provider(""), &table(10_000_000), 1), "table");
    assert_eq!(
        load(&with_instances(provider(""), &table(60_000), 2)),
        LoadError::Broken(ProviderError::OutOfMemory)
    );
    invalid(&with_instances(provider(""), &table(1), 65), "");
    let many: String = "(table 1 funcref)".repeat(257);
    assert_eq!(
        load(&with_instances(provider(""), &format!("(module {many})"), 1)),
        too_complex("tables", 256)
    );
}

#[test]
fn instances_are_counted() {
    assert_eq!(
        load(&with_instances(provider(""), "(module)", 300)),
        too_complex("modules and instances", 256)
    );
    invalid(&with_instances(provider(""), "(module)", 100), "instances");
}

#[test]
fn compile_bombs_are_refused_before_they_are_compiled() {
    let body = "i32.const 1 drop ".repeat(200_000);
    let huge = provider(&format!("(func {body})"));
    assert_eq!(load(&huge), too_complex("bytes in one function", 512 << 10));
    let locals = provider(&format!("(func (local {}))", "i64 ".repeat(10_001)));
    assert_eq!(load(&locals), too_complex("local variables in one function", 10_000));
    let functions = provider(&"(func)".repeat(100_001));
    assert_eq!(load(&functions), too_complex("functions", 100_000));
    let globals = provider(&"(global i32 (i32.const 0))".repeat(10_001));
    assert_eq!(load(&globals), too_complex("globals", 10_000));
    let mut types = String::new();
    (0..50_001)
        .for_each(|count| write!(types, "(type (func (param {})))", "i32 ".repeat(count % 900)).unwrap());
    assert_eq!(
        load(&wat::parse_str(format!("(component (core module {types}))")).unwrap()),
        too_complex("types", 50_000)
    );
}

#[test]
fn thousands_of_imports_are_refused() {
    let mut text = String::from("(component");
    (0..2_001).for_each(|count| write!(text, r#"(import "i{count}" (instance))"#).unwrap());
    assert_eq!(load(&wat::parse_str(text + ")").unwrap()), too_complex("imports and exports", 2_000));
    let mut text = String::from("(component");
    (0..1_000).for_each(|count| write!(text, r#"(import "i{count}" (instance))"#).unwrap());
    let LoadError::ForbiddenImport(imports) = load(&wat::parse_str(text + ")").unwrap()) else {
        panic!("refused")
    };
    assert_eq!((imports.names.len(), imports.others), (40, 960));
    let mut text = String::from("(component (core module");
    (0..50_001).for_each(|count| write!(text, r#"(import "m" "f{count}" (func))"#).unwrap());
    assert_eq!(
        load(&wat::parse_str(text + "))").unwrap()),
        too_complex("imports and exports of modules", 50_000)
    );
}

#[test]
fn names_in_errors_are_short() {
    let text = format!(r#"(component (import "{}" (instance)))"#, "i".repeat(90_000));
    let LoadError::ForbiddenImport(imports) = load(&wat::parse_str(text).unwrap()) else { panic!("refused") };
    assert_eq!(imports.names[0].len(), 300);
}

#[test]
fn components_in_components_end_somewhere() {
    let text = format!("{}{}", "(component ".repeat(10), ")".repeat(10));
    assert_eq!(load(&wat::parse_str(text).unwrap()), too_complex("components inside components", 8));
}

#[test]
fn other_worlds_are_refused() {
    assert_eq!(
        load(&wat::parse_str("(component)").unwrap()),
        LoadError::WrongWorld("pushlet:provider/manifest")
    );
    let half = "package pushlet:provider@1.0.0;
        interface manifest { describe: func() -> u32; }
        world http-provider { export manifest; }";
    let describe =
        r#"(module (func (export "pushlet:provider/manifest@1.0.0#describe") (result i32) i32.const 0))"#;
    let half = component(half, wat::parse_str(describe).unwrap());
    assert_eq!(load(&half), LoadError::WrongWorld("pushlet:provider/codec"));
    let false_types = "package pushlet:provider@1.0.0;
        interface manifest { describe: func() -> u32; }
        interface codec { encode: func() -> u32; }
        world http-provider { export manifest; export codec; }";
    let module = r#"(module
        (func (export "pushlet:provider/manifest@1.0.0#describe") (result i32) i32.const 0)
        (func (export "pushlet:provider/codec@1.0.0#encode") (result i32) i32.const 0))"#;
    invalid(&component(false_types, wat::parse_str(module).unwrap()), "");
    let newer = CONTRACT.replace("pushlet:provider@1.0.0", "pushlet:provider@1.1.0");
    let newer = component(&newer, module_for("1.1.0", ""));
    assert_eq!(load(&newer), LoadError::WrongVersion { built: "1.1.0".into() });
}

#[test]
fn what_is_no_component_is_refused() {
    invalid(b"", "");
    invalid(b"\0asm", "");
    invalid(&wat::parse_str("(module)").unwrap(), "");
    // What a compiler made for a machine is not taken from anybody, not even if it is sound.
    let engine = wasmtime::Engine::new(wasmtime::Config::new().gc_support(false)).unwrap();
    invalid(&engine.precompile_component(&provider("")).unwrap(), "");
    let whole = provider("");
    for end in [9, whole.len() / 2, whole.len() - 1] {
        invalid(&whole[..end], "");
    }
    // A section that says it has four billion entries.
    let lie = [b"\0asm\x0d\0\x01\0", &[10, 5, 0xff, 0xff, 0xff, 0xff, 0x0f][..]].concat();
    assert_eq!(load(&lie), too_complex("imports and exports", 2_000));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed in a component, loading it ends, and the victim does not notice.
    #[test]
    fn damaged_components_do_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = provider("");
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        // Taken or not: an empty manifest is never sound, so it can't come to a provider.
        prop_assert!(shared_sandbox().load(&bytes).is_err());
    }
}
