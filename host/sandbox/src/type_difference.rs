//! Names the types of a component that are not those of the contract: the engine says only how many fields it found.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use wasmparser::collections::IndexMap;
use wasmparser::component_types::{
    ComponentAnyTypeId, ComponentDefinedType, ComponentDefinedTypeId, ComponentEntityType, ComponentFuncType,
    ComponentItem, ComponentValType,
};
use wasmparser::types::TypesRef;

use super::BUILT_IN;
use super::inspect::{ComponentTypes, INTERFACES, TYPES};

/// Types of an interface that are written out.
const MOST_PARTS: usize = 10_000;

/// Says which type of which interface is not the contract's, and which functions use it; None: none is known. The
/// contract is read from a built-in provider.
pub(super) fn difference(bytes: &[u8]) -> Option<String> {
    let contracts: Vec<_> = BUILT_IN.iter().filter_map(|(_, bytes)| ComponentTypes::of(bytes)).collect();
    let found = ComponentTypes::of(bytes)?;
    INTERFACES.into_iter().find_map(|name| {
        let contract = contracts.iter().find_map(|contract| InterfaceTypes::of(contract, name))?;
        InterfaceTypes::of(&found, name)?.differs(name, &contract)
    })
}

/// What an interface exports, by name: parts as `name: type`, where a type that has a name is written as its name.
#[derive(Default)]
struct InterfaceTypes {
    types: BTreeMap<String, TypeShape>,
    functions: BTreeMap<String, TypeShape>,
}

#[derive(Default, PartialEq, Eq)]
struct TypeShape {
    /// `record`, `variant`, `function` and the like.
    kind: &'static str,
    parts: Vec<String>,
    /// Names of types in it.
    uses: BTreeSet<String>,
}

impl InterfaceTypes {
    /// With the types that it uses of the interface `types`, which a component imports or exports.
    fn of(component: &ComponentTypes, name: &str) -> Option<Self> {
        let types = component.types.as_ref();
        let exports = exports(component, name)?;
        let shared = self::exports(component, TYPES);
        let all = || shared.into_iter().flatten().chain(exports);
        let mut reader = TypeReader { types, names: HashMap::new(), left: Cell::new(MOST_PARTS) };
        for (name, item) in all() {
            if let ComponentEntityType::Type { created: ComponentAnyTypeId::Defined(id), .. } = item.ty {
                reader.names.insert(reader.root(id), name.clone());
            }
        }
        let mut interface = Self::default();
        for (name, item) in all() {
            match item.ty {
                ComponentEntityType::Type { created: ComponentAnyTypeId::Defined(id), .. } => {
                    interface.types.insert(name.clone(), reader.defined(id));
                }
                ComponentEntityType::Func(id) => {
                    interface.functions.insert(name.clone(), reader.function(&types[id]));
                }
                _ => {}
            }
        }
        Some(interface)
    }

    fn differs(&self, interface: &str, contract: &Self) -> Option<String> {
        let of_types = contract.types.iter().find_map(|(name, shape)| {
            let users = contract.functions.keys().filter(|function| self.uses(function, name));
            let users = users.map(String::as_str).collect::<Vec<_>>().join(", ");
            let found = self.types.get(name).filter(|_| !users.is_empty())?;
            let difference = found.differs(shape)?;
            Some(format!("the {} {name} of {interface}, used by {users}, {difference}", found.kind))
        });
        let of_functions = || {
            contract.functions.iter().find_map(|(name, shape)| {
                let difference = self.functions.get(name)?.differs(shape)?;
                Some(format!("the function {name} of {interface} {difference}"))
            })
        };
        of_types.or_else(of_functions)
    }

    /// Returns true if a function takes or returns a type, at any depth.
    fn uses(&self, function: &str, name: &str) -> bool {
        let mut open: Vec<&String> =
            self.functions.get(function).into_iter().flat_map(|shape| &shape.uses).collect();
        let mut seen = BTreeSet::new();
        while let Some(used) = open.pop() {
            if used == name {
                return true;
            }
            if seen.insert(used) {
                open.extend(self.types.get(used).into_iter().flat_map(|shape| &shape.uses));
            }
        }
        false
    }
}

