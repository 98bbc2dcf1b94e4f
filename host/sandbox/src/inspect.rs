//! Inspects a component before it is compiled: its size and depth, its validity, imports, world and contract version.
//!
//! Size and depth are checked first, in one pass over its sections: compiling is where a small file can cost much time
//! and memory.

use std::collections::BTreeMap;

use wasmparser::types::Types;
use wasmparser::{Chunk, Encoding, Parser, Payload, Validator, WasmFeatures};

use super::error::{CONTRACT, ForbiddenImports, LoadError, allows_import, excerpt};

/// What it may export.
const MANAGEMENT: &str = "pushlet:provider/management";
/// What a component of the world `http-provider` must export.
const EXPORTS: [&str; 2] = [MANIFEST, "pushlet:provider/codec"];
/// What every component must export.
const MANIFEST: &str = "pushlet:provider/manifest";
/// What a component of the world `stream-provider` must export besides.
const SESSION: &str = "pushlet:provider/session";
/// What the others use.
pub(super) const TYPES: &str = "pushlet:provider/types";
/// All that a component may export of the contract.
pub(super) const INTERFACES: [&str; 4] = [EXPORTS[0], EXPORTS[1], MANAGEMENT, SESSION];

/// What the engine is configured for, neither more nor less.
const FEATURES: WasmFeatures =
    WasmFeatures::WASM3.union(WasmFeatures::COMPONENT_MODEL).union(WasmFeatures::WIDE_ARITHMETIC).difference(
        WasmFeatures::GC
            .union(WasmFeatures::GC_TYPES)
            .union(WasmFeatures::FUNCTION_REFERENCES)
            .union(WasmFeatures::EXCEPTIONS)
            .union(WasmFeatures::THREADS)
            .union(WasmFeatures::MEMORY64)
            .union(WasmFeatures::RELAXED_SIMD),
    );

/// How a compiled component (`.cwasm`) begins.
const ELF: &[u8] = b"\x7fELF";

/// Checks everything that can be checked without compiling the component. `limit`: its most bytes.
pub(super) fn check(bytes: &[u8], limit: usize) -> Result<ComponentInterfaces, LoadError> {
    if bytes.len() > limit {
        return Err(LoadError::TooLarge { size: bytes.len(), limit });
    }
    if bytes.starts_with(ELF) {
        return Err(LoadError::Invalid(
            "it is compiled for a machine; give the component it was made of".into(),
        ));
    }
    check_shape(bytes)?;
    check_interfaces(bytes)
}

/// Validates a component, then holds its imports against the allow-list and its exports against the world.
pub(super) fn check_interfaces(bytes: &[u8]) -> Result<ComponentInterfaces, LoadError> {
    Validator::new_with_features(FEATURES).validate_all(bytes).map_err(invalid)?;
    let names = InterfaceNames::of(bytes)?;
    let forbidden = ForbiddenImports::of(names.imports.iter().copied().filter(|name| !allows_import(name)));
    forbidden.map_or(Ok(()), |forbidden| Err(LoadError::ForbiddenImport(forbidden)))?;
    let session = names.version(SESSION);
    if session.is_some() && names.version(EXPORTS[1]).is_some() {
        return Err(LoadError::BothWorlds);
    }
    // All of the world's exports must be there; others may be, since some toolchains add their own.
    for wanted in if session.is_some() { [MANIFEST, SESSION] } else { EXPORTS } {
        ensure_served(names.version(wanted).ok_or(LoadError::WrongWorld(wanted))?)?;
    }
    let management = names.version(MANAGEMENT);
    management.map_or(Ok(()), ensure_served)?;
    Ok(ComponentInterfaces { management: management.is_some(), session: session.is_some() })
}

/// Returns SHA-256 of a component file, in hex.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

/// Returns the names of the interfaces that a component imports, and of those that it exports, if a server would take
/// them.
pub fn interface_names(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), LoadError> {
    check_shape(bytes)?;
    check_interfaces(bytes)?;
    let names = InterfaceNames::of(bytes)?;
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    Ok((owned(names.imports), owned(names.exports)))
}

