//! Values that are handed on to push services as they are written, while the rest of their body is read into a struct.
//!
//! `serde_json` reads a number from another `Value` by what it is worth: `-0` becomes `0`, and `1E5` becomes `1e+5`.

use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Number, Value};

/// Room that a list gets before its items come.
const MOST_RESERVED: usize = 64;
/// The name under which `serde_json` hands on a number as its digits, with its feature `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

/// A value from which anything can be read; a number that would not be written as it was comes as its digits.
pub struct Exact(pub Value);

impl IntoDeserializer<'_, Error> for Exact {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Exact {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::String(text) => visitor.visit_string(text),
            Value::Number(number) => visit_number(number, visitor),
            Value::Array(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter().map(Exact))),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (name, Exact(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            // Its digits come as a map, but it is none.
            Value::Number(_) => Err(Error::invalid_type(Unexpected::Other("number"), &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct enum identifier ignored_any
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: Number, visitor: V) -> Result<V::Value, Error> {
    if let Some(value) = number.as_u64().filter(|value| Number::from(*value) == number) {
        visitor.visit_u64(value)
    } else if let Some(value) = number.as_i64().filter(|value| Number::from(*value) == number) {
        visitor.visit_i64(value)
    } else {
        visitor.visit_map(MapDeserializer::new(std::iter::once((NUMBER, number.to_string()))))
    }
}

/// A value that is handed on to a push service, read from [`Exact`].
pub struct Verbatim(pub Value);

impl<'de> Deserialize<'de> for Verbatim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VerbatimVisitor).map(Self)
    }
}

struct VerbatimVisitor;

impl<'de> Visitor<'de> for VerbatimVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::with_capacity(list.size_hint().unwrap_or(0).min(MOST_RESERVED));
        while let Some(Verbatim(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Some(name) = entries.next_key::<String>()? else { return Ok(Value::Object(Map::new())) };
        if name == NUMBER {
            let digits: String = entries.next_value()?;
            // An object of the caller may have this name, too: what is no number must not be written as one.
            digits.parse::<Number>().map_err(A::Error::custom)?;
            return Ok(Value::Number(Number::from_string_unchecked(digits)));
        }
        let mut object = Map::new();
        object.insert(name, entries.next_value::<Verbatim>()?.0);
        while let Some((name, Verbatim(value))) = entries.next_entry()? {
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Reads an object whose values stay as they are written; null counts as missing. For `deserialize_with`.
pub fn verbatim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Map<String, Value>>, D::Error> {
    let fields = Option::<VerbatimMap>::deserialize(deserializer)?;
    Ok(fields.map(|VerbatimMap(fields)| fields))
}

/// The same of the fields that no other takes. For `deserialize_with` with `flatten`.
pub fn verbatim_rest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    VerbatimMap::deserialize(deserializer).map(|VerbatimMap(fields)| fields)
}

struct VerbatimMap(Map<String, Value>);

impl<'de> Deserialize<'de> for VerbatimMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;

        impl<'de> Visitor<'de> for MapVisitor {
            type Value = VerbatimMap;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<VerbatimMap, A::Error> {
                let mut fields = Map::new();
                while let Some((name, Verbatim(value))) = entries.next_entry()? {
                    fields.insert(name, value);
                }
                Ok(VerbatimMap(fields))
            }
        }

        deserializer.deserialize_map(MapVisitor)
    }
}
