//! Golden vectors of a component in any language: tables of inputs, and what must come of them. The format is that of
//! `tests/vectors/README.md`: what is usual is left out.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use pushlet_model::contract::codec::{Answer, Reply, Response};
use pushlet_model::contract::manifest::TargetKind;
use pushlet_model::contract::{
    Alert, Application, Context, CriticalSound, Environment, Localized, Notification, Priority, Recipient,
    Sound, Target,
};

use crate::call;
use crate::report::{Rule, RuleReport};
use crate::sample::{self, NOW};
use crate::subject::Subject;

/// Runs every file of the folders `encode` and `decode`.
pub fn run(subject: &Subject, folder: &Path) -> RuleReport {
    let mut rule = Rule::new("vectors", "each case of the tables gives what it must");
    let mut count = 0;
    for kind in ["encode", "decode"] {
        let files = match files(&folder.join(kind)) {
            Ok(files) => files,
            Err(why) => {
                rule.error("load", format!("vectors, {kind}"), why);
                continue;
            }
        };
        for file in files {
            let name = format!("{kind}/{}", file.file_name().unwrap_or_default().to_string_lossy());
            match cases(&file) {
                Err(why) => rule.error("load", name, why),
                Ok(cases) => {
                    count += cases.len();
                    cases.iter().for_each(|case| one(subject, kind, &name, case, &mut rule));
                }
            }
        }
    }
    if count == 0 {
        rule.error(
            "load",
            folder.display().to_string(),
            "there is no case: expected encode/*.json and decode/*.json",
        );
    }
    rule.done()
}

fn one(subject: &Subject, kind: &str, file: &str, case: &Map<String, Value>, rule: &mut Rule) {
    rule.case();
    let name = case.get("name").and_then(Value::as_str).unwrap_or("a case without a name");
    let place = format!("{file}: {name}");
    let (call, result) = match kind {
        "encode" => ("encode", encode(subject, case)),
        _ => ("decode", decode(subject, case)),
    };
    if let Err(why) = result {
        rule.error(call, place, why);
    }
}

/// Fields of a case that are no expectations.
const INPUTS: [&str; 7] = ["name", "application", "targets", "notification", "response", "now", "about"];

fn encode(subject: &Subject, case: &Map<String, Value>) -> Result<(), String> {
    let manifest = subject.manifest();
    let application = application(case.get("application"))?;
    let targets = recipients(case.get("targets"))?;
    let notification = notification(case.get("notification").unwrap_or(&json!({})))?;
    let bytes = manifest.entropy as usize * targets.len();
    // Wraps around: entropy is the bytes 0, 1, 2, …
    let entropy = (0..bytes).map(|byte| (byte & 0xff) as u8).collect();
    let context = Context { now: now(case), entropy };
    let checked =
        subject.check_application("a vector", &context, &application).map_err(|failure| failure.message)?;
    checked.map_err(|rejection| format!("the application is refused: {}", rejection.message))?;
    let requests = subject
        .encode("a vector", &context, &application, &notification, &targets)
        .map_err(|failure| failure.message)?;
    let expected = expectation(case);
    compare(&expected, &call::encoded(manifest, &requests, targets.len(), &expected))
}

fn decode(subject: &Subject, case: &Map<String, Value>) -> Result<(), String> {
    let application = application(case.get("application"))?;
    let targets = recipients(case.get("targets"))?.into_iter().map(|recipient| recipient.target).collect();
    let response = response(case.get("response").unwrap_or(&Value::Null))?;
    let context = Context { now: now(case), entropy: Vec::new() };
    let answers = [Answer { targets, response }];
    let native = case.contains_key("native");
    let replies = subject
        .decode("a vector", &context, &application, &answers, native)
        .map_err(|failure| failure.message)?;
    let [reply] = replies.as_slice() else { return Err("it gives more or less than one reply".to_owned()) };
    let expected = expectation(case);
    compare(&expected, &decoded(reply, &expected))
}

