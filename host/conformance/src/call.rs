//! What a component returns, shown to people and written as JSON. No secret is here: the credential is named, and its
//! value is the host's.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use pushlet_model::contract::manifest::{
    Authentication, Credential, Origin, Place, Placement, ProviderManifest,
};
use pushlet_model::contract::{
    Application, ConnectionHint, CredentialFault, Disposition, Outcome, Scope, Throttle,
};
use pushlet_sandbox::{Exchange, Message, PreparedRequests};

/// Returns the requests as they would go over the wire, one after the other.
pub fn requests(
    manifest: &ProviderManifest,
    application: &Application,
    requests: &PreparedRequests,
) -> String {
    let mut text = String::new();
    for exchange in &requests.exchanges {
        let message = &requests.messages[exchange.message];
        // Writing to a text cannot fail.
        let _ = request(&mut text, manifest, application, exchange, message);
    }
    for (covers, rejection) in &requests.refusals {
        let field = rejection.field.as_ref().map(|field| format!(", field {field}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "# targets {covers:?} are refused: {} ({}{field})",
            rejection.message, rejection.code
        );
    }
    text
}

fn request(
    text: &mut String,
    manifest: &ProviderManifest,
    application: &Application,
    exchange: &Exchange,
    message: &Message,
) -> std::fmt::Result {
    let origin = match (&exchange.url, &manifest.endpoints[message.endpoint].origin) {
        (Some(url), _) => url.origin().ascii_serialization(),
        (None, Origin::Fixed(origin)) => origin.clone(),
        // The target, or the operator, says where it is.
        (None, Origin::AnyHttps | Origin::Configured) => "https://?".to_owned(),
    };
    writeln!(
        text,
        "# targets {:?}, endpoint {}",
        exchange.covers, manifest.endpoints[message.endpoint].name
    )?;
    writeln!(text, "{} {origin}{}", message.method, exchange.path)?;
    let own = |name: &http::HeaderName| exchange.headers.iter().any(|(other, _)| other == name);
    let shared = message.headers.iter().filter(|(name, _)| !own(name));
    for (name, value) in shared.chain(exchange.headers.iter().map(|(name, value)| (name, value))) {
        writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
    }
    if message.authenticate {
        let credential = application.credential.as_ref();
        let credential =
            credential.and_then(|name| manifest.credentials.iter().find(|one| one.name == *name));
        writeln!(text, "{}", credential.map_or("# without a credential".to_owned(), masked))?;
    }
    match std::str::from_utf8(&message.body) {
        Ok(body) => writeln!(text, "\n{body}\n"),
        Err(_) => writeln!(text, "\n# {} bytes that are no text\n", message.body.len()),
    }
}

/// Returns the lines of a credential, without its value.
fn masked(credential: &Credential) -> String {
    match &credential.authentication {
        Authentication::ClientCertificate => format!("# with the client certificate {}", credential.name),
        Authentication::InStream => format!("# with {}, written into the stream", credential.name),
        Authentication::SignedToken((_, place)) => placed(place, "[a signed token]"),
        Authentication::ExchangedToken((_, place)) => placed(place, "[an access token]"),
        Authentication::Secret((secret, place)) => placed(place, &format!("[{secret}]")),
        Authentication::Vapid(_) => "authorization: vapid t=[a signed token], k=[the public key]".to_owned(),
        Authentication::Composed(composition) => {
            let texts = composition.texts.iter().map(|(_, place)| placed(place, "[made of the secrets]"));
            texts.collect::<Vec<_>>().join("\n")
        }
    }
}

fn placed(placement: &Placement, value: &str) -> String {
    let prefix = &placement.prefix;
    match &placement.place {
        Place::Header(name) => format!("{name}: {prefix}{value}"),
        Place::Path(mark) => format!("# in the path, for {mark}: {prefix}{value}"),
        Place::Query(name) => format!("# in the query: {name}={prefix}{value}"),
        Place::FormField(name) => format!("# in the form: {name}={prefix}{value}"),
        Place::JsonField(name) => format!("# in the JSON body: {name}: {prefix}{value}"),
    }
}

/// Returns requests in the form of the golden vectors: what is usual is left out. `expected` says whether a refusal of
/// all targets is written as one, and whether a body is compared as text.
pub fn encoded(
    manifest: &ProviderManifest,
    requests: &PreparedRequests,
    targets: usize,
    expected: &Map<String, Value>,
) -> Value {
    if let (true, [(covers, rejection)], []) =
        (expected.contains_key("refused"), &*requests.refusals, &*requests.exchanges)
        && covers.len() == targets
    {
        return json!({ "refused": { "code": rejection.code, "field": rejection.field } });
    }
    let is_text = |place: usize| {
        let message = expected.get("messages").and_then(|messages| messages.get(place));
        message.is_some_and(|message| message.get("body_text").is_some())
    };
    // The exchanges of a message agree, so that it is written once.
    let idempotent = |place: usize| {
        let own = requests.exchanges.iter().find(|exchange| exchange.message == place);
        own.map(|exchange| exchange.idempotent)
    };
    let messages = requests.messages.iter().enumerate();
    let messages: Vec<Value> = messages
        .map(|(place, message)| self::message(manifest, message, is_text(place), idempotent(place)))
        .collect();
    let exchanges = requests.exchanges.iter().map(|exchange| {
        let mut object = Map::new();
        object.insert("covers".into(), json!(exchange.covers));
        if requests.messages.len() > 1 {
            object.insert("message".into(), json!(exchange.message));
        }
        match &exchange.url {
            Some(url) => object.insert("url".into(), json!(url.as_str())),
            None => object.insert("path".into(), json!(exchange.path.as_str())),
        };
        headers(&mut object, exchange.headers.iter().map(|(name, value)| (name, value)));
        Value::Object(object)
    });
    let exchanges: Vec<Value> = exchanges.collect();
    let refusals = requests.refusals.iter().map(
        |(covers, rejection)| json!({ "covers": covers, "code": rejection.code, "field": rejection.field }),
    );
    let refusals: Vec<Value> = refusals.collect();
    let lists = [("messages", messages), ("exchanges", exchanges), ("refusals", refusals)];
    let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
    Value::Object(lists.map(|(name, list)| (name.to_owned(), Value::Array(list))).collect())
}

fn message(manifest: &ProviderManifest, message: &Message, is_text: bool, idempotent: Option<bool>) -> Value {
    let mut object = Map::new();
    object.insert("endpoint".into(), json!(manifest.endpoints[message.endpoint].name));
    if message.method != http::Method::POST {
        let mut method = message.method.as_str().to_ascii_lowercase();
        method.get_mut(..1).map(str::make_ascii_uppercase);
        object.insert("method".into(), json!(method));
    }
    headers(&mut object, message.headers.iter());
    let text = String::from_utf8_lossy(&message.body);
    match serde_json::from_str::<Value>(&text) {
        Ok(body) if !is_text => object.insert("body".into(), body),
        _ => object.insert("body_text".into(), json!(text)),
    };
    if !message.authenticate {
        object.insert("authenticate".into(), json!(false));
    }
    // None: all its targets are refused.
    object.extend(idempotent.map(|idempotent| ("idempotent".to_owned(), json!(idempotent))));
    Value::Object(object)
}

fn headers<'a>(
    object: &mut Map<String, Value>,
    headers: impl Iterator<Item = (&'a http::HeaderName, &'a http::HeaderValue)>,
) {
    let value = |value: &http::HeaderValue| json!(String::from_utf8_lossy(value.as_bytes()));
    let map: Map<String, Value> =
        headers.map(|(name, header)| (name.as_str().to_owned(), value(header))).collect();
    if !map.is_empty() {
        object.insert("headers".into(), Value::Object(map));
    }
}

