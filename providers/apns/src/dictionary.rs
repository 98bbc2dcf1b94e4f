//! The `aps` dictionary while it is built.

use std::borrow::Cow;

use pushlet_provider::json::Object;
use serde_core::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// Keys with their values, in the order in which they were first set.
///
/// A dictionary has a handful of keys, almost all of them constants: comparing them one by one is several times
/// cheaper than hashing, and nothing is allocated for them.
#[derive(Clone, Default)]
pub struct Dictionary(Vec<(Cow<'static, str>, Value)>);

impl Dictionary {
    /// Returns whether the dictionary has no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the key is set.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Returns the value of a key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Sets a key; one that is set already keeps its place.
    pub fn insert(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.get_mut(&key) {
            Some(present) => *present = value,
            None => self.0.push((key, value)),
        }
    }

    /// Sets a key unless it is set.
    pub fn insert_if_missing(&mut self, key: &'static str, value: impl Into<Value>) {
        if !self.contains(key) {
            self.insert(key, value);
        }
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let place = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(place).1)
    }

    /// Sets all keys of an object.
    pub fn extend(&mut self, object: Object) {
        for (key, value) in object {
            self.insert(key, value);
        }
    }
}

impl Serialize for Dictionary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(&**key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_keep_their_place_and_the_last_value_counts() {
        let mut dictionary = Dictionary::default();
        dictionary.insert("alert", "a");
        dictionary.insert("badge", 1);
        dictionary.insert_if_missing("badge", 2);
        dictionary.extend(json!({"alert": {"body": "b"}, "x": null}).as_object().unwrap().clone());
        assert_eq!(
            serde_json::to_string(&dictionary).unwrap(),
            r#"{"alert":{"body":"b"},"badge":1,"x":null}"#
        );
        assert_eq!(dictionary.remove("badge"), Some(json!(1)));
        assert!(!dictionary.contains("badge") && dictionary.contains("x"));
    }
}
