//! What the document says of a body is what is read.
#![allow(clippy::unwrap_used)]

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::OpenApi as _;

use super::V1Documents;
use super::lines::StreamLine;
use super::providers::Activation;
use super::send_body::SendBody;
use super::stream::StreamHeader;
use crate::json::typed;

/// The code with which a body of these fields, all null, is refused.
fn refused<T: DeserializeOwned>(fields: &Map<String, Value>) -> String {
    let nulls: Map<String, Value> = fields.keys().map(|name| (name.clone(), Value::Null)).collect();
    let text = Value::Object(nulls).to_string();
    typed::<T>(text.as_bytes(), "it").err().map(|error| error.code.into_owned()).unwrap_or_default()
}

#[test]
fn the_documented_fields_are_those_that_are_read() {
    let document = serde_json::to_value(V1Documents::openapi()).unwrap();
    let schema = |name: &str| &document["components"]["schemas"][name];
    let refused: [(&str, fn(&Map<String, Value>) -> String, &str); 4] = [
        ("Send", refused::<SendBody>, "missing_application_id"),
        ("StreamHeader", refused::<StreamHeader>, "missing_application_id"),
        ("StreamLine", refused::<StreamLine>, "missing_target"),
        ("Activation", refused::<Activation>, "missing_digest"),
    ];
    for (name, refused, missing) in refused {
        let fields = schema(name)["properties"].as_object().unwrap();
        assert_eq!(refused(fields), missing, "{name}");
        let with_another = [("another".to_owned(), Value::Null)].into_iter().chain(fields.clone()).collect();
        assert_eq!(refused(&with_another), "unknown_field", "{name}");
        assert_eq!(schema(name)["additionalProperties"], false, "{name}");
    }
}
