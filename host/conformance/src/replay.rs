//! Sends that were recorded, made again with another component: what differs. A record is what `POST /v1/notifications`
//! returns with `"capture": true`, or one of those that `GET /v1/providers/NAME/capture` returns.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::subject::Subject;
use crate::{sample, vectors};
use pushlet_model::contract::codec::{Answer, Response};
use pushlet_model::contract::{Application, Context, Disposition, Outcome, Recipient};
use pushlet_model::text::Escaped;
use pushlet_sandbox::PreparedRequests;

/// What came of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// For people: a line of what was recorded begins with `-`, of what this component does with `+`.
    pub text: String,
    /// How many calls have another result than the recorded ones.
    pub differences: usize,
}

/// Makes the calls of a record again, or of a list of them. `Err`: why it is no record.
pub fn replay(subject: &Subject, given: &Value) -> Result<Replay, String> {
    let Some(records) = given.get("records").and_then(Value::as_array) else {
        return replay_one(subject, given);
    };
    let mut all = Replay { text: String::new(), differences: 0 };
    for (number, record) in records.iter().enumerate() {
        let Replay { text, differences } =
            replay_one(subject, record).map_err(|why| format!("records[{number}]: {why}"))?;
        let of =
            |name: &str| Escaped(record.get(name).and_then(Value::as_str).unwrap_or_default()).to_string();
        let _ = writeln!(all.text, "record     {} {}", of("at"), of("request_id"));
        all.text.push_str(&text);
        all.differences += differences;
    }
    Ok(all)
}

fn replay_one(subject: &Subject, record: &Value) -> Result<Replay, String> {
    let record = record.get("record").unwrap_or(record);
    let fields = record.get("notification").and_then(Value::as_object).cloned();
    let fields =
        fields.ok_or("it has no notification: expected what a send with \"capture\": true returned")?;
    let application = vectors::application(record.get("application"))?;
    let list = |name: &str| record.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut replay = Replay { text: String::new(), differences: 0 };
    for call in list("calls") {
        encode(subject, &application, &fields, call, list("exchanges"), &mut replay)?;
    }
    for exchange in list("exchanges").iter().filter(|exchange| exchange.get("answer").is_some()) {
        decode(subject, &application, exchange, &mut replay)?;
    }
    Ok(replay)
}

impl Replay {
    fn same(&mut self, place: &str) {
        // Writing to a text cannot fail.
        let _ = writeln!(self.text, "same       {}", Escaped(place));
    }

    /// `parts`: name, recorded text, text now.
    fn differs(&mut self, place: &str, parts: &[(String, String, String)]) {
        self.differences += 1;
        let _ = writeln!(self.text, "different  {}", Escaped(place));
        for (name, before, after) in parts {
            let _ = writeln!(self.text, "  - {name}: {}", Escaped(before));
            let _ = writeln!(self.text, "  + {name}: {}", Escaped(after));
        }
    }
}

fn encode(
    subject: &Subject,
    application: &Application,
    fields: &Map<String, Value>,
    call: &Value,
    recorded: &[Value],
    replay: &mut Replay,
) -> Result<(), String> {
    let recipients = vectors::recipients(call.get("targets"))?;
    let entropy = call.get("entropy").and_then(Value::as_str).unwrap_or_default();
    let entropy = STANDARD.decode(entropy).map_err(|error| format!("entropy: {error}"))?;
    let context = Context { now: milliseconds(call), entropy };
    let place = format!("encode {}", call.get("targets").unwrap_or(&Value::Null));
    let made = sample::parsed(subject.manifest(), fields.clone()).and_then(|notification| {
        let requests = subject.encode("the record", &context, application, &notification, &recipients);
        requests.map_err(|failure| failure.message)
    });
    let before = recorded.iter().filter(|exchange| is_of(exchange, &recipients)).map(request_of);
    let before: BTreeMap<String, Request> = before.rev().collect();
    let after = match made {
        Ok(requests) => requests_of(&requests, &recipients),
        Err(why) => {
            let before = if before.is_empty() { "no request".to_owned() } else { "a request".to_owned() };
            replay.differs(&place, &[("result".to_owned(), before, why)]);
            return Ok(());
        }
    };
    let mut all: Vec<&String> = before.keys().chain(after.keys()).collect();
    all.sort();
    all.dedup();
    for targets in all {
        let parts = compare(before.get(targets), after.get(targets));
        let place = format!("encode {targets}");
        if parts.is_empty() { replay.same(&place) } else { replay.differs(&place, &parts) }
    }
    Ok(())
}

/// The parts of a request, by name.
type Request = BTreeMap<String, String>;

fn compare(before: Option<&Request>, after: Option<&Request>) -> Vec<(String, String, String)> {
    let empty = Request::new();
    let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let text =
        |request: &Request, name: &String| request.get(name).cloned().unwrap_or_else(|| "nothing".to_owned());
    let parts = names.into_iter().map(|name| (name.clone(), text(before, name), text(after, name)));
    parts.filter(|(_, before, after)| before != after).collect()
}

