//! Inspects a component before it is compiled: its size and depth, its validity, imports, world and contract version.
//!
//! Size and depth are checked first, in one pass over its sections: compiling is where a small file can cost much time
//! and memory.

use wasmparser::types::Types;
use wasmparser::{Chunk, Encoding, Parser, Payload, Validator, WasmFeatures};

use super::error::{CONTRACT, LoadError, excerpt};
use super::guest::ALLOWED_IMPORTS;

/// What it may export.
const MANAGEMENT: &str = "pushlet:provider/management";
/// What a component must export.
const EXPORTS: [&str; 2] = ["pushlet:provider/manifest", "pushlet:provider/codec"];
/// What the others use.
pub(super) const TYPES: &str = "pushlet:provider/types";
/// All that a component may export of the contract.
pub(super) const INTERFACES: [&str; 3] = [EXPORTS[0], EXPORTS[1], MANAGEMENT];

/// What the engine is configured for, neither more nor less.
const FEATURES: WasmFeatures = WasmFeatures::WASM3.union(WasmFeatures::COMPONENT_MODEL).difference(
    WasmFeatures::GC
        .union(WasmFeatures::GC_TYPES)
        .union(WasmFeatures::FUNCTION_REFERENCES)
        .union(WasmFeatures::EXCEPTIONS)
        .union(WasmFeatures::THREADS)
        .union(WasmFeatures::MEMORY64)
        .union(WasmFeatures::RELAXED_SIMD),
);

/// Validates a component, then holds its imports against the allow-list and its exports against the world.
pub(super) fn check_interfaces(bytes: &[u8]) -> Result<ComponentInterfaces, LoadError> {
    Validator::new_with_features(FEATURES).validate_all(bytes).map_err(invalid)?;
    let names = InterfaceNames::of(bytes)?;
    let allowed = |name: &str| ALLOWED_IMPORTS.iter().any(|allowed| name.starts_with(allowed));
    if let Some(name) = names.imports.iter().find(|name| !allowed(name)) {
        return Err(LoadError::ForbiddenImport(excerpt(name)));
    }
    // All of the world's exports must be there; others may be, since some toolchains add their own.
    for wanted in EXPORTS {
        ensure_served(names.version(wanted).ok_or(LoadError::WrongWorld(wanted))?)?;
    }
    let management = names.version(MANAGEMENT);
    management.map_or(Ok(()), ensure_served)?;
    Ok(ComponentInterfaces { management: management.is_some() })
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

/// The optional interfaces that a component exports.
#[derive(Debug, Clone, Copy)]
pub(super) struct ComponentInterfaces {
    pub management: bool,
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

/// Below 1.0 a new minor version breaks, a new patch version does not.
fn serves(version: &str) -> bool {
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    minor(version).is_some() && minor(version) == minor(CONTRACT)
}

fn invalid(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::Invalid(excerpt(&error.to_string()))
}

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
struct ComponentShape {
    parts: usize,
    component_items: usize,
    module_items: usize,
    types: usize,
    functions: usize,
    globals: usize,
    memories: usize,
    tables: usize,
    segments: usize,
}

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
                shape.parts += 1;
                parents.push(std::mem::replace(&mut parser, inner.clone()));
                at_most("components inside components", parents.len(), DEEPEST)?;
            }
            Payload::End(_) => match parents.pop() {
                Some(parent) => parser = parent,
                None => return Ok(()),
            },
            payload => shape.add(payload)?,
        }
        shape.check()?;
    }
}

impl ComponentShape {
    fn add(&mut self, payload: &Payload<'_>) -> Result<(), LoadError> {
        match payload {
            Payload::ComponentImportSection(items) => self.component_items += items.count() as usize,
            Payload::ComponentExportSection(items) => self.component_items += items.count() as usize,
            Payload::ComponentTypeSection(types) => self.types += types.count() as usize,
            Payload::CoreTypeSection(types) => self.types += types.count() as usize,
            Payload::ComponentAliasSection(items) => self.module_items += items.count() as usize,
            Payload::ComponentCanonicalSection(functions) => self.functions += functions.count() as usize,
            Payload::InstanceSection(instances) => self.parts += instances.count() as usize,
            Payload::ComponentInstanceSection(instances) => self.parts += instances.count() as usize,
            Payload::TypeSection(types) => self.types += types.count() as usize,
            Payload::ImportSection(items) => self.module_items += items.count() as usize,
            Payload::ExportSection(items) => self.module_items += items.count() as usize,
            Payload::FunctionSection(functions) => self.functions += functions.count() as usize,
            Payload::GlobalSection(globals) => self.globals += globals.count() as usize,
            Payload::MemorySection(memories) => self.memories += memories.count() as usize,
            Payload::TableSection(tables) => self.tables += tables.count() as usize,
            Payload::DataSection(segments) => self.segments += segments.count() as usize,
            Payload::ElementSection(segments) => self.segments += segments.count() as usize,
            Payload::CodeSectionEntry(body) => {
                let range = body.range();
                at_most("bytes in one function", range.end - range.start, LARGEST_FUNCTION)?;
                let mut locals = 0_u32;
                for group in body.get_locals_reader().map_err(malformed)? {
                    let (count, _) = group.map_err(malformed)?;
                    locals = locals.saturating_add(count);
                }
                at_most("local variables in one function", locals as usize, MOST_LOCALS as usize)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), LoadError> {
        at_most("modules and instances", self.parts, MOST_PARTS)?;
        at_most("imports and exports", self.component_items, MOST_COMPONENT_ITEMS)?;
        at_most("imports and exports of modules", self.module_items, MOST_MODULE_ITEMS)?;
        at_most("types", self.types, MOST_TYPES)?;
        at_most("functions", self.functions, MOST_FUNCTIONS)?;
        at_most("globals", self.globals, MOST_GLOBALS)?;
        at_most("memories", self.memories, MOST_MEMORIES)?;
        at_most("tables", self.tables, MOST_TABLES)?;
        at_most("segments", self.segments, MOST_SEGMENTS)
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
        assert!(serves("0.1.0") && serves("0.1.7"));
        assert!(!serves("0.2.0") && !serves("1.1.0") && !serves("0") && !serves(""));
    }
}
