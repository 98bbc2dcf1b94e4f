//! What attacks send: hostile components, files and bodies. Shared by this suite and by `pushlet-faults hostile`.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const CONTRACT: &str = include_str!("../../../wit/provider.wit");
const GUESTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// A hostile component of `tests/guests`, by the name of its example.
pub fn component(name: &str) -> Option<&'static [u8]> {
    Some(GUESTS.iter().find(|(guest, _)| *guest == name)?.1)
}

/// A component that exports what a provider must, within all bounds of size, and that takes minutes to compile.
pub fn compile_bomb() -> Result<Vec<u8>, Failure> {
    let branch =
        "(if (result i32) (local.get 0) (then (local.get 1)) (else (i32.load (local.get 0)))) (local.set 0) ";
    let function = format!("(func (param i32 i32) (result i32) {} (local.get 0))", branch.repeat(30_000));
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "pushlet:provider/manifest@1.0.0#describe") (result i32) i32.const 0)
            (func (export "pushlet:provider/codec@1.0.0#check-application")
                (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 0)
            (func (export "pushlet:provider/codec@1.0.0#encode") (param i32) (result i32) i32.const 0)
            (func (export "pushlet:provider/codec@1.0.0#decode")
                (param i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 0)
            {}
        )"#,
        function.repeat(4)
    );
    let mut module = wat::parse_str(text)?;
    let mut resolve = Resolve::default();
    let package = resolve.push_str("provider.wit", CONTRACT)?;
    let world = resolve.select_world(&[package], Some("http-provider"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(ComponentEncoder::default().module(&module)?.encode()?)
}

/// A PKCS#12 file (RFC 7292) with no content, whose MAC takes so many rounds of SHA-512 to check.
pub fn costly_pkcs12(rounds: u32) -> Vec<u8> {
    const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    const SHA512: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03";
    let content = der(0x30, &[DATA, &der(0xa0, &[&der(0x04, &[&der(0x30, &[])])])]);
    let digest = der(0x30, &[&der(0x30, &[SHA512, b"\x05\x00"]), &der(0x04, &[&[0; 64]])]);
    // DER: as few bytes as hold the number and its sign.
    let bytes = rounds.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
    let number = bytes.get(first..).unwrap_or_default();
    let sign: &[u8] = if number.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
    let rounds = der(0x02, &[sign, number]);
    let mac = der(0x30, &[&digest, &der(0x04, &[&[7; 8]]), &rounds]);
    der(0x30, &[b"\x02\x01\x03", &content, &mac])
}

/// An element of DER with less than 256 bytes of content.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = match u8::try_from(body.len()).unwrap_or(u8::MAX) {
        short @ ..128 => vec![short],
        long => vec![0x81, long],
    };
    [vec![tag], length, body].concat()
}
