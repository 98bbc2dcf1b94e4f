//! What the document says of requests is what is read.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use utoipa::OpenApi as _;

use super::{Documents, notifications, stream};

#[test]
fn the_documented_fields_are_those_that_are_read() {
    let document = serde_json::to_value(Documents::openapi()).unwrap();
    for (schema, fields) in [
        ("Send", notifications::FIELDS),
        ("SendItem", notifications::ITEM_FIELDS),
        ("StreamHeader", stream::HEADER_FIELDS),
        ("StreamLine", stream::LINE_FIELDS),
    ] {
        let properties = &document["components"]["schemas"][schema]["properties"];
        let mut documented: Vec<&String> = properties.as_object().unwrap().keys().collect();
        let mut read: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
        documented.sort();
        read.sort();
        assert_eq!(documented, read.iter().collect::<Vec<_>>(), "{schema}");
    }
    let activation = &document["components"]["schemas"]["Activation"]["properties"];
    assert_eq!(activation.as_object().map(|fields| fields.len()), Some(1));
    assert!(matches!(activation["digest"], Value::Object(_)));
}