impl TypeShape {
    fn differs(&self, contract: &Self) -> Option<String> {
        if self == contract {
            return None;
        }
        let beyond = |one: &Self, other: &Self| {
            let beyond = one.parts.iter().filter(|part| !other.parts.contains(part));
            beyond.map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        let (more, less) = (beyond(self, contract), beyond(contract, self));
        Some(match (more.as_str(), less.as_str()) {
            ("", "") => "has its parts in another order than the contract's".to_owned(),
            (more, "") => format!("has {more}, which the contract's has not"),
            ("", less) => format!("has no {less}, which the contract's has"),
            (more, less) => format!("has {more} in place of {less}"),
        })
    }
}

/// Returns the contents of the interface of this name, in whatever version.
fn exports<'a>(component: &'a ComponentTypes, name: &str) -> Option<&'a IndexMap<String, ComponentItem>> {
    let types = component.types.as_ref();
    let versioned = |other: &&String| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('@'));
    let name = component.names.iter().find(versioned)?;
    let item = types.component_item_for_export(name).or_else(|| types.component_item_for_import(name))?;
    match item.ty {
        ComponentEntityType::Instance(instance) => Some(&component.types[instance].exports),
        _ => None,
    }
}

struct TypeReader<'a> {
    types: TypesRef<'a>,
    /// Of the types that the interface exports.
    names: HashMap<ComponentDefinedTypeId, String>,
    /// Types that are still written out: those without a name may stand in each other many times over.
    left: Cell<usize>,
}

impl TypeReader<'_> {
    /// Returns the type that a chain of aliases leads to.
    fn root(&self, mut id: ComponentDefinedTypeId) -> ComponentDefinedTypeId {
        while let Some(next) = self.types.peel_alias(id) {
            id = next;
        }
        id
    }

    fn name(&self, ty: ComponentValType, uses: &mut BTreeSet<String>) -> String {
        let Some(left) = self.left.get().checked_sub(1) else { return "…".to_owned() };
        self.left.set(left);
        let id = match ty {
            ComponentValType::Primitive(primitive) => return primitive.to_string(),
            ComponentValType::Type(id) => id,
        };
        if let Some(name) = self.names.get(&self.root(id)) {
            uses.insert(name.clone());
            return name.clone();
        }
        let mut maybe =
            |ty: &Option<ComponentValType>| ty.map_or_else(|| "_".to_owned(), |ty| self.name(ty, uses));
        match &self.types[id] {
            ComponentDefinedType::Primitive(primitive) => primitive.to_string(),
            ComponentDefinedType::List { element, .. } => format!("list<{}>", maybe(&Some(*element))),
            ComponentDefinedType::Option { ty, .. } => format!("option<{}>", maybe(&Some(*ty))),
            ComponentDefinedType::Result { ok, err, .. } => format!("result<{}, {}>", maybe(ok), maybe(err)),
            ComponentDefinedType::Tuple(tuple) => {
                let types: Vec<_> = tuple.types.iter().map(|ty| maybe(&Some(*ty))).collect();
                format!("tuple<{}>", types.join(", "))
            }
            // Records, variants, enums and flags have names wherever they are exported.
            _ => "another type".to_owned(),
        }
    }

    fn function(&self, function: &ComponentFuncType) -> TypeShape {
        let mut uses = BTreeSet::new();
        let parameter = |(name, ty): &(_, ComponentValType)| format!("{name}: {}", self.name(*ty, &mut uses));
        let mut parts: Vec<String> = function.params.iter().map(parameter).collect();
        parts.extend(function.result.map(|result| format!("-> {}", self.name(result, &mut uses))));
        TypeShape { kind: "function", parts, uses }
    }

    /// Returns the parts of a type that has a name.
    fn defined(&self, id: ComponentDefinedTypeId) -> TypeShape {
        let mut uses = BTreeSet::new();
        let (kind, parts) = match &self.types[id] {
            ComponentDefinedType::Record(record) => {
                let part =
                    |(name, ty): (&_, &ComponentValType)| format!("{name}: {}", self.name(*ty, &mut uses));
                ("record", record.fields.iter().map(part).collect())
            }
            ComponentDefinedType::Variant(variant) => {
                let cases = variant.cases.iter();
                let part = |(name, case): (&_, &wasmparser::component_types::VariantCase)| match case.ty {
                    Some(ty) => format!("{name}({})", self.name(ty, &mut uses)),
                    None => format!("{name}"),
                };
                ("variant", cases.map(part).collect())
            }
            ComponentDefinedType::Enum(names) => ("enum", names.iter().map(ToString::to_string).collect()),
            ComponentDefinedType::Flags(names) => ("flags", names.iter().map(ToString::to_string).collect()),
            _ => ("type", Vec::new()),
        };
        TypeShape { kind, parts, uses }
    }
}