/// The types of a component, and the names of its exports and imports.
pub(super) struct ComponentTypes {
    pub types: Types,
    pub names: Vec<String>,
}

impl ComponentTypes {
    /// Reads the types of a component; None: it is not valid.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let types = Validator::new_with_features(FEATURES).validate_all(bytes).ok()?;
        let names = InterfaceNames::of(bytes).ok()?;
        let names = names.exports.into_iter().chain(names.imports);
        Some(Self { types, names: names.map(str::to_owned).collect() })
    }
}

/// The interfaces that a component exports, of those that not all do.
#[derive(Debug, Clone, Copy)]
pub(super) struct ComponentInterfaces {
    pub management: bool,
    /// It is of the world `stream-provider`.
    pub session: bool,
}

/// The names in the outermost component.
#[derive(Default)]
struct InterfaceNames<'a> {
    imports: Vec<&'a str>,
    exports: Vec<&'a str>,
}

impl<'a> InterfaceNames<'a> {
    /// `bytes` are valid already.
    fn of(bytes: &'a [u8]) -> Result<Self, LoadError> {
        let mut names = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(invalid)? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(LoadError::Invalid("it is a core module, not a component".into()));
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        names.imports.push(import.map_err(invalid)?.name.name);
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        names.exports.push(export.map_err(invalid)?.name.name);
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }

    /// Returns the version of an interface that the component exports.
    fn version(&self, interface: &str) -> Option<&'a str> {
        self.exports.iter().find_map(|name| name.strip_prefix(interface)?.strip_prefix('@'))
    }
}

fn ensure_served(version: &str) -> Result<(), LoadError> {
    if serves(version) { Ok(()) } else { Err(LoadError::WrongVersion { built: excerpt(version) }) }
}

/// A component of the same major version is served, unless it needs a later minor version.
fn serves(version: &str) -> bool {
    let parsed = |version: &str| {
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??)).filter(|_| numbers.next().is_none())
    };
    parsed(version).zip(parsed(CONTRACT)).is_some_and(|(built, own)| built.0 == own.0 && built.1 <= own.1)
}

fn invalid(error: wasmparser::BinaryReaderError) -> LoadError {
    let why = excerpt(&error.to_string());
    let hint = if why.contains(ASYNC) { "; componentize-qjs: give --sync" } else { "" };
    LoadError::Invalid(why + hint)
}

/// In what the validator says of functions that are asynchronous in the component model.
const ASYNC: &str = "component model async feature";

const PARTS: &str = "modules and instances";
const ITEMS: &str = "imports and exports";
const MODULE_ITEMS: &str = "imports and exports of modules";
/// Components and modules inside a component; one made from Python has about 40.
const MOST_PARTS: usize = 256;
/// Components inside components.
const DEEPEST: usize = 8;
/// Imports and exports of the components.
const MOST_COMPONENT_ITEMS: usize = 2_000;
/// Imports and exports of the modules.
const MOST_MODULE_ITEMS: usize = 50_000;
const MOST_TYPES: usize = 50_000;
const MOST_FUNCTIONS: usize = 100_000;
/// Bytes of one function. The interpreters' main loops have about 200 KiB.
const LARGEST_FUNCTION: usize = 512 << 10;
/// Local variables of one function.
const MOST_LOCALS: u32 = 10_000;
const MOST_GLOBALS: usize = 10_000;
const MOST_MEMORIES: usize = 16;
const MOST_TABLES: usize = 256;
const MOST_SEGMENTS: usize = 100_000;