/// Returns an outcome as JSON. A disposition is its name, or an object of its name and what it carries.
pub fn outcome(outcome: &Outcome) -> Value {
    let disposition = match &outcome.disposition {
        Disposition::Delivered => json!("delivered"),
        Disposition::Unregistered(None) => json!("unregistered"),
        Disposition::Unregistered(Some(since)) => json!({ "unregistered": since }),
        Disposition::Replaced(token) => json!({ "replaced": token }),
        Disposition::Rejected => json!("rejected"),
        Disposition::CredentialRejected(CredentialFault::Expired) => json!("credential_expired"),
        Disposition::CredentialRejected(CredentialFault::Refused) => json!("credential_refused"),
        Disposition::Throttled(Throttle { scope, retry_after: None }) => {
            json!({ "throttled": slowed(*scope) })
        }
        Disposition::Throttled(Throttle { scope, retry_after: Some(wait) }) => {
            json!({ "throttled": slowed(*scope), "retry_after": wait })
        }
        Disposition::Unavailable(None) => json!("unavailable"),
        Disposition::Unavailable(Some(wait)) => json!({ "unavailable": wait }),
        Disposition::Unknown => json!("unknown"),
    };
    let mut object = Map::new();
    object.insert("disposition".into(), disposition);
    for (name, value) in [("id", &outcome.id), ("code", &outcome.code), ("message", &outcome.message)] {
        object.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
    }
    if outcome.connection == ConnectionHint::Close {
        object.insert("connection".into(), json!("close"));
    }
    Value::Object(object)
}

fn slowed(scope: Scope) -> &'static str {
    match scope {
        Scope::Target => "target",
        Scope::Application => "application",
        Scope::Provider => "provider",
    }
}
