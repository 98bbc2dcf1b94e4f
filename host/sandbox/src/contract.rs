//! Does a component keep the contract? Its manifest, which decides where the host connects and what it signs, is
//! checked; and types that are not those of the contract are named, since the engine says only how many fields it found.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use http::header::{self, HeaderName};
use url::Url;
use wasmparser::collections::IndexMap;
use wasmparser::component_types::{
    ComponentAnyTypeId, ComponentDefinedType, ComponentDefinedTypeId, ComponentEntityType, ComponentFuncType,
    ComponentItem, ComponentValType,
};
use wasmparser::types::TypesRef;

use super::BUILT_IN;
use super::check::belongs_to_host;
use super::inspect::{ComponentTypes, INTERFACES, TYPES};
use pushlet_credential as credential;
use pushlet_model::contract::Environment;
use pushlet_model::contract::manifest::{
    Authentication, Credential, Endpoint, Field, HeaderPlacement, Origin, ProviderManifest, Source,
};
use pushlet_model::text;

const MAX_ITEMS: usize = 200;
const MAX_TEXT: usize = 8 << 10;
const MAX_ENTROPY: u32 = 64;
const MAX_TARGETS: u32 = 10_000;

/// Says in one sentence what is wrong with a manifest, if anything is.
pub fn check_manifest(manifest: &ProviderManifest) -> Result<(), String> {
    name("the name", &manifest.name)?;
    manifest.also_answers.iter().try_for_each(|other| name("a name in also-answers", other))?;
    name("the vendor", &manifest.vendor)?;
    for text in [&manifest.title, &manifest.version, &manifest.description] {
        ensure(text.len() <= MAX_TEXT, || "a text is too long".into())?;
    }
    ensure((1..=MAX_TARGETS).contains(&manifest.targets_per_exchange), || {
        format!("targets-per-exchange must be 1 to {MAX_TARGETS}")
    })?;
    ensure(manifest.entropy <= MAX_ENTROPY, || format!("entropy must be at most {MAX_ENTROPY}"))?;
    ensure(!manifest.targets.is_empty(), || "it knows no kind of target".into())?;
    ensure(manifest.examples.len() <= MAX_ITEMS, || "it has too many examples".into())?;
    fields("setting", &manifest.settings)?;
    fields("option", &manifest.options)?;
    endpoints(&manifest.endpoints)?;
    credential::check_manifest(&manifest.credentials).map_err(|error| error.to_string())?;
    manifest.credentials.iter().try_for_each(|credential| check_credential(manifest, credential))
}

/// Checks a credential together with the rest of the manifest; `pushlet_credential` checks it alone.
fn check_credential(manifest: &ProviderManifest, kind: &Credential) -> Result<(), String> {
    let of = |what: String| format!("credential {}: {what}", kind.name);
    name("a credential's name", &kind.name)?;
    let derived = kind.derivations.iter().map(|derivation| &derivation.setting);
    let claimed = credential::sources(&kind.authentication).into_iter().filter_map(|source| match source {
        Source::Setting(setting) => Some(setting),
        _ => None,
    });
    let known = |setting: &String| manifest.settings.iter().any(|field| field.name == *setting);
    let mut settings =
        kind.required_settings.iter().chain(&kind.connection_settings).chain(derived).chain(claimed);
    if let Some(unknown) = settings.find(|setting| !known(setting)) {
        return Err(of(format!("{unknown:?} is not one of the manifest's settings")));
    }
    match &kind.authentication {
        Authentication::SignedToken((_, place))
        | Authentication::ExchangedToken((_, place))
        | Authentication::SecretHeader((_, place)) => placement(place).map_err(of),
        Authentication::ClientCertificate | Authentication::Vapid(_) => Ok(()),
    }
}

/// Checks the header of a credential: any that a component may set, and `authorization`.
fn placement(place: &HeaderPlacement) -> Result<(), String> {
    let name = HeaderName::from_lowercase(place.name.as_bytes()).map_err(|_| {
        let rule = match HeaderName::from_bytes(place.name.as_bytes()) {
            Ok(_) => "the name must be in lower case",
            Err(_) => "the name cannot be one of HTTP",
        };
        format!("a credential cannot become the header {:?}: {rule}", place.name)
    })?;
    ensure(name == header::AUTHORIZATION || !belongs_to_host(&name), || {
        format!("a credential must not become the header {:?}", place.name)
    })
}

fn endpoints(endpoints: &[Endpoint]) -> Result<(), String> {
    ensure(!endpoints.is_empty() && endpoints.len() <= MAX_ITEMS, || {
        "it has no or too many endpoints".into()
    })?;
    let mut seen = HashSet::new();
    for endpoint in endpoints {
        field_name("endpoint", &endpoint.name)?;
        ensure(seen.insert((&endpoint.name, endpoint.environment as u8)), || {
            format!("endpoint {} is there twice", endpoint.name)
        })?;
        if let Origin::Fixed(origin) = &endpoint.origin {
            ensure(is_origin(origin), || format!("{origin:?} is not of the form https://host[:port]"))?;
        }
    }
    let in_production = |endpoint: &Endpoint| endpoint.environment == Environment::Production;
    ensure(endpoints.iter().any(in_production), || {
        "it has no endpoint for production, where applications are unless they say otherwise".into()
    })
}

/// Returns true if it is written exactly as it is understood. Parsers of URLs forgive much.
fn is_origin(origin: &str) -> bool {
    let plain = origin.strip_suffix(":443").unwrap_or(origin);
    Url::parse(plain).is_ok_and(|url| url.scheme() == "https" && url.origin().ascii_serialization() == plain)
}

fn fields(kind: &'static str, fields: &[Field]) -> Result<(), String> {
    ensure(fields.len() <= MAX_ITEMS, || format!("it has too many {kind}s"))?;
    fields.iter().try_for_each(|field| {
        ensure(field.choices.len() <= MAX_ITEMS && field.description.len() <= MAX_TEXT, || {
            format!("{kind} {} is too large", field.name)
        })?;
        field_name(kind, &field.name)
    })?;
    unique(kind, fields.iter().map(|field| &field.name))
}

fn unique<'a>(kind: &str, names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = HashSet::new();
    names
        .map(|name| (name, seen.insert(name)))
        .try_for_each(|(name, new)| ensure(new, || format!("{kind} {name:?} is there twice")))
}

/// Names of providers and credentials: they become `type`s, metrics' labels and URL segments.
pub(super) fn name(what: &str, name: &str) -> Result<(), String> {
    let sound = text::is_name(name, 32) && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    ensure(sound, || format!("{what} must be 1 to 32 of a-z, 0-9, - and _, and begin with a letter"))
}

pub(super) fn field_name(kind: &str, name: &str) -> Result<(), String> {
    let sound = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    ensure(sound, || format!("a {kind}'s name must be 1 to 64 letters, digits, - and _"))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "contract_tests.rs"]
mod tests;
