//! The JSON forms of what a provider answers. What is usual is left out, so that vectors stay short.

use crate::{
    ConnectionHint, CredentialFault, Disposition, Encoded, Message, Method, Outcome, Reply, Scope, Throttle,
};
use serde_json::{Map, Value, json};

/// `{"messages", "exchanges", "refusals"}`; or, if that is what is expected and all `targets` are refused for one
/// reason, `{"refused": {"code", "field"}}`.
pub fn encoded(encoded: &Encoded, targets: usize, expected: &Map<String, Value>) -> Value {
    if let (true, [refusal], []) = (expected.contains_key("refused"), &*encoded.refusals, &*encoded.exchanges)
        && refusal.covers.len() == targets
    {
        return json!({ "refused": { "code": refusal.rejection.code, "field": refusal.rejection.field } });
    }
    let mut object = Map::new();
    let as_text = |place: usize| {
        let message = expected.get("messages").and_then(|messages| messages.get(place));
        message.is_some_and(|message| message.get("body_text").is_some())
    };
    // The exchanges of a message agree, so that it is written once.
    let idempotent = |place: usize| {
        let mut own = encoded.exchanges.iter().filter(|exchange| exchange.message as usize == place);
        own.next().map(|exchange| exchange.idempotent)
    };
    insert(
        &mut object,
        "messages",
        encoded.messages.iter().enumerate().map(|(i, m)| message(m, as_text(i), idempotent(i))).collect(),
    );
    let exchanges = encoded.exchanges.iter().map(|exchange| {
        let mut object = Map::new();
        object.insert("covers".into(), json!(exchange.covers));
        if encoded.messages.len() > 1 {
            object.insert("message".into(), json!(exchange.message));
        }
        match &exchange.url {
            Some(url) => object.insert("url".into(), json!(url)),
            None => object.insert("path".into(), json!(exchange.path)),
        };
        headers(&mut object, &exchange.headers);
        Value::Object(object)
    });
    insert(&mut object, "exchanges", exchanges.collect());
    let refusals = encoded.refusals.iter().map(|refusal| {
        json!({ "covers": refusal.covers, "code": refusal.rejection.code, "field": refusal.rejection.field })
    });
    insert(&mut object, "refusals", refusals.collect());
    Value::Object(object)
}

/// `{"outcomes": […]}`, or `{"outcome": …}` for one; with `"native"` where there is one or one is expected.
pub fn reply(reply: &Reply, expected: &Map<String, Value>) -> Value {
    let wanted = |place: usize| match expected.get("outcome") {
        Some(outcome) => outcome.get("message").is_some(),
        None => expected.get("outcomes").is_some_and(|list| list[place].get("message").is_some()),
    };
    let mut outcomes: Vec<Value> =
        reply.outcomes.iter().enumerate().map(|(place, item)| outcome(item, wanted(place))).collect();
    let mut object = Map::new();
    match (expected.contains_key("outcome"), outcomes.len()) {
        (true, 1) => object.insert("outcome".into(), outcomes.remove(0)),
        _ => object.insert("outcomes".into(), Value::Array(outcomes)),
    };
    if expected.contains_key("native") || reply.native.is_some() {
        let native =
            reply.native.as_deref().map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
        object.insert("native".into(), native.unwrap_or_default());
    }
    Value::Object(object)
}

fn message(message: &Message, as_text: bool, idempotent: Option<bool>) -> Value {
    let mut object = Map::new();
    object.insert("endpoint".into(), json!(message.endpoint));
    if message.method != Method::Post {
        object.insert("method".into(), json!(format!("{:?}", message.method)));
    }
    headers(&mut object, &message.headers);
    let text = String::from_utf8_lossy(&message.body);
    match serde_json::from_str::<Value>(&text) {
        Ok(body) if !as_text => object.insert("body".into(), body),
        _ => object.insert("body_text".into(), json!(text)),
    };
    if !message.authenticate {
        object.insert("authenticate".into(), json!(false));
    }
    object.extend(idempotent.map(|idempotent| ("idempotent".to_string(), json!(idempotent))));
    Value::Object(object)
}

/// A disposition is its name, or an object of its name and what it carries.
fn outcome(outcome: &Outcome, with_message: bool) -> Value {
    let mut object = Map::new();
    let disposition = match &outcome.disposition {
        Disposition::Delivered => json!("delivered"),
        Disposition::Unregistered(None) => json!("unregistered"),
        Disposition::Unregistered(Some(since)) => json!({ "unregistered": since }),
        Disposition::Replaced(token) => json!({ "replaced": token }),
        Disposition::Rejected => json!("rejected"),
        Disposition::CredentialRejected(CredentialFault::Expired) => json!("credential_expired"),
        Disposition::CredentialRejected(CredentialFault::Refused) => json!("credential_refused"),
        Disposition::Throttled(Throttle { scope, retry_after: None }) => {
            json!({ "throttled": scope_name(*scope) })
        }
        Disposition::Throttled(Throttle { scope, retry_after: Some(wait) }) => {
            json!({ "throttled": scope_name(*scope), "retry_after": wait })
        }
        Disposition::Unavailable(None) => json!("unavailable"),
        Disposition::Unavailable(Some(wait)) => json!({ "unavailable": wait }),
        Disposition::Unknown => json!("unknown"),
    };
    object.insert("disposition".into(), disposition);
    for (name, value) in [("id", &outcome.id), ("code", &outcome.code)] {
        if let Some(value) = value {
            object.insert(name.into(), json!(value));
        }
    }
    if with_message {
        object.insert("message".into(), json!(outcome.message));
    }
    if outcome.connection == ConnectionHint::Close {
        object.insert("connection".into(), json!("close"));
    }
    Value::Object(object)
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Target => "target",
        Scope::Application => "application",
        Scope::Provider => "provider",
    }
}

fn headers(object: &mut Map<String, Value>, headers: &[(String, String)]) {
    if !headers.is_empty() {
        let map: Map<String, Value> =
            headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        object.insert("headers".into(), Value::Object(map));
    }
}

fn insert(object: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(name.into(), Value::Array(list));
    }
}