/// Returns a reply in the form of a vector: what is usual is left out.
fn decoded(reply: &Reply, expected: &Map<String, Value>) -> Value {
    let listed = expected.get("outcomes").and_then(Value::as_array);
    let wanted = |place: usize| {
        let outcome = listed.map_or_else(|| expected.get("outcome"), |outcomes| outcomes.get(place));
        outcome.is_some_and(|outcome| outcome.get("message").is_some())
    };
    let mut outcomes: Vec<Value> = reply.outcomes.iter().map(call::outcome).collect();
    for (place, outcome) in outcomes.iter_mut().enumerate() {
        let Some(outcome) = outcome.as_object_mut() else { continue };
        match wanted(place) {
            true => _ = outcome.entry("message").or_insert(Value::Null),
            false => _ = outcome.shift_remove("message"),
        }
    }
    let mut object = Map::new();
    if expected.contains_key("outcome") && outcomes.len() == 1 {
        object.insert("outcome".to_owned(), outcomes.remove(0));
    } else {
        object.insert("outcomes".to_owned(), Value::Array(outcomes));
    }
    if expected.contains_key("native") || reply.native.is_some() {
        let native = reply.native.as_deref();
        let native = native.map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
        object.insert("native".to_owned(), native.unwrap_or_default());
    }
    Value::Object(object)
}

