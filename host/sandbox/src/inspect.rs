//! Inspects a component before it is compiled: its validity, imports, world and contract version.

use wasmparser::types::Types;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

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
pub(super) fn check(bytes: &[u8]) -> Result<ComponentInterfaces, LoadError> {
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
    /// None: it is not valid.
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

    /// The version of an interface that the component exports.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_versions_are_served_and_others_are_not() {
        assert!(serves("0.1.0") && serves("0.1.7"));
        assert!(!serves("0.2.0") && !serves("1.1.0") && !serves("0") && !serves(""));
    }
}
