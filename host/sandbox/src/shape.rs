//! How large and how deep a component may be. Looked at before it is validated and compiled, in one pass
//! over its sections: compiling is where a small file can cost much time and memory.

use wasmparser::{Chunk, Parser, Payload};

use super::error::LoadError;

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
pub(super) fn check(bytes: &[u8]) -> Result<(), LoadError> {
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