fn expectation(case: &Map<String, Value>) -> Map<String, Value> {
    let expected = case.iter().filter(|(name, _)| !INPUTS.contains(&name.as_str()));
    expected.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn compare(expected: &Map<String, Value>, actual: &Value) -> Result<(), String> {
    let expected = Value::Object(expected.clone());
    if expected == *actual { Ok(()) } else { Err(format!("expected {expected}, and got {actual}")) }
}

fn now(case: &Map<String, Value>) -> u64 {
    case.get("now").and_then(Value::as_u64).unwrap_or(NOW * 1000)
}

/// Reads `{"environment", "credential", "settings"}`, each optional.
pub(crate) fn application(value: Option<&Value>) -> Result<Application, String> {
    let empty = Value::Null;
    let value = value.unwrap_or(&empty);
    let settings = value.get("settings").and_then(Value::as_object).cloned().unwrap_or_default();
    let environment = match value.get("environment").and_then(Value::as_str) {
        None | Some("production") => Environment::Production,
        Some("development") => Environment::Development,
        Some(other) => return Err(format!("no environment {other}")),
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(Application {
        id: "example".into(),
        environment,
        settings: settings.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect(),
        credential: value.get("credential").and_then(text),
    })
}

/// Reads recipients: a text is a device, `{"topic": "news"}` names its kind, with `options` beside it if there are any.
/// Default: the device `aa11`.
pub(crate) fn recipients(value: Option<&Value>) -> Result<Vec<Recipient>, String> {
    let Some(value) = value else { return Ok(vec![Target::Device("aa11".into()).into()]) };
    value.as_array().into_iter().flatten().map(recipient).collect()
}

fn recipient(value: &Value) -> Result<Recipient, String> {
    let mut value = value.clone();
    let options = value.as_object_mut().and_then(|fields| fields.shift_remove("options"));
    let options = options.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    let options = options.into_iter().map(|(name, value)| (name, value.to_string())).collect();
    Ok(Recipient { target: target(&value)?, options })
}

fn target(value: &Value) -> Result<Target, String> {
    if let Value::String(text) = value {
        return Ok(Target::Device(text.clone()));
    }
    let member = value.as_object().and_then(|map| map.iter().next());
    let (kind, Some(text)) = member.map(|(kind, text)| (kind.as_str(), text.as_str())).unwrap_or_default()
    else {
        return Err(format!("{value} is no target"));
    };
    let kind = match kind {
        "device" => TargetKind::Device,
        "topic" => TargetKind::Topic,
        "condition" => TargetKind::Condition,
        "channel" => TargetKind::Channel,
        "url" => TargetKind::Url,
        other => return Err(format!("no target {other}")),
    };
    Ok(sample::target(kind, text.to_owned()))
}

/// Reads a notification: the contract's fields by name, everything else is an option. Not by way of the HTTP API, so
/// that a table can hold what only a component sees.
fn notification(value: &Value) -> Result<Notification, String> {
    let mut fields = value.as_object().cloned().ok_or("a notification is an object")?;
    let mut take = |name: &str| fields.shift_remove(name);
    let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    let whole = |value: Option<Value>| value.and_then(|value| u32::try_from(value.as_u64()?).ok());
    let json = |value: Option<Value>| value.map(|value| value.to_string());
    let alert = Alert {
        title: text(take("title")),
        subtitle: text(take("subtitle")),
        body: text(take("body")),
        image: text(take("image")),
        title_localized: take("title_localized").map(|value| localized(&value)),
        subtitle_localized: take("subtitle_localized").map(|value| localized(&value)),
        body_localized: take("body_localized").map(|value| localized(&value)),
    };
    let mut notification = Notification {
        alert: Some(alert).filter(|alert| *alert != Alert::default()),
        badge: whole(take("badge")),
        sound: take("sound").map(|value| sound(&value)),
        category: text(take("category")),
        thread: text(take("thread")),
        data: json(take("data")),
        collapse_key: text(take("collapse_key")),
        time_to_live: whole(take("ttl")),
        priority: text(take("priority")).map(|name| priority(&name)).transpose()?,
        identifier: text(take("identifier")),
        native: json(take("native")),
        ..Notification::default()
    };
    notification.options = fields.into_iter().map(|(name, value)| (name, value.to_string())).collect();
    Ok(notification)
}

fn localized(value: &Value) -> Localized {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let arguments = value.get("arguments").and_then(Value::as_array);
    Localized { key: text(&value["key"]), arguments: arguments.into_iter().flatten().map(text).collect() }
}

fn sound(value: &Value) -> Sound {
    match value.as_str() {
        Some("default") => Sound::Default,
        Some(name) => Sound::Named(name.to_owned()),
        None => Sound::Critical(CriticalSound {
            name: value["name"].as_str().unwrap_or_default().to_owned(),
            volume: value["volume"].as_f64().unwrap_or_default(),
        }),
    }
}

fn priority(name: &str) -> Result<Priority, String> {
    match name {
        "low" => Ok(Priority::Low),
        "normal" => Ok(Priority::Normal),
        "high" => Ok(Priority::High),
        other => Err(format!("no priority {other}")),
    }
}

/// Reads `{"status", "headers", "body" or "body_text"}`.
fn response(value: &Value) -> Result<Response, String> {
    let status = value.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let headers = value.get("headers").and_then(Value::as_object).cloned().unwrap_or_default();
    let body = match (value.get("body"), value.get("body_text").and_then(Value::as_str)) {
        (Some(body), _) => body.to_string(),
        (None, text) => text.unwrap_or_default().to_owned(),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Response {
        status: status.ok_or("a response has a status")?,
        headers: headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        body: body.into_bytes(),
    })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let paths = listing.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    paths.sort();
    Ok(paths)
}

/// Reads a table: `{"about", "defaults", "cases"}`; a case is the defaults with its own fields over them.
fn cases(file: &Path) -> Result<Vec<Map<String, Value>>, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    // Numbers stay as they are written.
    let table = pushlet_json::from_slice(text.as_bytes()).map_err(|error| error.to_string())?;
    let Value::Object(table) = table else { return Err("it is no object".to_owned()) };
    let defaults = table.get("defaults").and_then(Value::as_object).cloned().unwrap_or_default();
    let cases = table.get("cases").and_then(Value::as_array).ok_or("it has no list of cases")?;
    let case = |case: &Value| {
        let mut fields = defaults.clone();
        fields.extend(case.as_object().ok_or("a case is an object")?.clone());
        Ok(fields)
    };
    cases.iter().map(case).collect()
}
