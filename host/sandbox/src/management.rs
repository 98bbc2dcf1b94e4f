//! What a service keeps for an application in addition to its devices: calls of the optional interface `management`.
//! They are rare, so each has an instance of its own.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use wasmtime::component::InstancePre;

use super::call_log::GuestLog;
use super::error::{LoadError, ProviderError, invalid};
use super::guest::GuestState;
use super::instance::GuestInstance;
use super::limits::CallBounds;
use super::sandbox::Sandbox;
use super::{check, contract};
use pushlet_model::contract::management::{self, Action, Collection, Item, Operation};

const MOST_COLLECTIONS: usize = 20;
const MOST_PARAMETERS: usize = 50;
const MOST_ITEMS: usize = 100_000;
/// Bytes of an item's properties.
const LONGEST_PROPERTIES: usize = 16 << 10;
/// Segments of the HTTP API's paths that have a meaning already.
const RESERVED: [&str; 1] = ["feedback"];

/// The part of a component that manages.
pub(super) struct CollectionManager {
    component: InstancePre<GuestState>,
    functions: management::GuestIndices,
    collections: Vec<Collection>,
}

/// Items that the service keeps, their properties parsed.
pub type CollectionItems = Vec<(String, Map<String, Value>)>;

impl CollectionManager {
    /// Asks the component what it manages.
    pub fn load(
        sandbox: &Sandbox,
        component: InstancePre<GuestState>,
        log: &Arc<GuestLog>,
    ) -> Result<Self, LoadError> {
        let bounds = CallBounds::of(&sandbox.limits);
        let functions = management::GuestIndices::new(&component).map_err(invalid)?;
        let mut manager = Self { component, functions, collections: Vec::new() };
        let mut instance = manager.instantiate(sandbox, &bounds, log)?;
        instance.guest().observe(0, &[]);
        manager.collections = sandbox.call(&mut instance, &bounds, 1, async |management, store| {
            management.call_collections(store).await
        })?;
        sound(&manager.collections).map_err(LoadError::BadManifest)?;
        Ok(manager)
    }

    pub fn collections(&self) -> &[Collection] {
        &self.collections
    }

    /// Creates an instance that is called once.
    pub fn instantiate(
        &self,
        sandbox: &Sandbox,
        bounds: &CallBounds,
        log: &Arc<GuestLog>,
    ) -> Result<GuestInstance<management::Guest>, ProviderError> {
        sandbox
            .instantiate(&self.component, bounds, log, |store, instance| self.functions.load(store, instance))
    }
}

/// Says in one sentence what is wrong with the collections.
fn sound(collections: &[Collection]) -> Result<(), String> {
    if collections.len() > MOST_COLLECTIONS {
        return Err("it has too many collections".into());
    }
    let mut names = HashSet::new();
    for Collection { name, description, actions, parameters } in collections {
        contract::name("a collection's name", name)?;
        if RESERVED.contains(&name.as_str()) || !names.insert(name) {
            return Err(format!("the collection {name} is there already"));
        }
        if actions.is_empty() || actions.len() > 4 || parameters.len() > MOST_PARAMETERS {
            return Err(format!("the collection {name} has no or too many actions or parameters"));
        }
        let mut names = HashSet::new();
        for parameter in parameters {
            contract::field_name("parameter", &parameter.name)?;
            let long = parameter.choices.len() > MOST_PARAMETERS || parameter.description.len() > 4 << 10;
            if parameter.name == "id" || long || !names.insert(&parameter.name) {
                return Err(format!("the parameter {} of {name} is not sound", parameter.name));
            }
        }
        if description.len() > 4 << 10 {
            return Err(format!("the description of {name} is too long"));
        }
    }
    Ok(())
}

/// Returns the action of an operation.
pub fn action(operation: &Operation) -> Action {
    match operation {
        Operation::Create(_) => Action::Create,
        Operation::Read(_) => Action::Read,
        Operation::ReadAll => Action::ReadAll,
        Operation::Delete(_) => Action::Delete,
    }
}

pub(super) fn items(operation: &Operation, items: Vec<Item>) -> Result<CollectionItems, ProviderError> {
    let bad = |what: &str| Err(ProviderError::BadOutput(what.into()));
    let (least, most) = match operation {
        Operation::Create(_) | Operation::Read(_) => (1, 1),
        Operation::ReadAll => (0, MOST_ITEMS),
        Operation::Delete(_) => (0, 0),
    };
    if items.len() < least || items.len() > most {
        return bad("it returned too few or too many items");
    }
    let mut checked = Vec::with_capacity(items.len());
    for Item { id, properties } in items {
        if id.is_empty() || id.len() > check::MAX_TOKEN || properties.len() > LONGEST_PROPERTIES {
            return bad("an item's id is empty, or an item is too long");
        }
        match serde_json::from_str(&properties) {
            Ok(properties) => checked.push((id, properties)),
            Err(_) => return bad("an item's properties are not a JSON object"),
        }
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pushlet_model::contract::management::{Parameter, ParameterKind};

    fn channels() -> Collection {
        let parameter = Parameter {
            name: "policy".into(),
            kind: ParameterKind::Integer,
            choices: vec!["0".into()],
            required: true,
            description: String::new(),
        };
        Collection {
            name: "channels".into(),
            description: String::new(),
            actions: vec![Action::ReadAll],
            parameters: vec![parameter],
        }
    }

    fn item(id: &str, properties: &str) -> Item {
        Item { id: id.into(), properties: properties.into() }
    }

    #[test]
    fn collections_are_checked() {
        assert_eq!(sound(&[channels()]), Ok(()));
        let wrong: [fn(&mut Collection); 7] = [
            |collection| collection.name = "feedback".into(),
            |collection| collection.name = "../x".into(),
            |collection| collection.actions.clear(),
            |collection| collection.description = "x".repeat(5000),
            |collection| collection.parameters[0].name = "id".into(),
            |collection| collection.parameters[0].name = "a b".into(),
            |collection| collection.parameters.push(collection.parameters[0].clone()),
        ];
        for (number, spoil) in wrong.into_iter().enumerate() {
            let mut collection = channels();
            spoil(&mut collection);
            assert!(sound(&[collection]).is_err(), "{number}");
        }
        assert!(sound(&[channels(), channels()]).is_err());
    }

    #[test]
    fn items_are_checked() {
        let one = || vec![item("a", r#"{"x":1}"#)];
        assert_eq!(items(&Operation::Read("a".into()), one()).unwrap()[0].1["x"], 1);
        assert!(items(&Operation::Read("a".into()), Vec::new()).is_err());
        assert!(items(&Operation::Delete("a".into()), one()).is_err());
        assert!(items(&Operation::ReadAll, Vec::new()).unwrap().is_empty());
        for wrong in [item("", "{}"), item("a", "[]"), item("a", "{"), item(&"x".repeat(5000), "{}")] {
            assert!(items(&Operation::ReadAll, vec![wrong]).is_err());
        }
    }
}