/// Returns true if a recorded exchange is for targets of this call.
fn is_of(exchange: &Value, recipients: &[Recipient]) -> bool {
    let targets = exchange.get("targets").and_then(Value::as_array);
    let is_here = |target: &Value| recipients.iter().any(|recipient| shown(recipient) == *target);
    targets.is_some_and(|targets| targets.iter().all(is_here))
}

/// Returns the targets of a recorded exchange, and its request.
fn request_of(exchange: &Value) -> (String, Request) {
    let text = |name: &str| exchange.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let headers = exchange.get("headers").and_then(Value::as_object);
    let headers = headers
        .into_iter()
        .flatten()
        .map(|(name, value)| (format!("header {name}"), value.as_str().unwrap_or_default().to_owned()));
    let mut request: Request = headers.collect();
    request.insert("method".to_owned(), text("method"));
    request.insert("path".to_owned(), text("path"));
    request.insert("body".to_owned(), shown_body(&body(exchange)));
    (exchange.get("targets").unwrap_or(&Value::Null).to_string(), request)
}

fn requests_of(requests: &PreparedRequests, recipients: &[Recipient]) -> BTreeMap<String, Request> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let of = |exchange: &pushlet_sandbox::Exchange| {
        let message = &requests.messages[exchange.message];
        let own = exchange.headers.iter().map(|(name, value)| (name, value));
        let headers = message.headers.iter().chain(own);
        let mut request: Request =
            headers.map(|(name, value)| (format!("header {name}"), text(value))).collect();
        request.insert("method".to_owned(), message.method.to_string());
        request.insert("path".to_owned(), exchange.path.to_string());
        request.insert("body".to_owned(), shown_body(&message.body));
        let targets = exchange.covers.iter().filter_map(|&index| recipients.get(index as usize)).map(shown);
        (Value::Array(targets.collect()).to_string(), request)
    };
    requests.exchanges.iter().map(of).collect()
}

fn decode(
    subject: &Subject,
    application: &Application,
    exchange: &Value,
    replay: &mut Replay,
) -> Result<(), String> {
    let answer = exchange.get("answer").unwrap_or(&Value::Null);
    let status = answer.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let status = status.ok_or("an answer has no status")?;
    let headers = answer.get("headers").and_then(Value::as_object).into_iter().flatten();
    let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    let response = Response { status, headers: headers.collect(), body: body(answer) };
    let recipients = vectors::recipients(exchange.get("targets"))?;
    let targets = recipients.into_iter().map(|recipient| recipient.target).collect();
    let context = Context { now: milliseconds(answer), entropy: Vec::new() };
    let answers = [Answer { targets, response }];
    let after = match subject.decode("the record", &context, application, &answers, true) {
        Ok(replies) => {
            let outcomes = replies.iter().flat_map(|reply| &reply.outcomes).map(outcome);
            Value::Array(outcomes.collect()).to_string()
        }
        Err(failure) => failure.message,
    };
    let failure = exchange.get("failure").and_then(Value::as_str).map(str::to_owned);
    let before = failure.unwrap_or_else(|| exchange.get("outcomes").unwrap_or(&Value::Null).to_string());
    let place = format!("decode {}, status {status}", exchange.get("targets").unwrap_or(&Value::Null));
    if before == after {
        replay.same(&place);
    } else {
        replay.differs(&place, &[("outcomes".to_owned(), before, after)]);
    }
    Ok(())
}

/// Writes an outcome as the HTTP API does.
fn outcome(outcome: &Outcome) -> Value {
    let status = match outcome.disposition {
        Disposition::Delivered => "delivered",
        Disposition::Unregistered(_) => "unregistered",
        Disposition::Replaced(_) => "replaced",
        Disposition::Rejected => "rejected",
        Disposition::CredentialRejected(_) => "credential_rejected",
        Disposition::Throttled(_) => "throttled",
        Disposition::Unavailable(_) => "unavailable",
        Disposition::Unknown => "unknown",
    };
    let mut object = Map::from_iter([("status".to_owned(), json!(status))]);
    for (name, value) in [("id", &outcome.id), ("code", &outcome.code), ("message", &outcome.message)] {
        object.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
    }
    Value::Object(object)
}

/// Writes a target as the HTTP API does, without its options.
fn shown(recipient: &Recipient) -> Value {
    use pushlet_model::contract::Target;
    match &recipient.target {
        Target::Device(text) => json!(text),
        Target::Topic(text) => json!({ "topic": text }),
        Target::Condition(text) => json!({ "condition": text }),
        Target::Channel(text) => json!({ "channel": text }),
        Target::Url(text) => json!({ "url": text }),
    }
}

fn milliseconds(of: &Value) -> u64 {
    of.get("now").and_then(Value::as_u64).unwrap_or(sample::NOW * 1000)
}

fn body(of: &Value) -> Vec<u8> {
    let text = |name: &str| of.get(name).and_then(Value::as_str);
    match (text("body"), text("body_base64")) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, bytes) => STANDARD.decode(bytes.unwrap_or_default()).unwrap_or_default(),
    }
}

fn shown_body(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("base64 {}", STANDARD.encode(bytes)),
    }
}