/// Counts over all parts of a component.
#[derive(Default)]
struct ComponentShape(BTreeMap<&'static str, usize>);

/// Refuses a component that is too large in any way.
pub(super) fn check_shape(bytes: &[u8]) -> Result<(), LoadError> {
    let mut shape = ComponentShape::default();
    let mut parents = Vec::new();
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    loop {
        let (consumed, payload) = match parser.parse(rest, true).map_err(malformed)? {
            Chunk::Parsed { consumed, payload } => (consumed, payload),
            Chunk::NeedMoreData(_) => return Err(LoadError::Invalid("it ends too early".into())),
        };
        rest = rest.get(consumed..).unwrap_or_default();
        match &payload {
            Payload::ModuleSection { parser: inner, .. }
            | Payload::ComponentSection { parser: inner, .. } => {
                shape.count(PARTS, MOST_PARTS, 1)?;
                parents.push(std::mem::replace(&mut parser, inner.clone()));
                at_most("components inside components", parents.len(), DEEPEST)?;
            }
            Payload::End(_) => match parents.pop() {
                Some(parent) => parser = parent,
                None => return Ok(()),
            },
            payload => shape.add(payload)?,
        }
    }
}

impl ComponentShape {
    fn count(&mut self, what: &'static str, limit: usize, count: u32) -> Result<(), LoadError> {
        let total = self.0.entry(what).or_default();
        *total += count as usize;
        at_most(what, *total, limit)
    }

    fn add(&mut self, payload: &Payload<'_>) -> Result<(), LoadError> {
        match payload {
            Payload::ComponentImportSection(items) => self.count(ITEMS, MOST_COMPONENT_ITEMS, items.count()),
            Payload::ComponentExportSection(items) => self.count(ITEMS, MOST_COMPONENT_ITEMS, items.count()),
            Payload::ComponentTypeSection(types) => self.count("types", MOST_TYPES, types.count()),
            Payload::CoreTypeSection(types) => self.count("types", MOST_TYPES, types.count()),
            Payload::TypeSection(types) => self.count("types", MOST_TYPES, types.count()),
            Payload::ComponentAliasSection(items) => {
                self.count(MODULE_ITEMS, MOST_MODULE_ITEMS, items.count())
            }
            Payload::ImportSection(items) => self.count(MODULE_ITEMS, MOST_MODULE_ITEMS, items.count()),
            Payload::ExportSection(items) => self.count(MODULE_ITEMS, MOST_MODULE_ITEMS, items.count()),
            Payload::ComponentCanonicalSection(all) => self.count("functions", MOST_FUNCTIONS, all.count()),
            Payload::FunctionSection(all) => self.count("functions", MOST_FUNCTIONS, all.count()),
            Payload::InstanceSection(instances) => self.count(PARTS, MOST_PARTS, instances.count()),
            Payload::ComponentInstanceSection(instances) => self.count(PARTS, MOST_PARTS, instances.count()),
            Payload::GlobalSection(globals) => self.count("globals", MOST_GLOBALS, globals.count()),
            Payload::MemorySection(memories) => self.count("memories", MOST_MEMORIES, memories.count()),
            Payload::TableSection(tables) => self.count("tables", MOST_TABLES, tables.count()),
            Payload::DataSection(segments) => self.count("segments", MOST_SEGMENTS, segments.count()),
            Payload::ElementSection(segments) => self.count("segments", MOST_SEGMENTS, segments.count()),
            Payload::CodeSectionEntry(body) => {
                let range = body.range();
                at_most("bytes in one function", range.end - range.start, LARGEST_FUNCTION)?;
                let mut locals = 0_u32;
                for group in body.get_locals_reader().map_err(malformed)? {
                    let (count, _) = group.map_err(malformed)?;
                    locals = locals.saturating_add(count);
                }
                at_most("local variables in one function", locals as usize, MOST_LOCALS as usize)
            }
            _ => Ok(()),
        }
    }
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), LoadError> {
    if count > limit { Err(LoadError::TooComplex { what, limit }) } else { Ok(()) }
}

fn malformed(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_versions_are_served_and_others_are_not() {
        assert!(serves("1.0.0") && serves("1.0.7"));
        assert!(!serves("0.1.0") && !serves("1.1.0") && !serves("2.0.0"));
        assert!(!serves("1") && !serves("1.0") && !serves("1.0.0.0") && !serves("1.0.x") && !serves(""));
    }
}
